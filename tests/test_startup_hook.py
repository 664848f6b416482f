"""The start-up hook in a program of somebody else's, where a module is not as we know it."""

import subprocess
import sys

from tunebook import __version__

BROKEN = """
import sys
from tunebook.hooks import startup
startup._BINDINGS = {"colorsys": ("json", "no_such_name"), "llamafactory.train.sft.workflow": ("no_such_module", "bind")}
startup.install()
import colorsys
print(colorsys.rgb_to_hsv(0, 0, 0))
import llamafactory.train.sft.workflow as workflow
print(workflow.export())
workflow.run_sft(1, data=2)
"""


def test_a_name_that_is_gone_breaks_no_other_program_and_one_line_says_whose_it_was(tmp_path):
    folder = tmp_path / "llamafactory" / "train" / "sft"
    folder.mkdir(parents=True)
    for above in (folder, *folder.parents[:2]):
        (above / "__init__.py").touch()
    (folder / "workflow.py").write_text(
        "def export():\n    return 'exported'\n\n\ndef run_sft():\n    print('trained')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", BROKEN], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.stdout == "(0.0, 0.0, 0)\nexported\n"
    first, second, refused = done.stderr.splitlines()
    assert first.startswith(f"[tunebook {__version__}] colorsys is not the one we know: AttributeError")
    assert second.startswith(f"[tunebook {__version__}] llamafactory.train.sft.workflow is not")
    # A training without the metrics that it asks for must not look like one with them.
    assert refused.startswith(second)
    assert "TUNEBOOK_HOOK=0" in refused
    assert done.returncode == 1
