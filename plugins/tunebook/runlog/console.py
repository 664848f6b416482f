"""Reads what a Trainer printed: the dictionaries between progress bars, of transformers 4 and 5.

A line of transformers 4 is `{'loss': 1.23, 'epoch': 0.5}`, one of transformers 5 `{'loss': '1.23', ...}`
with four significant digits. Either may hold nan, may stand behind the rest of a progress bar, and has no
step: that is worked out from the epoch.
"""

from __future__ import annotations

import itertools
import math
import re
from array import array
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from tunebook.runlog.columns import Columns
from tunebook.runlog.dictionaries import DICTIONARY, dictionaries, parse
from tunebook.runlog.epoch_steps import steps_of
from tunebook.runlog.records import Note, Series, Sourced
from tunebook.runlog.tolerant_json import as_float

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

_BAR = re.compile(rb"\b(\d+)/(\d+) \[")
_TOTAL = re.compile(rb"Total optimization steps = ([\d,]+)")
_EPOCHS = re.compile(rb"Num Epochs = ([\d,]+)")
_PER_EPOCH = re.compile(rb"Num update steps per epoch = ([\d,]+)")
_EXAMPLES = re.compile(rb"Running training \*+[^*]{0,200}?Num examples = ([\d,]+)")
_BATCH = re.compile(rb"Total train batch size [^=\n]*= ([\d,]+)")
_TRAINABLE = re.compile(rb"trainable params: ([\d,]+)|Number of trainable parameters = ([\d,]+)")
_HEAD = 4 << 20
"""The announcements stand at the start of a log; a log that several runs were appended to is read whole."""
_OF_TRAINING = frozenset({"loss", "grad_norm", "learning_rate"})


class Console(NamedTuple):
    """What a console log says: series, closing figures, single facts, and how it was read."""

    series: dict[str, Series]
    summary: dict[str, float]
    facts: dict[str, Sourced]
    notes: list[Note]
    source: str
    banner: str
    """Which engine announces itself: `llamafactory`, `axolotl`, or nothing."""


class _Announced(NamedTuple):
    total_steps: int | None
    epochs: int | None
    per_epoch: int | None
    examples: int | None
    batch: int | None
    """Examples per optimizer step, over all ranks."""
    trainable: int | None
    by_bar: float | None
    """Steps per epoch, from a dictionary and the progress bar that is drawn again behind it."""
    banner: str


def read_console(path: Path, source: str) -> Console | None:
    """Read a console log in constant memory.

    Returns:
        None where no Trainer printed into it.

    Raises:
        OSError: The file cannot be read.
    """
    announced = _announced(path)
    summary: dict[str, float] = {}
    table = _Table()
    bad = 0
    for found in dictionaries(path):
        parsed, lost = parse(found)
        bad += lost
        summary |= table.add(parsed)
    if not table.size and not summary:
        return None
    per_epoch = _steps_per_epoch(announced)
    series, how, restarts = table.series(source, per_epoch)
    notes = [Note(kind="read", file=source, message=how)] if table.size else []
    if bad:
        notes.append(Note(kind="lost", file=source, message=f"{bad} torn lines were left out"))
    if restarts:
        message = (
            f"training went back {restarts} time(s), as after a restart; of equal steps the later counts"
        )
        notes.append(Note(kind="resumed", file=source, message=message))
    facts = {}
    if announced.trainable is not None:
        facts["trained_parameters"] = Sourced(value=announced.trainable, source=source)
    return Console(series, summary, facts, notes, source, announced.banner)


class _Table:
    """The entries' numbers by epoch, training and evaluation apart."""

    def __init__(self) -> None:
        self.size = 0
        self._columns = {kind: Columns("") for kind in (False, True)}
        self._epochs = {kind: array("d") for kind in (False, True)}

    def add(self, entries: list[dict[str, Any]]) -> dict[str, float]:
        """Take the entries of training and evaluation; returns the closing figures among the others."""
        summary: dict[str, float] = {}
        training, evaluation = [], []
        for entry in entries:
            if "epoch" not in entry:
                continue
            if "loss" in entry:
                training.append(entry)
            elif "train_loss" in entry and "train_runtime" in entry:
                summary |= {
                    key: number for key, value in entry.items() if (number := as_float(value)) is not None
                }
            elif not _OF_TRAINING.isdisjoint(entry):
                training.append(entry)
            elif any(name.startswith("eval_") for name in entry):
                evaluation.append(entry)
        for kind, found in ((False, training), (True, evaluation)):
            epochs = [as_float(entry["epoch"]) for entry in found]
            kept = [entry for entry, epoch in zip(found, epochs, strict=True) if epoch is not None]
            first = len(self._epochs[kind])
            self._epochs[kind].extend(epoch for epoch in epochs if epoch is not None)
            self._columns[kind].add(range(first, first + len(kept)), kept)
            self.size += len(kept)
        return summary

    def series(self, source: str, per_epoch: float | None) -> tuple[dict[str, Series], str, int]:
        """The series by step; how the steps were found; how often training went back."""
        made: dict[str, Series] = {}
        restarts = 0
        for evaluation, columns in self._columns.items():
            epochs = np.array(self._epochs[evaluation])
            if not len(epochs):
                continue
            counted = np.arange(1, len(epochs) + 1)
            steps = counted if per_epoch is None else steps_of(epochs, per_epoch)
            if not evaluation:
                restarts = int((np.diff(epochs) < 0).sum())
            # Names that stand in the same entries share one array of places, and so one of steps.
            shared: dict[int, NDArray[np.int64]] = {}
            for name, series in columns.series().items():
                places = series.steps
                at = _at(series, shared.setdefault(id(places), steps[places]), source)
                made[name] = _join(made[name], at) if name in made else at
        if per_epoch is None:
            return made, "no step count was printed: the axis counts the entries of the log", restarts
        return made, f"steps are worked out from the printed epoch, {per_epoch:g} steps each", restarts


def _join(first: Series, second: Series) -> Series:
    """Both kinds of entries print the epoch, and some the tokens seen."""
    values = np.concatenate([first.values, second.values])
    both = Series(name=first.name, steps=first.steps, values=values, source=first.source)
    return _at(both, np.concatenate([first.steps, second.steps]), first.source)


def _at(series: Series, steps: NDArray[np.int64], source: str) -> Series:
    if (steps[1:] > steps[:-1]).all():
        return Series(name=series.name, steps=steps, values=series.values, source=source)
    order = np.argsort(steps, kind="stable")
    steps, values = steps[order], series.values[order]
    last = np.append(steps[1:] != steps[:-1], True)
    return Series(name=series.name, steps=steps[last], values=values[last], source=source)


def _steps_per_epoch(announced: _Announced) -> float | None:
    if announced.per_epoch:
        return announced.per_epoch
    if announced.examples and announced.batch:
        return math.ceil(announced.examples / announced.batch)
    # Epochs are announced rounded up, so that with max_steps this is too few: hence only now.
    if announced.total_steps and announced.epochs:
        return announced.total_steps / announced.epochs
    return announced.by_bar


def _announced(path: Path) -> _Announced:
    with path.open("rb") as file:
        head = file.read(_HEAD)
    text = head[:200_000].decode("utf-8", "replace")
    total, epochs = last_number(_TOTAL, head), last_number(_EPOCHS, head)
    return _Announced(
        total,
        epochs,
        last_number(_PER_EPOCH, head),
        last_number(_EXAMPLES, head),
        last_number(_BATCH, head),
        last_number(_TRAINABLE, head),
        _by_bar(head, total),
        next(
            (name for name in ("axolotl", "llamafactory") if f"[{name}." in text or f"] {name}." in text), ""
        ),
    )


def last_number(pattern: re.Pattern[bytes], text: bytes) -> int | None:
    """The last number that a pattern finds, by the first of its groups that matched; commas are left out."""
    found = pattern.findall(text)
    if not found:
        return None
    digits = found[-1] if isinstance(found[-1], bytes) else next(part for part in found[-1] if part)
    return int(digits.replace(b",", b""))


def _by_bar(head: bytes, total: int | None) -> float | None:
    """Steps per epoch by the last of the first dictionaries that a bar follows: it is the most exact."""
    found = None
    for match in itertools.islice(DICTIONARY.finditer(head), 500):
        bars = _BAR.findall(head, match.end(), match.end() + 400)
        steps = [int(step) for step, whole in bars if total is None or int(whole) == total]
        for entry in parse([match.group()])[0]:
            epoch = as_float(entry.get("epoch"))
            if steps and epoch and not _OF_TRAINING.isdisjoint(entry):
                found = steps[0] / epoch
    return found
