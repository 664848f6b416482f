"""Whatever a crash does to the files of a run: the reading ends, and every number is one that was logged."""

from __future__ import annotations

import json
import random
import shutil
import struct
import tempfile
from contextlib import suppress
from pathlib import Path
from unittest import mock

import numpy as np
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tunebook.errors import TunebookError
from tunebook.report.data import gather
from tunebook.runlog import read_run
from tunebook.runlog.columns import Columns
from tunebook.runlog.console import read_console
from tunebook.runlog.number_table import number_table
from tunebook.runlog.records import Series
from tunebook.runlog.tensorboard import read_events
from tunebook.runlog.trainer_state import TRAINING, drop_torn, read_trainer_state

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


NUMBERS = st.one_of(
    st.floats(allow_nan=True, allow_infinity=False, width=32),
    st.integers(-(10**6), 10**6),
    st.sampled_from([1e-05, 1e22, -0.0, float("nan"), float("inf")]),
)
ENTRIES = st.lists(
    st.tuples(NUMBERS, NUMBERS, st.sampled_from(["train", "train", "train", "eval", "torn", "warning"])),
    min_size=1,
    max_size=12,
)


def printed(entries, quote):
    """Lines as a Trainer prints them, `quote` around the numbers, with noise in between."""
    lines = ["Num update steps per epoch = 10"]
    for place, (loss, norm, kind) in enumerate(entries, 1):
        pairs = {"loss": loss, "grad_norm": norm} if kind != "eval" else {"eval_loss": loss}
        pairs["epoch"] = place / 10
        text = ", ".join(f"'{name}': {quote}{number!r}{quote}" for name, number in pairs.items())
        line = f"\r 10%|#   | {place}/99 [00:01<00:09]\r\x1b[A{{{text}}}"
        if kind == "torn":
            line = line[: len(line) - 5]
        elif kind == "warning":
            line += "\n[rank1]: UserWarning: {'device': 'cuda:1'} was given"
        lines.append(line)
    return "\n".join(lines) + "\n"


def same(one, other):
    assert one.keys() == other.keys()
    for name, series in one.items():
        assert series.steps.tolist() == other[name].steps.tolist()
        assert np.array_equal(series.values, other[name].values, equal_nan=True)


@settings(max_examples=150)
@given(ENTRIES, st.sampled_from(["", "'"]))
def test_a_log_decoded_by_columns_is_what_the_slow_way_reads(entries, quote):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "train.log"
        path.write_text(printed(entries, quote), encoding="utf-8")
        fast = read_console(path, "l")
        with mock.patch("tunebook.runlog.console.number_table", return_value=None):
            slow = read_console(path, "l")
    assert (fast is None) == (slow is None)
    if fast is not None:
        same(fast.series, slow.series)
        assert [note.message for note in fast.notes] == [note.message for note in slow.notes]


@settings(max_examples=150)
@given(ENTRIES, st.floats(0, 1), st.integers(0, 40))
def test_a_state_file_decoded_by_columns_is_what_the_slow_way_reads(entries, start, length):
    history = [
        {"epoch": place / 10, "eval_loss" if kind == "eval" else "loss": loss, "norm": norm, "step": place}
        for place, (loss, norm, kind) in enumerate(entries, 1)
    ]
    data = json.dumps({"global_step": 1, "log_history": history, "max_steps": 9}, indent=2).encode()
    at = int(start * len(data))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trainer_state.json"
        for text in (data, data[:at] + data[at + length :]):
            path.write_bytes(text)
            fast = read_trainer_state(path, "s")
            with mock.patch("tunebook.runlog.trainer_state.number_table", return_value=None):
                slow = read_trainer_state(path, "s")
            assert (fast is None) == (slow is None)
            if fast is not None:
                same(fast.series, slow.series)
                assert (fast.trainer, fast.summary) == (slow.trainer, slow.summary)


@settings(max_examples=200)
@given(
    st.lists(
        st.lists(NUMBERS.filter(lambda number: abs(number) != float("inf")), min_size=3, max_size=3),
        min_size=1,
    ),
    st.sampled_from([(", ", ": "), (",", ":"), (",\n\t  ", ": ")]),
    st.integers(0, 400),
    st.sampled_from(["", "0", ",", '"', "}", " ", "null", "1, "]),
)
def test_a_table_of_numbers_is_what_a_parser_reads_or_none(rows, separators, at, changed):
    keys = ["a", "learning_rate_of_the_second_group", "step"]
    text = json.dumps([dict(zip(keys, row, strict=True)) for row in rows], separators=separators)[1:-1]
    found = number_table(text.encode(), b'"')
    assert list(found) == keys
    assert np.array_equal(np.transpose(list(found.values())), np.array(rows, dtype=float), equal_nan=True)
    # A byte lost or another put in its place.
    text = text[:at] + changed + text[at + 1 :]
    found = number_table(text.encode(), b'"')
    if found is not None:
        entries = json.loads(f"[{text}]")
        assert all(list(entry) == list(found) for entry in entries)
        for name, column in found.items():
            assert np.array_equal(column, [float(entry[name]) for entry in entries], equal_nan=True)


@given(
    st.lists(
        st.tuples(
            st.booleans(),
            st.sampled_from([("loss", "norm"), ("loss",), ("norm", "loss", "epoch"), ("epoch",)]),
            st.lists(st.integers(0, 6), min_size=1, max_size=5),
        ),
        max_size=8,
    )
)
def test_of_equal_steps_the_later_counts_however_they_came(blocks):
    columns, expected, number = Columns("s"), {}, 0.0
    for as_table, names, steps in blocks:
        table = {name: [] for name in names}
        for step in steps:
            for name in names:
                number += 1
                table[name].append(number)
                expected.setdefault(name, {})[step] = number
        if as_table:
            arrays = {name: np.array(values) for name, values in table.items()}
            columns.add_table(np.array(steps, dtype=np.int64), arrays)
        else:
            columns.add(
                steps, [dict(zip(names, row, strict=True)) for row in zip(*table.values(), strict=True)]
            )
    found = {
        name: dict(zip(one.steps.tolist(), one.values.tolist(), strict=True))
        for name, one in columns.series().items()
    }
    assert found == {name: dict(sorted(values.items())) for name, values in expected.items()}
    assert not columns.series()


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
