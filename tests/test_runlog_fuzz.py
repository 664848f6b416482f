"""Whatever a crash does to the files of a run: the reading ends, and every number is one that was logged."""

from __future__ import annotations

import json
import random
import re
import shutil
import struct
import tempfile
from contextlib import suppress
from pathlib import Path

import numpy as np
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tunebook.errors import TunebookError
from tunebook.report.data import gather
from tunebook.runlog import read_run, timeline
from tunebook.runlog.console import read_console
from tunebook.runlog.records import Series
from tunebook.runlog.series import SeriesBuilder
from tunebook.runlog.tensorboard import read_events
from tunebook.runlog.trainer_files import TRAINING, drop_torn, read_trainer_state

FIXTURES = Path(__file__).parent / "fixtures"
FILES = sorted(
    path.relative_to(FIXTURES / "runs" / "movies")
    for path in (FIXTURES / "runs" / "movies").rglob("*")
    if path.is_file()
)
WHOLE = read_run(FIXTURES / "runs" / "movies")
# What a power cut or a full disk leaves: a shorter file, a stretch of zeros, lines that went missing.
DAMAGE = st.lists(
    st.tuples(
        st.sampled_from(FILES),
        st.sampled_from(["cut", "zeros", "lose", "remove"]),
        st.floats(0, 1),
        st.floats(0, 1),
    ),
    min_size=1,
    max_size=6,
)


def damage(path, kind, start, length):
    data = path.read_bytes()
    at = int(start * len(data))
    if kind == "cut":
        path.write_bytes(data[:at])
    elif kind == "zeros":
        stretch = min(len(data) - at, 1 + int(length * 600))
        path.write_bytes(data[:at] + bytes(stretch) + data[at + stretch :])
    elif kind == "lose":
        lines = data.splitlines(keepends=True)
        first = int(start * len(lines))
        path.write_bytes(b"".join(lines[:first] + lines[first + 1 + int(length * 20) :]))
    else:
        path.unlink()


@settings(max_examples=25)
@given(DAMAGE)
@example([(Path("trainer_state.json"), "lose", 0.333984375, 0.25)])  # two entries become one
@example([(Path("trainer_state.json"), "lose", 0.0625, 1.0)])  # one of them without its loss
@example(
    [
        (Path("trainer_state.json"), kind, *where)
        for kind, *where in (("cut", 0.25, 0.0), ("lose", 0.65625, 0.5))
    ]
)
def test_a_damaged_run_is_reported_with_numbers_that_were_logged_or_refused(damages):
    with tempfile.TemporaryDirectory() as folder:
        run_folder = Path(shutil.copytree(FIXTURES / "runs" / "movies", Path(folder) / "movies"))
        for file, kind, start, length in damages:
            if (run_folder / file).exists():
                damage(run_folder / file, kind, start, length)
        try:
            run = read_run(run_folder)
        except TunebookError:
            return
        report = gather([run_folder])
        for name in ("loss", "learning_rate", "grad_norm"):
            if name not in run.series or len(run.series[name].steps) < 2:
                continue  # of one entry it cannot be told whether it was made of two
            logged = WHOLE.series[name]
            assert set(run.series[name].steps.tolist()) <= set(logged.steps.tolist())
            where = np.searchsorted(logged.steps, run.series[name].steps)
            # A console or event file rounds; nothing else may differ.
            assert np.allclose(run.series[name].values, logged.values[where], rtol=1e-6)
        known = {(one.dataset, one.step): one.values for one in WHOLE.evaluations}
        for row in report.runs[0].evaluations:
            if row.n is not None:
                assert row.values == known[row.dataset, row.step]


@settings(max_examples=60)
@given(
    st.sampled_from(["llamafactory.log", "transformers4.log", "transformers4_nan.log"]),
    st.floats(0, 1),
    st.floats(0, 1),
    st.booleans(),
)
def test_a_damaged_console_log_loses_lines_and_gains_none(name, start, length, tail):
    data = (FIXTURES / "logs" / name).read_bytes()
    at = int(start * len(data))
    end = at + int(length * (len(data) - at))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_bytes(data[at:end] if tail else data[:at] + bytes(end - at) + data[end:])
        found = read_console(path, name)
        whole = read_console(FIXTURES / "logs" / name, name)
    if found is None:
        return
    for series_name, series in found.series.items():
        values = whole.series[series_name].values
        for value in series.values[np.isfinite(series.values)]:
            assert value in values


PIECES = st.sampled_from(
    [
        "{'loss': 1.5, 'epoch': 0.1}",
        "2026-11-20 23:06:36,846",
        "[2026-11-20 23:06:38,896] [INFO] [axolotl.cli.config] config:",
        "auto-resume functionality to resume from checkpoint at /a/2026-11-20T10:00:00/checkpoint-20",
        "Resuming training from checkpoint with epoch 2 and global step 40",
        "Continuing training from global step 40",
        *("Process rank: 0, world size: 2", "Process rank: x", "Generating train split", "Generating split"),
        *("***** Running training *****", "***** Running Evaluation *****", "***** Running x", "saved in "),
        *("Loading dataset a", "Loading weights: 100%|##| 2/2 [00:01<00:00, 2it/s]", "Training completed"),
        *("\r 10%|#   | 1/20 [00:01<00:09, 2.1s/it]", "\n", " ", "20", "*"),
    ]
)


@given(st.lists(PIECES).map(" ".join))
def test_the_signs_that_are_searched_for_one_by_one_are_those_of_one_pattern_of_all(text):
    together = re.compile(b"|".join(b"(?:" + pattern.pattern + b")" for _, pattern in timeline.MARKS))
    found = [match.span() for _, match in timeline.find_marks(text.encode())]
    assert found == [match.span() for match in together.finditer(text.encode())]


@given(
    st.lists(
        st.tuples(
            st.sampled_from([("loss", "norm"), ("loss",), ("norm", "loss", "epoch"), ("epoch",)]),
            st.integers(0, 6),
        ),
        max_size=12,
    )
)
def test_of_equal_steps_the_later_counts_whatever_else_the_entries_have(entries):
    builder, expected = SeriesBuilder("s"), {}
    for number, (names, step) in enumerate(entries):
        # transformers 5 prints numbers as texts; True and null are no numbers.
        builder.add(
            step, {name: str(number) if number % 2 else float(number) for name in names} | {"x": True}
        )
        for name in names:
            expected.setdefault(name, {})[step] = number
    found = {
        name: dict(zip(one.steps.tolist(), one.values.tolist(), strict=True))
        for name, one in builder.series().items()
    }
    assert found == {name: dict(sorted(values.items())) for name, values in expected.items()}


@given(st.lists(st.tuples(st.floats(width=32), st.booleans()), min_size=1), st.sampled_from([None, 2]))
def test_a_state_file_has_the_numbers_that_the_trainer_wrote(logged, indent):
    history = [
        {"epoch": place / 10, "eval_loss" if evaluated else "loss": loss, "step": place}
        for place, (loss, evaluated) in enumerate(logged, 1)
    ]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trainer_state.json"
        path.write_text(json.dumps({"log_history": history, "max_steps": 9}, indent=indent), encoding="utf-8")
        found = read_trainer_state(path, "s")
    for name in ("loss", "eval_loss"):
        expected = {entry["step"]: entry[name] for entry in history if name in entry}
        if expected:
            assert found.series[name].steps.tolist() == list(expected)
            assert np.array_equal(found.series[name].values, list(expected.values()), equal_nan=True)
    assert (found.notes, found.trainer.max_steps) == ([], 9)


@settings(max_examples=60)
@given(st.sampled_from(["zeros", "noise", "cut", "gone"]), st.floats(0, 1), st.integers(1, 700))
def test_a_damaged_event_file_loses_points_and_gains_none(kind, start, length):
    (path, _) = sorted((FIXTURES / "runs" / "movies").rglob("events.out.*"))
    data = path.read_bytes()
    at = int(start * (len(data) - 1))
    noise = random.Random(length).randbytes(length)
    middle = {"zeros": bytes(length), "noise": noise, "cut": b"", "gone": b""}[kind]
    tail = b"" if kind == "cut" else data[at + length :]
    whole = read_events(path, "events").series
    with tempfile.TemporaryDirectory() as folder:
        damaged = Path(folder) / "events.out.tfevents.1"
        damaged.write_bytes(data[:at] + middle + tail)
        found = read_events(damaged, "events").series
    for name, one in found.items():
        assert set(one.steps.tolist()) <= set(whole[name].steps.tolist())
        if name != "elapsed_seconds":  # counts from the first record that is left
            # Of a step that was logged twice, the first value shows where the second is lost.
            assert all(struct.pack("<f", value) in data for value in one.values.tolist())


@given(st.binary(max_size=400))
def test_any_bytes_are_read_or_refused(data):
    with tempfile.TemporaryDirectory() as folder:
        for name in (
            "trainer_state.json",
            "trainer_log.jsonl",
            "train.log",
            "events.out.tfevents.1",
            "all_results.json",
            "run-1.wandb",
            "gpu.csv",
        ):
            (Path(folder) / name).write_bytes(data)
        (Path(folder) / "run-2.wandb").write_bytes(b":W&B\xe1\xbe\x00" + data)
        for path in (Path(folder), *Path(folder).iterdir()):
            with suppress(TunebookError):
                read_run(path)


def series(steps, epochs):
    steps = np.array(steps, dtype=np.int64)
    made = {TRAINING: epochs, "loss": np.arange(len(steps), dtype=float)}
    return {
        n: Series(name=n, steps=steps, values=np.array(v, dtype=float), source="s") for n, v in made.items()
    }


def test_an_entry_of_two_halves_is_told_by_its_epoch_and_others_are_not():
    steps = [10, 20, 30, 40, 50, 60, 70]
    whole = [step / 100 for step in steps]
    for place in range(len(steps)):
        torn = [*whole[:place], whole[place] + 0.2, *whole[place + 1 :]]
        left, count = drop_torn(series(steps, torn))
        assert count == 1
        assert left["loss"].steps.tolist() == [*steps[:place], *steps[place + 1 :]]
    # Two digits, a short last step, and another pace after a resume are all as the Trainer writes them.
    for written in (
        [round(epoch, 2) for epoch in whole],
        [*whole[:-1], 0.69],
        [0.1, 0.2, 0.3, 0.4, 0.6, 0.8, 1.0],
    ):
        assert drop_torn(series(steps, written))[1] == 0
