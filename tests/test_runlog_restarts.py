"""Runs that were started several times are one run: joined, marked, and with the time of each phase."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from tunebook.runlog import read_run
from tunebook.runlog.console import read_console
from tunebook.runlog.records import Series
from tunebook.runlog.series import join_starts

FIXTURES = Path(__file__).parent / "fixtures"
RUNS, LOGS = FIXTURES / "runs", FIXTURES / "logs"


def series(name, steps, values, source):
    return Series(
        name=name, steps=np.array(steps, dtype=np.int64), values=np.array(values, dtype=float), source=source
    )


def phases(run):
    return {phase.name: phase.seconds for phase in run.phases}


@pytest.fixture
def resumed(tmp_path):
    return Path(shutil.copytree(RUNS / "resumed", tmp_path / "resumed"))


def test_a_run_that_was_killed_and_resumed_is_marked_with_its_step():
    run = read_run(RUNS / "resumed")
    (restart,) = run.restarts
    assert (restart.resumed_at_step, restart.steps_repeated) == (60, 10)
    assert restart.source == "tunebook/run.json"
    assert restart.message == (
        "resumed at step 60; steps 61 to 70 were taken again, and the later values count"
    )
    assert run.series["loss"].steps.tolist() == list(range(5, 121, 5))


def test_its_phases_add_up_to_no_more_than_its_wall_time():
    run = read_run(RUNS / "resumed")
    found = phases(run)
    assert list(found) == [
        *("starting", "loading data", "tokenising", "loading model", "training", "evaluating", "saving")
    ]
    assert all(seconds > 0 for seconds in found.values())
    # 28.1 s from the first to the last stamp of slurm-201.out, 68.4 s in slurm-202.out, nothing in between.
    assert run.wall_seconds.value == pytest.approx(28.117 + 68.362, abs=0.01)
    assert 0.9 * run.wall_seconds.value < sum(found.values()) < run.wall_seconds.value + 1
    # The Trainer's own figure is of the last start alone.
    assert found["training"] > run.results["train_runtime"]


def test_slurm_outputs_alone_are_a_run_whose_parts_are_named(tmp_path):
    for name in ("slurm-201.out", "slurm-202.out"):
        shutil.copy(RUNS / "resumed" / name, tmp_path)
    run = read_run(tmp_path)
    whole = read_run(RUNS / "resumed").series["loss"]
    assert run.series["loss"].steps.tolist() == whole.steps.tolist()
    assert np.allclose(run.series["loss"].values, whole.values, rtol=6e-4)
    assert [(part.source, part.first_step, part.last_step) for part in run.series["loss"].parts] == [
        ("slurm-201.out", 5, 60),
        ("slurm-202.out", 65, 120),
    ]
    (restart,) = run.restarts
    assert (restart.resumed_at_step, restart.steps_repeated) == (60, 10)


def test_a_resumed_axolotl_run_keeps_the_steps_that_were_not_taken_again():
    run = read_run(LOGS / "resumed_axolotl")
    assert run.engine == "axolotl"
    # It evaluates at step 20 before it goes on; the loss of step 20 is the first start's.
    assert run.series["loss"].steps.tolist() == list(range(5, 61, 5))
    assert run.series["eval_loss"].steps.tolist() == [0, 20, 40, 60]
    (restart,) = run.restarts
    assert (restart.resumed_at_step, restart.steps_repeated) == (20, 10)
    assert phases(run)["tokenising"] > phases(run)["training"] > 0


def test_where_nothing_names_the_checkpoint_its_step_is_not_made_up(tmp_path):
    shutil.copy(RUNS / "resumed" / "trainer_log.jsonl", tmp_path)
    (restart,) = read_run(tmp_path).restarts
    assert (restart.resumed_at_step, restart.steps_repeated) == (None, 6)
    (tmp_path / "checkpoint-60").mkdir()
    (restart,) = read_run(tmp_path).restarts
    assert restart.resumed_at_step == 60


def test_the_clock_of_a_resumed_run_goes_on(tmp_path):
    shutil.copy(RUNS / "resumed" / "trainer_log.jsonl", tmp_path)
    clock = read_run(tmp_path).series["elapsed_seconds"].values
    assert (np.diff(clock) >= 0).all()


def test_a_plain_trainer_that_was_restarted_is_told_from_each_of_its_logs():
    state = read_run(RUNS / "restarted").series["loss"]
    for kind in ("wandb", "runs"):
        run = read_run(RUNS / "restarted" / kind)
        assert run.series["loss"].steps.tolist() == state.steps.tolist()
        assert np.allclose(run.series["loss"].values, state.values, rtol=1e-6)
        assert len(run.restarts) == 1
    (restart,) = read_run(RUNS / "restarted").restarts
    assert (restart.resumed_at_step, restart.steps_repeated) == (16, 4)


def test_one_log_of_two_starts_under_transformers_4_is_marked():
    run = read_run(LOGS / "transformers4_resumed.log")
    assert run.series["loss"].steps.tolist() == list(range(4, 33, 4))
    (restart,) = run.restarts
    assert (restart.resumed_at_step, restart.steps_repeated) == (16, 4)


def test_days_between_two_starts_in_one_log_are_no_time_of_the_run(tmp_path):
    first = (LOGS / "background_llamafactory.log").read_bytes()
    once = tmp_path / "once.log"
    twice = tmp_path / "twice.log"
    once.write_bytes(first)
    # The first was killed before its closing summary: with it, the second would be another training.
    killed = first.replace(b"'train_runtime'", b"'ran'")
    twice.write_bytes(killed + first.replace(b"2026-11-20", b"2026-11-23"))
    one, two = read_console(once, "l").starts, read_console(twice, "l").starts
    assert (len(one), len(two)) == (1, 2)
    assert one[0].ended - one[0].began == pytest.approx(4.558, abs=1e-3)
    for start in two:
        assert start.ended - start.began == pytest.approx(4.558, abs=0.2)
        assert sum(start.seconds.values()) == pytest.approx(4.558, abs=0.2)


@pytest.mark.parametrize(
    ("log", "expected"),
    [
        # By the stamps in the log: 23:06:38.955 to 57.749 is preparing data, up to 07:00.321 the model.
        ("background_axolotl.log", {"tokenising": 18.75, "loading model": 2.552, "training": 4.145}),
        ("background_llamafactory.log", {"loading model": 1.8, "training": 1.995, "evaluating": 0.155}),
    ],
)
def test_phases_of_both_engines_are_timed_by_the_stamps_of_their_logs(log, expected):
    run = read_run(LOGS / log)
    found = phases(run)
    assert {name: found[name] for name in expected} == pytest.approx(expected, abs=0.01)
    assert sum(found.values()) == pytest.approx(run.wall_seconds.value, rel=0.05)


def test_a_log_without_stamps_says_no_time_that_it_does_not_know():
    run = read_run(LOGS / "transformers4.log")
    assert phases(run)["training"] == pytest.approx(0.5065 - 0.0265)
    assert phases(run)["saving"] is None
    assert run.wall_seconds is None


def test_the_later_start_wins_where_it_went_and_the_earlier_beyond():
    first = {"loss": series("loss", range(10, 101, 10), range(10), "a")}
    second = {"loss": series("loss", [50, 60, 70], [500, np.nan, 700], "b")}
    joined = join_starts([first, second])
    loss = joined.series["loss"]
    assert loss.steps.tolist() == list(range(10, 101, 10))
    assert np.array_equal(loss.values, [0, 1, 2, 3, 500, np.nan, 700, 7, 8, 9], equal_nan=True)
    assert [(part.source, part.points) for part in loss.parts] == [("a", 4), ("b", 3), ("a", 3)]
    assert (joined.went_back[0].last_before, joined.went_back[0].first_again) == (100, 50)


def test_a_copy_of_a_log_is_no_restart(resumed):
    shutil.copy(resumed / "slurm-202.out", resumed / "train.log")
    assert len(read_run(resumed).restarts) == 1
    shutil.rmtree(resumed / "tunebook")
    assert len(read_run(resumed).restarts) == 1


def test_an_older_checkpoint_with_another_history_is_an_earlier_start(tmp_path):
    import os

    def state(step, values, written):
        folder = tmp_path / f"checkpoint-{step}"
        folder.mkdir()
        entries = [{"epoch": i / 10, "loss": v, "step": i} for i, v in enumerate(values, 1)]
        path = folder / "trainer_state.json"
        path.write_text(json.dumps({"global_step": step, "log_history": entries}), encoding="utf-8")
        os.utime(path, (written, written))

    state(6, [1, 2, 3, 4, 5, 6], 1000)
    state(4, [1, 2, 30, 40], 2000)
    run = read_run(tmp_path)
    assert run.series["loss"].values.tolist() == [1, 2, 30, 40, 5, 6]
    assert len(run.restarts) == 1


@pytest.mark.parametrize(
    ("command", "cards", "count"),
    [
        (["llamafactory-cli", "train", "r.yaml"], 4, 4),
        (["CUDA_VISIBLE_DEVICES=1,3", "llamafactory-cli", "train", "r.yaml"], 4, 2),
        (["torchrun", "--nproc_per_node=8", "--nnodes=2", "train.py"], 8, 16),
        (["accelerate", "launch", "--num_processes", "8", "--num_machines", "2", "-m", "axolotl"], 4, 8),
        (["axolotl", "train", "r.yaml", "--launcher", "python"], 4, 1),
        (["llamafactory-cli", "train", "r.yaml"], 0, None),
    ],
)
def test_gpu_hours_are_wall_time_times_the_gpus_of_the_command(tmp_path, command, cards, count):
    ours = tmp_path / "tunebook"
    ours.mkdir()
    (tmp_path / "train.log").write_text("{'loss': 1.0, 'epoch': 1.0}\n", encoding="utf-8")
    times = {"started": "2026-11-20T20:00:00+00:00", "ended": "2026-11-20T20:30:00+00:00"}
    record = {"command": command, "gpus": [{"name": "H100"}] * cards, "started": times["started"]}
    (ours / "run.json").write_text(json.dumps(record), encoding="utf-8")
    (ours / "process.json").write_text(json.dumps(times), encoding="utf-8")
    run = read_run(tmp_path)
    assert run.wall_seconds.value == 1800
    assert (run.gpu_count and run.gpu_count.value) == count
    assert (run.gpu_hours and run.gpu_hours.value) == (count and count / 2)
