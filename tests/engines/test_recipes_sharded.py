"""Sharing weights among ranks by PyTorch's FSDP2: the overlay, and the file for `accelerate launch`."""

import json
import os
import subprocess
import sys
from pathlib import Path

import every_recipe
import pytest
import yaml
from engine_cases import ROOT

from recipe_cases import cases

pytestmark = pytest.mark.engine

RECIPE = "llamafactory/qwen3-32b/full_sft_csv_chat"
BIN = Path(sys.executable).parent
TWO_RANKS = {"FORCE_TORCHRUN": "1", "NPROC_PER_NODE": "2"}


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkout")
    every_recipe.prepare(folder, [case for case in cases("llamafactory") if case.name == RECIPE])
    # FSDP's file, for ranks that share a CPU.
    config = yaml.safe_load((ROOT / "recipes" / "accelerate" / "fsdp.yaml").read_text())
    (folder / "fsdp.yaml").write_text(yaml.safe_dump({**config, "use_cpu": True, "mixed_precision": "no"}))
    return folder


def run(folder: Path, *command: str, **env: str) -> None:
    environment = {
        **os.environ,
        "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
        **env,
    }
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]


def losses(folder: Path) -> dict[int, float]:
    """Training losses by step, and the loss of the last evaluation as step 0."""
    history = json.loads((folder / "trainer_state.json").read_text())["log_history"]
    found = {row["step"]: row["loss"] for row in history if "loss" in row}
    return {**found, 0: [row["eval_loss"] for row in history if "eval_loss" in row][-1]}


def test_fsdp_gives_the_losses_of_whole_models_on_each_rank(checkout):
    train = ("tunebook", "train", RECIPE, "-o", "smoke", "use_cpu=true")
    run(checkout, *train, "output_dir=output/whole", **TWO_RANKS)
    run(checkout, *train, "-o", "fsdp", "output_dir=output/overlay", **TWO_RANKS)
    resolved = checkout / "output" / "whole" / "tunebook" / "recipe.yaml"
    launch = ("accelerate", "launch", "--config_file", "fsdp.yaml", "--num_processes", "2")
    run(checkout, *launch, "-m", "llamafactory.launcher", str(resolved), "output_dir=output/launched")
    whole = losses(checkout / "output" / "whole")
    assert set(whole) == {0, 1, 2}
    for name in ("overlay", "launched"):
        folder = checkout / "output" / name
        assert losses(folder) == pytest.approx(whole, abs=2e-3), name
        written = json.loads((folder / "config.json").read_text())
        assert written["architectures"] == ["Qwen3ForCausalLM"]
        size = (checkout / "output" / "whole" / "model.safetensors").stat().st_size
        assert (folder / "model.safetensors").stat().st_size == pytest.approx(size, rel=0.01)
