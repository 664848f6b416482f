"""`tunebook doctor` as typed, with the environments' own torch."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.engine

TUNEBOOK = Path(sys.executable).parent / "tunebook"


def run(*arguments, **env):
    done = subprocess.run(
        [TUNEBOOK, "doctor", *arguments],
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert done.returncode in (0, 1), done.stderr
    return done


def test_the_torch_of_this_environment_is_told_as_it_tells_itself():
    import torch

    found = json.loads(run("llamafactory/demo/full_sft_recommend", "--json", HF_TOKEN="hf_mine").stdout)
    (environment,) = found["environments"]
    assert environment["path"] == sys.prefix
    assert environment["torch"] == torch.__version__
    assert environment["abi"] == torch.compiled_with_cxx11_abi()
    assert environment["cuda_available"] == torch.cuda.is_available()
    assert environment["attention"]["kind"] == "sdpa"
    assert environment["unmet"] == []
    assert environment["error"] is None
    assert found["machine"]["tokens"]["HF_TOKEN"] is True
    assert "hf_mine" not in json.dumps(found)


def test_a_flash_attn_of_another_torch_is_found_by_loading_it(tmp_path):
    package = tmp_path / "flash_attn"
    package.mkdir()
    (package / "__init__.py").write_text("raise ImportError('undefined symbol: _ZN3c105ErrorC2E')\n")
    info = tmp_path / "flash_attn-2.8.3.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: flash-attn\nVersion: 2.8.3\n")
    done = run("llamafactory/demo/full_sft_recommend", PYTHONPATH=str(tmp_path))
    assert "2.8.3, ImportError: undefined symbol: _ZN3c105ErrorC2E" in done.stdout
