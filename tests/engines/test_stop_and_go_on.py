"""A run that is asked to stop saves where it stands, and goes on to where it would have ended."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from engine_cases import OWN_START

from tunebook.models.checkpoints import last_whole_checkpoint


def start(recipe: Path, log: Path, **env: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", "tunebook.cli.main", "train", recipe],
        stdout=log.open("wb"),
        stderr=subprocess.STDOUT,
        env={**os.environ, **OWN_START, **env},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def ask_behind(step: int, process: subprocess.Popen, log: Path, timeout: float = 300) -> int:
    """Send SIGUSR1 once that step was logged; returns the exit status."""
    deadline = time.monotonic() + timeout
    while f"step {step}, " not in log.read_text(errors="replace"):
        assert process.poll() is None, log.read_text(errors="replace")[-4000:]
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGUSR1)
    return process.wait(timeout=120)


def history(output: Path, key: str) -> dict[int, float]:
    """Every value of one key in the newest state, by step."""
    newest = max(output.glob("checkpoint-*"), key=lambda folder: int(folder.name.split("-")[1]))
    log = json.loads((newest / "trainer_state.json").read_text())["log_history"]
    return {entry["step"]: entry[key] for entry in log if key in entry}


def stop(recipe: Path, output: Path, folder: Path, last: int, **env: str) -> int:
    """Stop a run behind its first evaluation, at step 20; returns where it stopped."""
    log = folder / "first.log"
    assert ask_behind(20, start(recipe, log, **env), log) == 138, log.read_text()[-4000:]
    said = log.read_text(errors="replace")
    saved = max(int(path.name.split("-")[1]) for path in output.glob("checkpoint-*"))
    assert 20 <= saved < last, "it was over before it could be asked"
    assert f"asked to stop: saving a checkpoint at step {saved}" in said
    assert f"stopped as asked; the same command goes on from {output / f'checkpoint-{saved}'}" in said
    assert not (output / "tunebook" / "finished.json").exists()
    return saved


def both_ways(recipes: dict[str, Path], outputs: dict[str, Path], folder: Path, last: int) -> None:
    """Train one recipe with a stop, one without, and compare what they logged."""
    saved = stop(recipes["stopped"], outputs["stopped"], folder, last)
    second = folder / "second.log"
    assert start(recipes["stopped"], second).wait(timeout=300) == 0, second.read_text()[-4000:]
    assert f"resuming from {outputs['stopped'] / f'checkpoint-{saved}'}" in second.read_text()
    whole = folder / "whole.log"
    assert start(recipes["whole"], whole).wait(timeout=300) == 0, whole.read_text()[-4000:]
    for key in ("loss", "eval_accuracy", "eval_loss"):
        # Axolotl evaluates at every start, so once more where it went on.
        went, expected = history(outputs["stopped"], key), history(outputs["whole"], key)
        assert {step: value for step, value in went.items() if step != saved or step in expected} == expected
    assert len(history(outputs["whole"], "loss")) >= last - 1


@pytest.mark.engine
def test_llamafactory_stops_at_a_step_and_goes_on_as_if_it_had_not(recipe, tmp_path):
    outputs, recipes = {}, {}
    for name in ("stopped", "whole"):
        outputs[name], recipes[name] = tmp_path / name, tmp_path / f"{name}.yaml"
        values = recipe(output_dir=str(outputs[name]), max_steps=120, logging_steps=1)
        recipes[name].write_text(yaml.safe_dump(values))
    both_ways(recipes, outputs, tmp_path, last=120)


@pytest.mark.engine
def test_the_ranks_of_a_run_stop_at_one_step(recipe, tmp_path):
    # Going on is not tried: torch does not read back what several ranks on one CPU have saved.
    file = tmp_path / "recipe.yaml"
    file.write_text(
        yaml.safe_dump(recipe(output_dir=str(tmp_path / "output"), max_steps=200, ddp_timeout=60))
    )
    saved = stop(file, tmp_path / "output", tmp_path, last=200, NPROC_PER_NODE="2")
    found = last_whole_checkpoint(tmp_path / "output")
    assert (found.path.name, found.passed_over) == (f"checkpoint-{saved}", [])
    assert len(list(found.path.glob("rng_state_*.pth"))) == 2


@pytest.mark.axolotl
def test_axolotl_stops_at_a_step_and_goes_on_as_if_it_had_not(axolotl_recipe, tmp_path):
    outputs, recipes = {}, {}
    for name in ("stopped", "whole"):
        outputs[name] = tmp_path / name
        changes = {"max_steps": 120, "eval_steps": 20, "save_steps": 20, "logging_steps": 1}
        recipes[name] = axolotl_recipe("like_train", "like_eval", output_dir=str(outputs[name]), **changes)
    both_ways(recipes, outputs, tmp_path, last=120)
