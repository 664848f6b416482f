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

from tunebook.runlog.columns import Columns, later_wins
from tunebook.runlog.dictionaries import DICTIONARY, chunks, parse
from tunebook.runlog.epoch_steps import steps_of
from tunebook.runlog.joining import WentBack
from tunebook.runlog.number_table import number_table
from tunebook.runlog.records import Note, Series, Sourced
from tunebook.runlog.signs import last_number
from tunebook.runlog.timeline import Start, Timeline
from tunebook.runlog.tolerant_json import as_float

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from tunebook.runlog.dictionaries import Chunk

_BAR = re.compile(rb"\b(\d+)/(\d+) \[")
_TOTAL = re.compile(rb"Total optimization steps = ([\d,]+)")
_EPOCHS = re.compile(rb"Num Epochs = ([\d,]+)")
_PER_EPOCH = re.compile(rb"Num update steps per epoch = ([\d,]+)")
_EXAMPLES = re.compile(rb"Running training \*+[^*]{0,200}?Num examples = ([\d,]+)")
_BATCH = re.compile(rb"Total train batch size [^=\n]*= ([\d,]+)")
_TRAINABLE = re.compile(rb"trainable params: ([\d,]+)|Number of trainable parameters = ([\d,]+)")
_RANKS = re.compile(rb"Process rank: \d+, world size: (\d+), device: cuda")
_HEAD = 4 << 20
"""The announcements stand at the start of a log."""
_LOSS = b"{'loss'"
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
    starts: list[Start]
    """Starts of the run that its stamps tell of, with their phases."""
    went_back: list[WentBack]
    gpu_count: int | None
    """As LLaMA-Factory says for CUDA devices."""

    @property
    def started(self) -> float | None:
        """The first stamp, on a clock of no known zone."""
        return next((start.began for start in self.starts if start.began is not None), None)


class _Announced(NamedTuple):
    total_steps: int | None
    epochs: int | None
    per_epoch: int | None
    examples: int | None
    batch: int | None
    """Examples per optimizer step, over all ranks."""
    trainable: int | None
    ranks: int | None
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
    table, timeline = _Table(), Timeline()
    bad = 0
    for chunk in chunks(path):
        parsed, torn = parse(table.add_alike(chunk))
        bad += torn
        summary |= table.add(parsed)
        timeline.feed(chunk.rest)
    if not table.size and not summary:
        return None
    per_epoch = _steps_per_epoch(announced)
    resumed = sum(start.resumed_at is not None for start in timeline.starts)
    series, how, went_back = table.series(source, per_epoch, resumed=resumed)
    notes = [Note(kind="read", file=source, message=how)] if table.size else []
    if bad:
        notes.append(Note(kind="lost", file=source, message=f"{bad} torn lines were left out"))
    if went_back:
        times = len(went_back)
        message = f"training went back {times} time(s), as after a restart; of equal steps the later counts"
        notes.append(Note(kind="resumed", file=source, message=message))
    facts = {}
    if announced.trainable is not None:
        facts["trained_parameters"] = Sourced(value=announced.trainable, source=source)
    return Console(
        series=series,
        summary=summary,
        facts=facts,
        notes=notes,
        source=source,
        banner=announced.banner,
        starts=timeline.starts,
        went_back=went_back,
        gpu_count=announced.ranks,
    )


class _Table:
    """The entries' numbers by epoch, training and evaluation apart."""

    def __init__(self) -> None:
        self.size = 0
        self._columns = {kind: Columns("") for kind in (False, True)}
        self._epochs = {kind: array("d") for kind in (False, True)}

    def add_alike(self, chunk: Chunk) -> list[bytes]:
        """Take the training entries where all are alike; returns what is to be parsed one by one."""
        found = [one for one in chunk.at_ends if one.startswith(_LOSS)]
        table = number_table(b",".join(found), b"'") if found and chunk.is_plain else None
        if table is None or "epoch" not in table or np.isnan(table["epoch"]).any():
            return chunk.dictionaries()
        first = len(self._epochs[False])
        epochs = table.pop("epoch")
        self._epochs[False].frombytes(epochs.tobytes())
        self._columns[False].add_table(np.arange(first, first + len(epochs)), table)
        self.size += len(epochs)
        if len(found) == len(chunk.at_ends):
            return []
        return DICTIONARY.findall(b"\n".join([one for one in chunk.at_ends if not one.startswith(_LOSS)]))

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
            epochs = [as_float(entry.pop("epoch")) for entry in found]
            kept = [entry for entry, epoch in zip(found, epochs, strict=True) if epoch is not None]
            first = len(self._epochs[kind])
            self._epochs[kind].extend(epoch for epoch in epochs if epoch is not None)
            self._columns[kind].add(range(first, first + len(kept)), kept)
            self.size += len(kept)
        return summary

    def series(
        self, source: str, per_epoch: float | None, *, resumed: int
    ) -> tuple[dict[str, Series], str, list[WentBack]]:
        """The series by step; how the steps were found; where training went back.

        Args:
            source: The log's name.
            per_epoch: Optimizer steps in an epoch; None where nothing tells.
            resumed: How often the log says that training is resumed.
        """
        made: dict[str, Series] = {}
        went_back: list[WentBack] = []
        for evaluation, columns in self._columns.items():
            if not self._epochs[evaluation]:
                continue
            epochs = np.frombuffer(self._epochs[evaluation])
            steps = np.arange(1, len(epochs) + 1) if per_epoch is None else steps_of(epochs, per_epoch)
            if not evaluation:
                places = np.flatnonzero(epochs[1:] < epochs[:-1])
                # The last step alone may be taken again; without a word of it, another rank has printed.
                again = np.flatnonzero(epochs[1:] <= epochs[:-1])
                places = again if len(places) < len(again) <= resumed else places
                went_back = [WentBack(int(steps[at]), int(steps[at + 1]), source) for at in places.tolist()]
            # Names that stand in the same entries share one array of places, and so one of steps.
            shared: dict[int, NDArray[np.int64]] = {}
            for name, series in columns.series().items():
                places = series.steps
                if len(places) == len(steps):
                    shared[id(places)] = steps
                elif id(places) not in shared:
                    shared[id(places)] = steps[places]
                _put(made, name, shared[id(places)], series.values, source)
            _put(made, "epoch", steps, epochs, source)
        if per_epoch is None:
            return made, "no step count was printed: the axis counts the entries of the log", went_back
        return made, f"steps are worked out from the printed epoch, {per_epoch:g} steps each", went_back


def _put(
    made: dict[str, Series], name: str, steps: NDArray[np.int64], values: NDArray[np.float64], source: str
) -> None:
    if name in made:
        # Both kinds of entries print the epoch, and some the tokens seen.
        first = made[name]
        steps, values = np.concatenate([first.steps, steps]), np.concatenate([first.values, values])
    points = later_wins(steps, values)
    made[name] = Series(name=name, steps=points.steps, values=points.values, source=source)


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
        last_number(_RANKS, head),
        _by_bar(head, total),
        next(
            (name for name in ("axolotl", "llamafactory") if f"[{name}." in text or f"] {name}." in text), ""
        ),
    )


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
