"""W&B's own files give the numbers that were logged, whole, cut off or damaged, and no secret."""

# ruff: noqa: F811 - a fixture is imported by name
from __future__ import annotations

import random
import re
from pathlib import Path

import numpy as np
import pytest

from tunebook.runlog import read_run
from tunebook.runlog.wandb_run import LogRecords, read_wandb
from wandb_service import wandb  # noqa: F401

RUNS = Path(__file__).parent / "fixtures" / "runs"
ROWS = 4000


@pytest.fixture(scope="module")
def offline(wandb, tmp_path_factory):
    """The file of a real offline run, longer than several of its blocks, with the values that were logged."""
    folder = tmp_path_factory.mktemp("wandb")
    config = {
        "learning_rate": 1e-4,
        "hub_token": "hf_abcdefghijklmnopqrstuvwx",
        "run_name": "key sk-abcdefghijklmnopqrstuvwxyz",
        "model_args": {"model_name_or_path": "Qwen/Qwen3-0.6B", "api_key": "planted-secret"},
    }
    settings = wandb.Settings(silent=True, console="off", x_disable_stats=True, x_disable_meta=True)
    run = wandb.init(mode="offline", dir=str(folder), project="demo", config=config, settings=settings)
    rng = random.Random(0)
    losses = [float("nan") if step % 500 == 0 else rng.random() for step in range(ROWS)]
    for step, loss in enumerate(losses):
        row = {"train/loss": loss, "train/global_step": step + 1, "train/epoch": step / ROWS}
        row["train/text"] = "x" * (40_000 if step == 1000 else 3)  # longer than a block
        run.log(row)
        if step % 1000 == 999:
            run.log({"eval/demo_f1": step / ROWS, "eval/runtime": 0.25, "train/global_step": step + 1})
    run.summary["train_runtime"] = 12.5
    run.finish()
    wandb.teardown()  # the file is whole
    (path,) = folder.rglob("*.wandb")
    return path, losses


def test_an_offline_run_gives_every_number_that_was_logged(offline):
    path, losses = offline
    run = read_wandb(path, "run.wandb")
    assert run.series["loss"].steps.tolist() == list(range(1, ROWS + 1))
    assert np.array_equal(run.series["loss"].values, losses, equal_nan=True)
    assert run.series["eval_demo_f1"].steps.tolist() == [1000, 2000, 3000, 4000]
    assert run.series["eval_demo_f1"].values.tolist() == [999 / ROWS, 1999 / ROWS, 2999 / ROWS, 3999 / ROWS]
    assert run.summary["train_runtime"] == 12.5
    assert run.notes == []


def test_settings_are_those_of_the_training_and_hold_no_secret(offline):
    run = read_run(offline[0])
    assert run.settings["learning_rate"] == 1e-4
    assert run.settings["model_name_or_path"] == "Qwen/Qwen3-0.6B"
    assert "hub_token" not in run.settings
    said = str(run.settings)
    assert not any(secret in said for secret in ("hf_abc", "sk-abc", "planted"))


def test_a_wandb_file_alone_is_a_run_with_wall_time_and_evaluations(offline):
    run = read_run(offline[0])
    assert run.results["train_runtime"] == 12.5
    assert [one.seconds for one in run.evaluations] == [0.25] * 4
    assert run.wall_seconds.value >= 0
    assert "runtime" in run.wall_seconds.source


@pytest.mark.parametrize("share", [0.0, 0.001, 0.3, 0.7, 0.999])
def test_a_file_that_was_cut_off_gives_what_is_whole(offline, tmp_path, share):
    data = offline[0].read_bytes()
    cut = tmp_path / "run-x.wandb"
    cut.write_bytes(data[: int(share * len(data))])
    run = read_wandb(cut, cut.name)
    if run is None:
        assert share < 0.01
        return
    steps = run.series["loss"].steps.tolist() if "loss" in run.series else []
    assert steps == list(range(1, len(steps) + 1))
    assert np.array_equal(run.series["loss"].values, offline[1][: len(steps)], equal_nan=True)
    assert run.runtime is None
    # Where the cut falls between two records, only the end is missing.
    assert any("cut off" in note.message or "how the run ended" in note.message for note in run.notes)


@pytest.mark.parametrize("seed", range(20))
def test_damage_costs_rows_and_makes_no_number(offline, tmp_path, seed):
    rng = random.Random(seed)
    data = bytearray(offline[0].read_bytes())
    for _ in range(3):
        at = rng.randrange(7, len(data))
        length = rng.choice([1, 40, 5000])
        data[at : at + length] = rng.choice([bytes(length), rng.randbytes(length), b""])
    damaged = tmp_path / "run-x.wandb"
    damaged.write_bytes(data)
    run = read_wandb(damaged, damaged.name)
    logged = dict(zip(range(1, ROWS + 1), offline[1], strict=True))
    for step, value in zip(
        run.series["loss"].steps.tolist(), run.series["loss"].values.tolist(), strict=True
    ):
        assert value == logged[step] or (value != value and logged[step] != logged[step])
    assert len(run.series["loss"].steps) < ROWS
    assert any(note.kind == "lost" for note in run.notes)


def test_a_digit_that_changed_is_told_by_the_checksum(offline, tmp_path):
    data = bytearray(offline[0].read_bytes())
    places = [match.end() for match in re.finditer(rb"train/loss\x82\x01.0\.", data)][::300]
    for at in places:
        data[at : at + 1] = b"1" if data[at : at + 1] != b"1" else b"2"
    damaged = tmp_path / "run-x.wandb"
    damaged.write_bytes(data)
    run = read_wandb(damaged, damaged.name)
    loss = run.series["loss"]
    assert len(places) > 5
    assert 0 < len(loss.steps) < ROWS
    logged = np.array(offline[1])[loss.steps - 1]
    assert np.array_equal(loss.values, logged, equal_nan=True)


def test_every_record_is_what_wandbs_own_messages_say(offline):
    messages = pytest.importorskip("wandb.proto.wandb_internal_pb2")
    rows = 0
    for payload in LogRecords(offline[0].read_bytes()):
        record = messages.Record.FromString(payload)
        rows += record.HasField("history")
    assert rows == ROWS + 4


def test_the_trainers_own_reports_of_a_restarted_run_are_joined():
    run = read_run(RUNS / "restarted" / "wandb")
    state = read_run(RUNS / "restarted")
    assert run.series["loss"].steps.tolist() == state.series["loss"].steps.tolist()
    assert np.allclose(run.series["loss"].values, state.series["loss"].values)
    assert [part.source.rsplit("/", 1)[1] for part in run.series["loss"].parts] == sorted(
        {part.source.rsplit("/", 1)[1] for part in run.series["loss"].parts},
        key=[path.name for path in sorted((RUNS / "restarted").rglob("*.wandb"))].index,
    )
    assert len(run.series["loss"].parts) == 2
    assert run.settings["learning_rate"] == 0.01
