import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.axolotl

ROOT = Path(__file__).resolve().parents[2]

COMPARE = """
import sys
sys.path.insert(0, "scripts")
from snapshot_schema import snapshot
path, text = snapshot("axolotl")
sys.exit(path.read_text() != text)
"""


def test_the_snapshot_holds_the_keys_of_the_installed_engine():
    done = subprocess.run(
        [sys.executable, "-c", COMPARE],
        cwd=ROOT,
        env={"AXOLOTL_DO_NOT_TRACK": "1", "PATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:] + "run scripts/snapshot_schema.py axolotl"
