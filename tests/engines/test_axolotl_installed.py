"""What the installed Axolotl knows: the keys of our snapshot, and our commands."""

import importlib.metadata
import subprocess
import sys
from pathlib import Path

import pytest
from engine_cases import verdicts

pytestmark = pytest.mark.axolotl

ROOT = Path(__file__).resolve().parents[2]

COMPARE = """
import sys
sys.path.insert(0, "scripts")
from snapshot_schema import PARTS, snapshot
from tunebook.engines import schema
for part in PARTS["axolotl"]:
    version, sections = snapshot(part)
    held = schema.select(schema._read(part), version)
    if any(held[name] != section for name, section in sections.items()):
        sys.exit(f"{part} {version} has changed; ")
"""


def test_the_snapshot_holds_the_keys_of_the_installed_engine():
    done = subprocess.run(
        [sys.executable, "-c", COMPARE],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:] + "run scripts/snapshot_schema.py axolotl"


INSTALLED = any(
    point.name == "tunebook" for point in importlib.metadata.entry_points(group="axolotl.cli_commands")
)


@pytest.mark.skipif(not INSTALLED, reason="the installed tunebook does not offer the entry point")
def test_axolotl_s_command_line_reaches_ours():
    axolotl = Path(sys.executable).parent / "axolotl"
    listed = subprocess.run([axolotl, "--help"], capture_output=True, text=True, check=True).stdout
    assert "Run tunebook: recipes, metrics and reports." in listed
    done = subprocess.run([axolotl, "tunebook", "ls"], capture_output=True, text=True, check=False)
    assert "axolotl/demo/full_sft_recommend" in done.stdout


VERDICT = """
base_model: some/model
adapter: lora
lora_r: 8
lora_alpha: 16
datasets: [{path: some/set, type: alpaca}]
micro_batch_size: 1
gradient_accumulation_steps: 1
learning_rate: 1.0e-4
output_dir: out
num_epochs: 1
"""


def test_the_parser_s_own_verdict_is_told_and_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    given = {
        "taken": "bf16: false",
        "refused": "rl: dpo\nsample_packing: true",
        "no such card": "fp8: true",
    }
    for name, more in given.items():
        Path(f"{name}.yaml").write_text(f"{VERDICT}{more}\n")
    told = verdicts(list(given))
    assert {name: severity for name, (severity, _) in told.items()} == {
        "taken": "hint",
        "refused": "error",
        "no such card": "warning",
    }
    assert "`sample_packing: true` does not work with RLHF training" in told["refused"][1]
    assert sorted(path.stem for path in tmp_path.iterdir()) == sorted(given)
