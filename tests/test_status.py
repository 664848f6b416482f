"""`tunebook status` and `stop`: what they read out of real logs, and out of processes."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tunebook.errors import TunebookError
from tunebook.runs import live, processes
from tunebook.runs.live import GpuUse, parse_log, parse_uses

LOGS = Path(__file__).parent / "fixtures" / "logs"
CLI = [sys.executable, "-m", "tunebook.cli.main"]
LF = (LOGS / "background_llamafactory.log").read_bytes()
AXOLOTL = (LOGS / "background_axolotl.log").read_bytes()


def until(log: bytes, mark: bytes, *, after: int = 0, which: int = 0) -> bytes:
    """The log as it was when `mark` had just been written for the (which+1)-th time, and `after` bytes more."""
    at = -1
    for _ in range(which + 1):
        at = log.index(mark, at + 1)
    return log[: at + len(mark) + after]


@pytest.mark.parametrize(
    ("log", "phase", "part"),
    [
        (LF[:300], "starting", None),
        (until(LF, b"Loading dataset "), "loading data", None),
        (until(LF, b"Running tokenizer on dataset:   0%|          | 0/400 [00:00<?, ? examples/s]"), "tokenising", (0, 400)),
        (until(LF, b"Loading weights:   0%|          | 0/24 [00:00<?, ?it/s]"), "loading model", (0, 24)),
        (until(LF, b"***** Running training *****"), "training", None),
        (until(LF, b"***** Running Evaluation *****"), "evaluating", None),
        (until(LF, b"Saving model checkpoint to"), "saving", None),
        (AXOLOTL[:300], "starting", None),
        (until(AXOLOTL, b" 270/400 [00:00<00:00, 1828.10 examples/s]"), "tokenising", (270, 400)),
        (until(AXOLOTL, b"Loading weights:   0%|          | 0/24 [00:00<?, ?it/s]"), "loading model", (0, 24)),
        (until(AXOLOTL, b"Starting trainer..."), "training", None),
        (until(AXOLOTL, b"Running evaluation step"), "evaluating", None),
        (until(AXOLOTL, b"Saving model checkpoint to"), "saving", None),
    ],
)  # fmt: skip
def test_each_phase_of_both_engines_is_told_from_their_logs(log, phase, part):
    state = parse_log(log, log)
    assert state.phase == phase
    assert (None if state.part_done is None else (state.part_done, state.part_total)) == part


@pytest.mark.parametrize("log", [LF, AXOLOTL])
def test_training_goes_on_behind_an_evaluation_and_a_checkpoint(log):
    bar = next(bar for bar in re.finditer(rb"\| (\d+)/60 \[[^\r\n]*?/s", log) if 20 < int(bar[1]) < 40)
    state = parse_log(log, log[: bar.end()])
    assert state.phase == "training"
    assert (state.step, state.total_steps, state.rows_per_step) == (int(bar[1]), 60, 16)
    assert state.steps_per_second > 1
    assert state.seconds_left is not None


def test_the_bar_is_believed_where_axolotl_announces_other_steps():
    bar = next(bar for bar in re.finditer(rb"\| (\d+)/60 \[[^\r\n]*?/s", AXOLOTL) if 20 < int(bar[1]) < 40)
    for announced in (b"", b"Maximum number of steps set at 100"):
        log = re.sub(rb"Maximum number of steps set at \d+", announced, AXOLOTL[: bar.end()])
        state = parse_log(log, log)
        assert (state.phase, state.step, state.total_steps) == ("training", int(bar[1]), 60)


def test_a_tail_that_holds_no_announcement_is_read_with_the_head():
    bar = [bar for bar in re.finditer(rb"\d+%[^\r\n]*?\| (\d+)/60 \[[^\r\n]*?/s", LF) if int(bar[1]) < 60][-1]
    state = parse_log(LF[:20000], bar[0])
    assert (state.phase, state.step, state.total_steps) == ("training", int(bar[1]), 60)


def test_a_step_slower_than_a_second_is_turned_over():
    log = b"***** Running training *****\n  Total optimization steps = 60\n  5%|5 | 3/60 [00:12<03:48,  4.00s/it]"
    state = parse_log(log, log)
    assert (state.steps_per_second, state.seconds_left) == (0.25, 228.0)


def test_nvidia_smis_tables_are_joined_for_the_processes_of_the_run():
    apps = "GPU-a, 11, 20480\nGPU-b, 99, 1024\nGPU-a, 12, 512\n"
    cards = "GPU-a, 0, 97, 21000, 81559\nGPU-b, 1, [N/A], 1024, 81559\n"
    assert parse_uses(apps, cards, {11, 12}) == [GpuUse(0, 97.0, 20992.0, 21000.0, 81559.0)]
    assert parse_uses("GPU-b, 99, [N/A]\n", cards, {99}) == [GpuUse(1, None, None, 1024.0, 81559.0)]
    assert parse_uses("", cards, {11}) == []


def write_run(folder: Path, **record) -> Path:
    ours = folder / "tunebook"
    ours.mkdir(parents=True)
    (ours / "run.json").write_text("{}")
    (ours / "process.json").write_text(json.dumps(record))
    return folder


@pytest.fixture
def sleeper(tmp_path):
    """A run folder whose process is a real one, ended at the end."""
    script = f"""
import os, signal, sys, time
from datetime import UTC, datetime
from pathlib import Path
from tunebook.runs import processes
folder = Path({str(tmp_path / "run" / "tunebook")!r})
def work():
    signal.signal(signal.SIGUSR1, lambda *_: (processes.record_end(folder, {{"exit_status": 138, "stopped_by": "request"}}), os._exit(138)))
    processes.record_self(folder, {{"log": {str(tmp_path / "run" / "train.log")!r}}})
    (folder / "run.json").write_text("{{}}")
    print("at work", flush=True)
    time.sleep(60)
    return 0
print(processes.detach(work, Path({str(tmp_path / "run" / "train.log")!r})))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=20)
    pid = int(done.stdout)
    deadline = time.monotonic() + 10
    while not (tmp_path / "run" / "tunebook" / "run.json").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    yield pid, tmp_path / "run"
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def test_a_detached_process_outlives_its_starter_in_a_session_of_its_own(sleeper):
    pid, folder = sleeper
    assert os.getsid(pid) != os.getsid(0)
    assert (folder / "tunebook" / "run.pid").read_text() == f"{pid}\n"
    assert (folder / "train.log").read_text() == "at work\n"
    assert live.read_state(folder).life == "running"


def test_a_process_that_was_killed_is_known_to_be_gone(sleeper):
    pid, folder = sleeper
    os.kill(pid, signal.SIGKILL)
    time.sleep(0.2)
    state = live.read_state(folder)
    assert (state.life, state.detail) == ("killed", "its process is gone")


def test_another_process_under_the_same_pid_is_not_taken_for_the_run(sleeper):
    pid, folder = sleeper
    path = folder / "tunebook" / "process.json"
    record = json.loads(path.read_text())
    path.write_text(json.dumps(record | {"started_ticks": record["started_ticks"] - 1}))
    assert live.read_state(folder).life == "killed"
    stopped = subprocess.run([*CLI, "stop", folder], capture_output=True, text=True)
    assert "killed, nothing to stop" in stopped.stderr
    os.kill(pid, 0)  # it was left alone


def test_a_restart_of_the_machine_ends_every_process(sleeper):
    _, folder = sleeper
    record = json.loads((folder / "tunebook" / "process.json").read_text())
    assert processes.life(record | {"boot": "another"}) == "ended"


def test_stop_asks_the_process_of_the_run_and_waits_for_its_end(sleeper):
    pid, folder = sleeper
    assert f"would stop {folder}: process {pid}" in subprocess.run(
        [*CLI, "stop", folder, "--dry-run"], capture_output=True, text=True
    ).stdout  # fmt: skip
    done = subprocess.run([*CLI, "stop", folder], capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr
    assert f"{folder}: stopped as asked; last checkpoint: none" in done.stderr
    assert not (folder / "tunebook" / "run.pid").exists()


def test_a_run_of_another_host_is_neither_called_dead_nor_stopped(tmp_path):
    folder = write_run(tmp_path / "run", pid=1, started_ticks=1, boot="x", host="elsewhere")
    state = live.read_state(folder)
    assert (state.life, state.detail) == ("unknown", "on elsewhere")
    done = subprocess.run([*CLI, "stop", folder], capture_output=True, text=True)
    assert done.returncode == 1
    assert "on elsewhere; nothing was done" in done.stderr


@pytest.mark.parametrize(
    ("record", "life", "detail"),
    [
        ({"exit_status": 0, "stopped_by": None}, "finished", ""),
        ({"exit_status": 1, "stopped_by": None}, "failed", "ended with status 1"),
        (
            {"exit_status": 137, "stopped_by": None},
            "failed",
            "was killed by SIGKILL (most often the kernel's, because memory ran out)",
        ),
        ({"exit_status": 130, "stopped_by": "SIGINT"}, "stopped", "by SIGINT"),
        ({"exit_status": 138, "stopped_by": "request"}, "stopped", "as asked"),
    ],
)
def test_how_a_run_ended_is_said(tmp_path, record, life, detail):
    state = live.read_state(write_run(tmp_path / "run", host="here", **record))
    assert (state.life, state.detail) == (life, detail)


def test_the_table_and_the_json_say_the_same(tmp_path):
    folder = write_run(tmp_path / "run", exit_status=0, stopped_by=None, host="here", log=None)
    (folder / "train.log").write_bytes(LF)
    line = {"dataset": "d", "step": 60, "select_by": "macro_f1", "values": {"macro_f1": 0.5, "loss": 0.25}}
    (folder / "tunebook" / "eval_metrics.jsonl").write_text(json.dumps(line) + "\n" + '{"half')
    shown = subprocess.run([*CLI, "status", tmp_path], capture_output=True, text=True)
    assert shown.returncode == 0, shown.stderr
    assert "finished" in shown.stdout
    assert "60/60" in shown.stdout
    assert "macro_f1 0.5 at 60" in shown.stdout
    (state,) = json.loads(
        subprocess.run([*CLI, "status", tmp_path, "--json"], capture_output=True, text=True).stdout
    )
    assert (state["step"], state["figures"]) == (60, {"macro_f1": 0.5, "loss": 0.25})


def test_an_engines_own_run_is_shown_from_its_trainer_log(tmp_path):
    (tmp_path / "trainer_log.jsonl").write_text(
        '{"current_steps": 30, "total_steps": 60, "loss": 0.5}\n{"current_steps": 40, "total_steps": 60}\n'
    )
    state = live.read_state(tmp_path)
    assert (state.life, state.step, state.total_steps) == ("unknown", 40, 60)


def test_a_folder_without_a_run_is_an_error(tmp_path):
    with pytest.raises(TunebookError, match="holds no run"):
        live.read_state(tmp_path)
    done = subprocess.run([*CLI, "status", tmp_path / "nowhere"], capture_output=True, text=True)
    assert done.returncode == 2
    assert "there is no folder" in done.stderr


# ------------------------------------------------------- both doors, however the run ended

DOOR = """
import os, signal, sys, time
from datetime import UTC, datetime
from pathlib import Path
from tunebook.runs.processes import EngineRecord
run = Path(sys.argv[1])
record = EngineRecord(run / "tunebook")
{}
"""


def by_engine(folder: Path, body: str) -> None:
    """A process that trains into `folder` by the engine's own command, and ends as `body` says."""
    (folder / "tunebook").mkdir(parents=True, exist_ok=True)
    subprocess.run([sys.executable, "-c", DOOR.format(body), folder], capture_output=True, timeout=30)


def trainer_log(folder: Path, *steps: int, total: int = 900) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "trainer_log.jsonl").open("a") as stream:
        for step in steps:
            line = {"current_steps": step, "total_steps": total, "epoch": 0.1, "loss": 1 / (1 + step)}
            stream.write(json.dumps(line) + "\n")
        # The Trainer's closing entry has no loss.
        stream.write(json.dumps({"current_steps": steps[-1], "total_steps": total, "epoch": 0.1}) + "\n")


def results(folder: Path, step: int, total: int = 900) -> None:
    """What LLaMA-Factory writes behind a training, last of all the state."""
    (folder / "train_results.json").write_text('{"train_runtime": 1.0}')
    (folder / "trainer_state.json").write_text(json.dumps({"global_step": step, "max_steps": total}))


def test_a_run_of_the_engine_is_finished_by_its_results(tmp_path):
    trainer_log(tmp_path, 10, 900)
    results(tmp_path, 900)
    state = live.read_state(tmp_path)
    assert (state.life, state.step, state.total_steps) == ("finished", 900, 900)
    assert state.loss == pytest.approx(1 / 901)
    assert live.find_runs(tmp_path) == [tmp_path]


def test_an_early_end_is_an_end(tmp_path):
    trainer_log(tmp_path, 10, 360)
    results(tmp_path, 360)
    state = live.read_state(tmp_path)
    assert (state.life, state.step, state.total_steps) == ("finished", 360, 900)


def test_results_of_an_earlier_start_do_not_end_the_next(tmp_path):
    trainer_log(tmp_path, 10, 900)
    results(tmp_path, 900)
    trainer_log(tmp_path, 10, 40)
    state = live.read_state(tmp_path)
    assert (state.life, state.step) == ("unknown", 40)


def test_a_log_tells_what_broke_an_engines_own_run_and_that_axolotl_has_saved(tmp_path):
    trainer_log(tmp_path, 10, 40)
    killed = b"slurmstepd: error: Detected 1 oom_kill event in StepId=1.0. Some of the step tasks have been OOM Killed.\n"
    (tmp_path / "train.log").write_bytes(LF[:8000] + killed)
    state = live.read_state(tmp_path)
    assert (state.life, state.detail, state.step) == ("failed", "out of host memory", 40)
    saved = tmp_path / "axolotl"
    (saved / "tunebook").mkdir(parents=True)
    (saved / "debug.log").write_bytes(AXOLOTL)
    assert live.read_state(saved).life == "finished"
    (saved / "debug.log").write_bytes(AXOLOTL + b"\n[2026-12-01 10:00:00] Starting trainer...\n")
    assert live.read_state(saved).life == "unknown"


@pytest.mark.parametrize(
    ("body", "life", "detail"),
    [
        ("record.trained = True", "finished", ""),
        ("raise MemoryError('all gone')", "failed", "MemoryError"),
        ("record.trained = True\nraise OSError('disk full')", "failed", "OSError"),
        ("raise KeyboardInterrupt", "stopped", "by SIGINT"),
        ("sys.exit(0)", "stopped", "by the engine"),
        ("os.kill(os.getpid(), signal.SIGKILL)", "killed", "its process is gone"),
        ("os._exit(0)", "killed", "its process is gone"),
    ],
)
def test_how_an_engines_own_process_ended_is_known(tmp_path, body, life, detail):
    by_engine(tmp_path / "run", body)
    trainer_log(tmp_path / "run", 10, 40)
    state = live.read_state(tmp_path / "run")
    assert (state.life, state.detail, state.step, state.by_engine) == (life, detail, 40, True)
    assert live.find_runs(tmp_path) == [tmp_path / "run"]


def test_a_process_that_crashes_behind_its_results_has_finished(tmp_path):
    by_engine(tmp_path, "os.kill(os.getpid(), signal.SIGSEGV)")
    trainer_log(tmp_path, 900)
    results(tmp_path, 900)
    assert live.read_state(tmp_path).life == "finished"
    for name in ("train_results.json", "trainer_state.json"):
        os.utime(tmp_path / name, (0, 0))  # of an earlier start
    assert live.read_state(tmp_path).life == "killed"


def test_an_engines_own_process_is_seen_running_and_not_asked_for_a_checkpoint(tmp_path):
    (tmp_path / "tunebook").mkdir()
    body = "print('begun', flush=True)\ntime.sleep(60)"
    process = subprocess.Popen(
        [sys.executable, "-c", DOOR.format(body), tmp_path], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout.readline() == "begun\n"
        assert live.read_state(tmp_path).life == "running"
        done = subprocess.run([*CLI, "stop", tmp_path], capture_output=True, text=True, timeout=30)
        assert done.returncode == 1
        assert "takes no requests; nothing was done" in done.stderr
        assert process.poll() is None
        done = subprocess.run([*CLI, "stop", "--now", tmp_path], capture_output=True, text=True, timeout=30)
        assert "stopped by SIGINT" in done.stderr
    finally:
        process.kill()
        process.communicate()


def test_the_last_start_counts_whichever_door_it_took(tmp_path):
    folder = write_run(tmp_path / "run", host="here", exit_status=0, started="2026-01-01T00:00:00+00:00")
    by_engine(folder, "os.kill(os.getpid(), signal.SIGKILL)")
    assert live.read_state(folder).life == "killed"
    later = {"host": "here", "exit_status": 0, "started": "2099-01-01T00:00:00+00:00"}
    (folder / "tunebook" / "process.json").write_text(json.dumps(later))
    assert live.read_state(folder).life == "finished"


def test_a_run_that_was_stopped_and_resumed_shows_its_own_steps(tmp_path):
    """Started in the background, stopped at its first step, resumed in a terminal: train.log is the old one."""
    started = datetime.now(UTC).isoformat(timespec="seconds")
    folder = write_run(tmp_path / "run", host="here", exit_status=0, log=None, started=started)
    log = b"***** Running training *****\n  Total optimization steps = 900\n  0%|  | 1/900 [00:12<03:48,  4.00s/it]"
    (folder / "train.log").write_bytes(log)
    trainer_log(folder, 810, 900)
    results(folder, 900)
    for age in (3600, 0):
        # A copy of the folder has made all of its files anew.
        then = time.time() - age
        os.utime(folder / "train.log", (then, then))
        state = live.read_state(folder)
        assert (state.life, state.step, state.total_steps) == ("finished", 900, 900)


def test_axolotls_steps_are_those_of_its_last_checkpoint_where_no_log_has_them(tmp_path):
    started = datetime.now(UTC).isoformat(timespec="seconds")
    folder = write_run(tmp_path / "run", host="here", exit_status=137, stopped_by=None, started=started)
    for step in (20, 100):
        (folder / f"checkpoint-{step}").mkdir()
        state = {"global_step": step, "max_steps": 300}
        (folder / f"checkpoint-{step}/trainer_state.json").write_text(json.dumps(state))
    state = live.read_state(folder)
    assert (state.life, state.step, state.total_steps) == ("failed", 100, 300)
    assert state.detail.startswith("was killed by SIGKILL")


def test_checkpoints_of_an_earlier_start_are_no_steps_of_this_one(tmp_path):
    started = datetime.now(UTC).isoformat(timespec="seconds")
    folder = write_run(tmp_path / "run", host="here", exit_status=1, stopped_by=None, started=started)
    trainer_log(folder, 5)
    old = folder / "checkpoint-900"
    old.mkdir()
    (old / "trainer_state.json").write_text(json.dumps({"global_step": 900, "max_steps": 900}))
    os.utime(old / "trainer_state.json", (0, 0))
    state = live.read_state(folder)
    assert (state.life, state.step) == ("failed", 5)


def test_what_the_log_says_of_a_failure_stands_beside_it(tmp_path):
    folder = write_run(tmp_path / "run", host="here", exit_status=1, stopped_by=None)
    said = b"torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 23.69 GiB of which 1.20 GiB is free."
    (folder / "train.log").write_bytes(LF[:8000] + b"Traceback (most recent call last):\n" + said + b"\n")
    state = live.read_state(folder)
    assert state.detail.startswith("ended with status 1: CUDA out of memory")


def test_a_prediction_of_llamafactory_is_no_run(tmp_path):
    (tmp_path / "predict").mkdir()
    (tmp_path / "predict/trainer_log.jsonl").write_text('{"current_steps": 5, "total_steps": 10}\n')
    assert live.find_runs(tmp_path) == []


def test_the_log_of_an_earlier_start_says_nothing_of_this_one(tmp_path):
    started = datetime.now(UTC).isoformat(timespec="seconds")
    folder = write_run(tmp_path / "run", host="here", exit_status=1, log=None, started=started)
    (folder / "train.log").write_bytes(LF)
    os.utime(folder / "train.log", (0, 0))
    trainer_log(folder, 5)
    state = live.read_state(folder)
    assert (state.life, state.detail, state.step, state.total_steps, state.log) == (
        *("failed", "ended with status 1", 5, 900),
        None,
    )
