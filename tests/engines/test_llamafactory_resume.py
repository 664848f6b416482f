"""A run that is killed goes on from its last whole checkpoint, and ends where it would have ended."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from engine_cases import OWN_START, Run

from tunebook.runs import live

pytestmark = pytest.mark.engine

BIN = Path(sys.executable).parent


def start(command, log, **env):
    return subprocess.Popen(
        command,
        stdout=log.open("wb"),
        stderr=subprocess.STDOUT,
        env={**os.environ, **OWN_START, **env},
        start_new_session=True,
        # A shell starts background jobs with SIGINT ignored, and children inherit that: whoever runs these
        # tests in the background would see Ctrl-C do nothing.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def kill_after(checkpoint: Path, process, signal_number, timeout=300):
    """Send a signal to the whole group once a checkpoint is there and some steps have gone by."""
    deadline = time.monotonic() + timeout
    while not (checkpoint / "trainer_state.json").exists():
        assert process.poll() is None, "the run ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.killpg(process.pid, signal_number)
    process.wait(timeout=90)


@pytest.fixture
def interrupted(recipe, learned, tmp_path):
    """A run like `learned`, killed with SIGKILL behind step 20, with a half-written checkpoint 40."""

    def make(command_of):
        output = tmp_path / "output"
        values = recipe(metric_for_best_model="macro_f1", load_best_model_at_end=True, max_steps=80)
        file = tmp_path / "recipe.yaml"
        # Slow enough to be killed between the checkpoints.
        file.write_text(yaml.safe_dump({**values, "output_dir": str(output), "early_stopping_steps": 5}))
        process = start(command_of(file), tmp_path / "first.log")
        kill_after(output / "checkpoint-20", process, signal.SIGKILL)
        assert live.read_state(output).life == "killed"
        half = output / "checkpoint-40"
        shutil.rmtree(half, ignore_errors=True)
        for later in ("checkpoint-60", "checkpoint-80"):
            shutil.rmtree(output / later, ignore_errors=True)
        half.mkdir()
        shutil.copy(output / "checkpoint-20" / "config.json", half)
        weights = (output / "checkpoint-20" / "model.safetensors").read_bytes()
        (half / "model.safetensors").write_bytes(weights[: len(weights) // 2])
        done = subprocess.run(
            command_of(file),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        state = live.read_state(output)
        assert (state.life, state.total_steps) == ("finished", 80)
        return Run(done.returncode, done.stdout, output)

    return make


def test_the_engines_own_command_passes_over_a_half_written_checkpoint(interrupted, learned):
    run = interrupted(lambda file: [BIN / "llamafactory-cli", "train", file])
    assert run.code == 0, run.log[-3000:]
    assert "passing over checkpoint-40: trainer_state.json is missing" in run.log
    assert "resuming from checkpoint-20" in run.log
    assert run.logged("eval_macro_f1") == learned.logged("eval_macro_f1")
    assert run.logged("eval_loss") == learned.logged("eval_loss")


def test_tunebook_train_goes_on_and_ends_as_if_nothing_had_happened(interrupted, learned):
    run = interrupted(lambda file: [BIN / "tunebook", "train", file])
    assert run.code == 0, run.log[-3000:]
    assert "checkpoint-40" in run.log
    assert "checkpoint-20" in run.log
    assert run.logged("eval_loss") == learned.logged("eval_loss")


def test_a_checkpoint_of_the_last_step_is_only_closed(recipe, train, learned):
    steps = learned.state()["max_steps"]
    last = learned.output / f"checkpoint-{steps}"
    run = train(recipe(max_steps=steps, resume_from_checkpoint=str(last)))
    assert run.code == 0, run.log[-3000:]
    assert run.state()["global_step"] == steps
    assert not (run.output / f"checkpoint-{steps + 1}").exists()
    assert (run.output / "model.safetensors").read_bytes() == (last / "model.safetensors").read_bytes()


def test_interrupting_leaves_no_worker_behind(recipe, tmp_path):
    output = tmp_path / "output"
    file = tmp_path / "recipe.yaml"
    values = recipe(max_steps=20_000, eval_steps=40, save_steps=10, save_total_limit=2)
    file.write_text(yaml.safe_dump({**values, "output_dir": str(output)}))
    log = tmp_path / "log"
    process = start([BIN / "tunebook", "train", file], log, FORCE_TORCHRUN="1", NPROC_PER_NODE="2")
    try:
        deadline = time.monotonic() + 400
        while not (output / "checkpoint-10" / "trainer_state.json").exists():
            assert process.poll() is None, log.read_text()[-3000:]
            assert time.monotonic() < deadline
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=120) == 130
        assert not running(str(output))
    finally:
        for pid in running(str(output)):
            os.kill(pid, signal.SIGKILL)
    assert "tunebook: stopped by Ctrl-C; the same command goes on from" in log.read_text()


def running(path: str) -> list[int]:
    """Processes whose command line names a path."""
    listed = subprocess.run(["ps", "-eo", "pid,args"], capture_output=True, text=True, check=True).stdout
    return [int(line.split()[0]) for line in listed.splitlines() if path in line]
