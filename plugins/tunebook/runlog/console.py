"""Reads what a Trainer printed: the dictionaries between progress bars, of transformers 4 and 5.

A line of transformers 4 is `{'loss': 1.23, 'epoch': 0.5}`, one of transformers 5 `{'loss': '1.23', ...}`
with four significant digits. Either may hold nan, may follow the rest of a progress bar, and has no
step: that is worked out from the epoch.
"""

from __future__ import annotations

import itertools
import math
import re
from array import array
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import orjson

from tunebook.runlog.records import Note, Series, Sourced
from tunebook.runlog.series import SeriesBuilder, WentBack, join_starts, later_wins
from tunebook.runlog.timeline import RunStart, Timeline, last_number
from tunebook.runlog.tolerant_json import as_float, numbers_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from tunebook.runlog.files import RunFiles


_BAR = re.compile(rb"\b(\d+)/(\d+) \[")
_TOTAL = re.compile(rb"Total optimization steps = ([\d,]+)")
_EPOCHS = re.compile(rb"Num Epochs = ([\d,]+)")
_PER_EPOCH = re.compile(rb"Num update steps per epoch = ([\d,]+)")
_EXAMPLES = re.compile(rb"Running training \*+[^*]{0,200}?Num examples = ([\d,]+)")
_BATCH = re.compile(rb"Total train batch size [^=\n]*= ([\d,]+)")
_TRAINABLE = re.compile(rb"trainable params: ([\d,]+)|Number of trainable parameters = ([\d,]+)")
_RANKS = re.compile(rb"Process rank: \d+, world size: (\d+), device: cuda")
_HEAD = 4 << 20
"""The announcements are at the start of a log."""
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
    starts: list[RunStart]
    """Starts of the run, with their phases as far as there are timestamps."""
    went_back: list[WentBack]
    gpu_count: int | None
    """As LLaMA-Factory says for CUDA devices."""

    @property
    def started(self) -> float | None:
        """The first stamp, on a clock of no known zone."""
        return next((start.began for start in self.starts if start.began is not None), None)


class ConsoleLogs(NamedTuple):
    """The console logs that a Trainer printed into, the earliest first, and their series joined."""

    consoles: list[Console]
    series: dict[str, Series]
    went_back: list[WentBack]


def read_consoles(files: RunFiles) -> ConsoleLogs:
    """Read every console log of a run that a Trainer printed into.

    Raises:
        OSError: A file cannot be read.
    """
    read = [
        console for path in files.consoles if (console := read_console(path, files.name(path))) is not None
    ]
    # Python's sort is stable: logs without a clock stay in the order of their names.
    read.sort(key=lambda console: console.started or 0.0)
    joined = join_starts([console.series for console in read])
    went_back = [place for console in read for place in console.went_back] + joined.went_back
    return ConsoleLogs(read, joined.series, sorted(went_back, key=lambda place: place.first_again))


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
    """Steps per epoch, from a dictionary and the progress bar that is drawn again after it."""
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
    training, evaluation, timeline = _Logged(), _Logged(), Timeline()
    bad = 0
    for chunk in _chunks(path):
        entries, torn = parse_entries(DICTIONARY.findall(chunk))
        bad += torn
        for entry in entries:
            if "epoch" not in entry:
                continue
            if "loss" not in entry and "train_loss" in entry and "train_runtime" in entry:
                summary |= numbers_of(entry)
            elif not _OF_TRAINING.isdisjoint(entry):
                training.add(entry)
            elif any(name.startswith("eval_") for name in entry):
                evaluation.add(entry)
        timeline.feed(chunk)
    if not (training.epochs or evaluation.epochs or summary):
        return None
    per_epoch = _steps_per_epoch(announced)
    resumed = sum(start.resumed_at is not None for start in timeline.starts)
    series: dict[str, Series] = {}
    for kind in (training, evaluation):
        _put_all(series, kind, per_epoch, source)
    went_back = _went_back(training, per_epoch, source, resumed=resumed)
    if per_epoch is None:
        how = "no step count was printed: the axis counts the entries of the log"
    else:
        how = f"steps are worked out from the printed epoch, {per_epoch:g} steps each"
    notes = [Note(kind="read", file=source, message=how)] if series else []
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


class _Logged:
    """The entries of training, or those of evaluation: their epochs, and their numbers by place."""

    def __init__(self) -> None:
        self.epochs = array("d")
        self.points = SeriesBuilder("")

    def add(self, entry: dict[str, Any]) -> None:
        epoch = as_float(entry.pop("epoch"))
        if epoch is not None:
            self.points.add(len(self.epochs), entry)
            self.epochs.append(epoch)

    def steps(self, per_epoch: float | None) -> NDArray[np.int64]:
        if per_epoch is None:
            return np.arange(1, len(self.epochs) + 1)
        return steps_by_epochs(np.array(self.epochs), per_epoch)


def _put_all(made: dict[str, Series], logged: _Logged, per_epoch: float | None, source: str) -> None:
    if not logged.epochs:
        return
    steps = logged.steps(per_epoch)
    for name, series in logged.points.series().items():
        _put(made, name, steps[series.steps], series.values, source)
    _put(made, "epoch", steps, np.array(logged.epochs), source)


def _went_back(training: _Logged, per_epoch: float | None, source: str, *, resumed: int) -> list[WentBack]:
    """Where training went back; `resumed` is how often the log says that it is resumed."""
    if not training.epochs:
        return []
    epochs, steps = np.array(training.epochs), training.steps(per_epoch)
    places = np.flatnonzero(epochs[1:] < epochs[:-1])
    # Only the last step may be taken again; where the log does not say so, another rank has printed.
    again = np.flatnonzero(epochs[1:] <= epochs[:-1])
    places = again if len(places) < len(again) <= resumed else places
    return [WentBack(int(steps[at]), int(steps[at + 1]), source) for at in places.tolist()]


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
        for entry in parse_entries([match.group()])[0]:
            epoch = as_float(entry.get("epoch"))
            if steps and epoch and not _OF_TRAINING.isdisjoint(entry):
                found = steps[0] / epoch
    return found


# Works steps out of printed epochs, which are rounded: to four digits, or to two decimals.

_MAX_ANCHORS = 200
_FIRST_BLOCK = 256
"""Entries looked at after an anchor, and twice as many each time they agree."""
_LAST_BLOCK = 1 << 16


def steps_by_epochs(epochs: NDArray[np.float64], per_epoch: float) -> NDArray[np.int64]:
    """Steps of log entries, from their printed epochs.

    Entries come every so many steps, so their order says more than the rounded epoch does: entries
    are counted on from an anchor, and anchored again where an epoch contradicts the count, as after a
    restart or where lines are missing.

    Args:
        epochs: As printed, in the order of the log, shape (N,), N >= 1.
        per_epoch: Optimizer steps in an epoch.

    >>> import numpy as np
    >>> steps_by_epochs(np.array([0.1136, 0.2273, 0.3409]), 88).tolist()
    [10, 20, 30]
    """
    estimates = epochs * per_epoch
    least = 0.75
    if all(
        np.array_equal(part, np.round(part, 2)) for part in np.array_split(epochs, len(epochs) // 65536 + 1)
    ):
        least += 0.0055 * per_epoch
    interval = _interval(estimates)
    if interval is None:
        return np.rint(estimates).astype(np.int64)
    steps = np.empty(len(estimates), dtype=np.int64)
    start = 0
    for _ in range(_MAX_ANCHORS):
        anchor = _anchor(estimates[start:], interval)
        first = _count_on(steps, estimates, least, start, anchor, interval)
        # An anchor that does not even fit its own entry: a first step logged out of turn.
        if first == start:
            steps[start] = round(estimates[start])
            first += 1
        start = first
        if start >= len(estimates):
            return steps
    return np.rint(estimates).astype(np.int64)


def _count_on(
    steps: NDArray[np.int64],
    estimates: NDArray[np.float64],
    least: float,
    start: int,
    anchor: int,
    interval: int,
) -> int:
    """Fill in `steps` from `start` on by counting; returns the first place that contradicts the count."""
    first, size = start, _FIRST_BLOCK
    while first < len(estimates):
        after = min(first + size, len(estimates))
        counted = anchor + interval * np.arange(first - start, after - start)
        # How far an estimate may be off, in steps: four digits of an epoch, or two after its point.
        error = np.maximum(0.75 + 5.5e-4 * estimates[first:after], least)
        wrong = np.abs(counted - estimates[first:after]) > error
        steps[first:after] = counted
        if wrong.any():
            return first + int(np.argmax(wrong))
        first, size = after, min(size * 2, _LAST_BLOCK)
    return first


def _interval(estimates: NDArray[np.float64]) -> int | None:
    """Steps between entries, by the median over wide gaps; None where that is less than one."""
    if len(estimates) == 1:
        return max(1, round(float(estimates[0])))
    # Wide, so that rounding does not show, and narrow enough that few gaps span a restart.
    gap = min(max(1, len(estimates) // 4), 200)
    ahead = estimates[gap:] - estimates[:-gap]
    interval = round(float(np.median(ahead, overwrite_input=True)) / gap)
    return interval if interval >= 1 else None


def _anchor(estimates: NDArray[np.float64], interval: int) -> int:
    """The step of the first entry: a multiple of the interval that agrees with the entries after it."""
    ahead = estimates[:20] - interval * np.arange(len(estimates[:20]))
    # Not the median: where a restart follows within these few, it would be between the two.
    return round(float(ahead[0]) / interval) * interval if len(ahead) < 3 else _agreed(ahead, interval)


def _agreed(ahead: NDArray[np.float64], interval: int) -> int:
    candidates = np.rint(ahead / interval).astype(np.int64) * interval
    near = candidates[np.abs(candidates - candidates[0]) <= interval]
    return int(np.median(near))


# Finds and parses the dictionaries that a Trainer prints between progress bars.

_CHUNK = 1 << 20
DICTIONARY = re.compile(rb"\{'[^{}\r\n]*\}")
"""Never anchored to the start of a line: the rest of a bar may be there."""
_WORDS = (
    (b": nan", b': "nan"'),
    (b": inf", b': "inf"'),
    (b": -inf", b': "-inf"'),
    (b": None", b": null"),
    (b": True", b": true"),
    (b": False", b": false"),
)


def _chunks(path: Path) -> Iterator[bytes]:
    """The log in pieces of about a megabyte; a line is never cut in two."""
    begun = b""
    with path.open("rb") as file:
        while data := file.read(_CHUNK):
            text = begun + data
            end = text.rfind(b"\n") + 1
            if not end and len(text) > _CHUNK:
                # Only bars, which are drawn over each other.
                end = text.rfind(b"\r") + 1 or len(text)
            begun = text[end:]
            if end:
                yield text[:end]
    if begun:
        yield begun


def parse_entries(found: Sequence[bytes]) -> tuple[list[dict[str, Any]], int]:
    """Parse Python dictionaries as JSON; returns those that are whole, and how many were not."""
    if not found:
        return [], 0
    text = _as_json(b",".join(found))
    try:
        return orjson.loads(b"[" + text + b"]"), 0
    except orjson.JSONDecodeError:
        return _parse_each(found)


def _parse_each(found: Iterable[bytes]) -> tuple[list[dict[str, Any]], int]:
    parsed, bad = [], 0
    for one in found:
        try:
            parsed.append(orjson.loads(_as_json(one)))
        except orjson.JSONDecodeError:
            bad += b"'loss'" in one or b"'eval_" in one
    return parsed, bad


def _as_json(text: bytes) -> bytes:
    text = text.replace(b"'", b'"')
    for python, json in _WORDS:
        if python in text:
            text = text.replace(python, json)
    return text
