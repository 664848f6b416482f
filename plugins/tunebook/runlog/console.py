"""Reads what a Trainer printed: the dictionaries between progress bars, of transformers 4 and 5.

A line of transformers 4 is `{'loss': 1.23, 'epoch': 0.5}`, one of transformers 5 `{'loss': '1.23', ...}`
with four significant digits. Either may hold nan, may follow the rest of a progress bar, and has no
step: that is worked out from the epoch.
"""

from __future__ import annotations

import io
import itertools
import math
import re
from array import array
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import orjson

from tunebook.runlog.ends import EndSign, end_sign
from tunebook.runlog.files import utf8
from tunebook.runlog.records import Note, Series, Sourced
from tunebook.runlog.series import SeriesBuilder, WentBack, agree, join_starts, later_wins
from tunebook.runlog.timeline import PROGRESS, RunStart, Timeline, last_number
from tunebook.runlog.tolerant_json import as_float, numbers_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from tunebook.runlog.files import RunFiles


_TOTAL = re.compile(rb"Total optimization steps = ([\d,]+)|Total steps = ([\d,]+)")
"""The second is unsloth's."""
_EPOCHS = re.compile(rb"Num Epochs = ([\d,]+)")
_PER_EPOCH = re.compile(rb"Num update steps per epoch = ([\d,]+)")
_EXAMPLES = re.compile(rb"Num examples = ([\d,]+)[^*]{0,200}?Num Epochs")
_BATCH = re.compile(rb"Total (?:train )?batch size [^=\n]*= ([\d,]+)")
_TRAINABLE = re.compile(rb"trainable params: ([\d,]+)|Number of trainable parameters = ([\d,]+)")
_RANKS = re.compile(rb"Process rank: \d+, world size: (\d+), device: cuda")
_HEAD = 4 << 20
"""The announcements are at the start of a training."""
_TAIL = 256 << 10
"""Where its last bar is, and what broke it off."""
_NEAR = 400
"""Bytes between a dictionary and the bar that is drawn again after it."""
_OF_TRAINING = frozenset({"loss", "grad_norm", "learning_rate"})
_SAME_STEPS = 0.02
"""Share by which the steps of a closing summary, rounded to three digits, may be off."""


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
    total_steps: int | None = None
    """Steps that the reported training was to take, as announced or by its bar."""
    last_step: int | None = None
    """The last that an entry or a bar shows."""
    from_start: bool = True
    """Whether the reported training began at its first step."""
    sign: EndSign | None = None
    """What broke it off, by the last lines; None where nothing says so."""
    sign_after_training: bool = False
    """Whether training had closed before, and no other had begun."""

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
    # One without a clock has no place among others: then the order of their names is all there is.
    if all(console.started is not None for console in read):
        read.sort(key=lambda console: console.started or 0.0)
    read = _of_one_run(read)
    joined = join_starts([console.series for console in read])
    went_back = [place for console in read for place in console.went_back] + joined.went_back
    return ConsoleLogs(read, joined.series, sorted(went_back, key=lambda place: place.first_again))


def _of_one_run(read: list[Console]) -> list[Console]:
    """The logs of the last run: one that begins at its first step after another has closed is a new one."""
    first = 0
    for place, console in enumerate(read):
        earlier = next((one for one in reversed(read[first:place]) if "loss" in one.series), None)
        if earlier is None or "loss" not in console.series or not console.from_start:
            continue
        same = agree(earlier.series["loss"], console.series["loss"])
        planned = {earlier.total_steps, console.total_steps} - {None}
        if same is not True and (earlier.summary or len(planned) > 1):
            first = place
    for console in read[:first]:
        message = "is of another training, which ended before this one began"
        read[first].notes.append(Note(kind="left out", file=console.source, message=message))
    return read[first:]


class _Training:
    """One training of a log: its entries in order, the text they began in, and its closing summary."""

    def __init__(self) -> None:
        self.training, self.evaluation = _Logged(), _Logged()
        self.summary: dict[str, float] = {}
        self.head = bytearray()
        self.tail = b""
        self.since = b""
        """What was printed since the closing summary."""
        self.closed = False
        self.bad = 0

    @property
    def logged(self) -> bool:
        return bool(self.training.epochs or self.evaluation.epochs or self.summary)

    def feed(self, text: bytes) -> None:
        """Take text that belongs to this training."""
        if len(self.head) < _HEAD:
            self.head += text[: _HEAD - len(self.head)]
        self.tail = (self.tail + text[-_TAIL:])[-_TAIL:]
        if self.closed:
            self.since = (self.since + text[-_TAIL:])[-_TAIL:]

    def take(self, entry: dict[str, Any]) -> None:
        """Take a logged entry."""
        if "loss" not in entry and "train_loss" in entry and "train_runtime" in entry:
            self.summary |= numbers_of(entry)
        elif not _OF_TRAINING.isdisjoint(entry):
            self.training.add(entry)
        elif any(name.startswith("eval_") for name in entry):
            self.evaluation.add(entry, len(self.training.epochs))

    def is_over_before(self, entry: dict[str, Any]) -> bool:
        """Whether an entry is of another training: this one has closed, and the entry is no later than it."""
        epoch = as_float(entry.get("epoch"))
        if not self.summary or epoch is None or _OF_TRAINING.isdisjoint(entry):
            return False
        return bool(self.training.epochs) and epoch <= self.training.epochs[-1]


def read_console(path: Path, source: str) -> Console | None:
    """Read a console log in constant memory.

    A closing summary ends a training: what begins again after it is another one. Of several trainings in a
    log the last that logged something is reported.

    Returns:
        None where no Trainer printed into it.

    Raises:
        OSError: The file cannot be read.
    """
    now, before = _Training(), []
    timeline = Timeline()
    for chunk in _chunks(path):
        cut = 0
        for match, entry in _entries(chunk, now):
            if now.is_over_before(entry) and not _RESUMES.search(now.since + chunk[cut : match.start()]):
                now.feed(chunk[cut : match.start()])
                before.append(now)
                now, cut = _Training(), match.start()
                # What it announced lies before its first entry.
                now.feed(before[-1].since)
            now.take(entry)
            if now.summary and not now.closed:
                now.feed(chunk[cut : match.end()])
                now.closed, cut = True, match.end()
        now.feed(chunk[cut:])
        timeline.feed(chunk)
    sign = end_sign(now.tail)
    if not now.logged and not (sign and _TRAINER.search(now.tail)) and not timeline.starts[-1].trained:
        return None
    return _console(now, len(before), timeline, sign, source)


_TRAINER = re.compile(rb"transformers|llamafactory|axolotl|\btrl\b|accelerate|torch|deepspeed")
"""What a log that broke off before its first entry is known by."""


def _entries(chunk: bytes, now: _Training) -> Iterator[tuple[re.Match[bytes], dict[str, Any]]]:
    """The logged entries of a piece, each with its place; torn ones are counted."""
    matches = list(DICTIONARY.finditer(chunk))
    entries, torn = parse_entries([match.group() for match in matches])
    if len(entries) != len(matches):
        entries = [one[0] if (one := parse_entries([match.group()])[0]) else {} for match in matches]
    now.bad += torn
    for match, entry in zip(matches, entries, strict=True):
        if "epoch" in entry:
            yield match, entry


_RESUMES = re.compile(rb"Continuing training from global step|Resuming training from|auto-resume")


def _console(now: _Training, others: int, timeline: Timeline, sign: EndSign | None, source: str) -> Console:
    training, evaluation = now.training, now.evaluation
    announced = _announced(bytes(now.head), now)
    per_epoch = _steps_per_epoch(announced, now)
    resumed = sum(start.resumed_at is not None for start in timeline.starts)
    series: dict[str, Series] = {}
    steps = training.steps(per_epoch, announced.total_steps)
    if training.epochs:
        _put_all(series, training, steps, source)
    if evaluation.epochs:
        _put_all(series, evaluation, _evaluated_at(now, steps, per_epoch, announced.total_steps), source)
    went_back = _went_back(training, steps, source, resumed=resumed)
    if per_epoch is None:
        how = "no step count was printed: the axis counts the entries of the log"
    else:
        how = f"steps are worked out from the printed epoch, {per_epoch:g} steps each"
    notes = [Note(kind="read", file=source, message=how)] if series else []
    if others:
        message = f"holds {others + 1} trainings, each with its closing summary; the last is reported"
        notes.append(Note(kind="left out", file=source, message=message))
    if now.bad:
        notes.append(Note(kind="lost", file=source, message=f"{now.bad} torn lines were left out"))
    if went_back:
        times = len(went_back)
        message = f"training went back {times} time(s), as after a restart; of equal steps the later counts"
        notes.append(Note(kind="resumed", file=source, message=message))
    facts = {}
    if announced.trainable is not None:
        facts["trained_parameters"] = Sourced(value=announced.trainable, source=source)
    bars = [] if announced.total_steps is None else _bars(now.tail, announced.total_steps)
    last = [bars[-1].done] if bars else []
    last += [int(steps.max())] if per_epoch is not None and len(steps) else []
    return Console(
        series=series,
        summary=now.summary,
        facts=facts,
        notes=notes,
        source=source,
        banner=announced.banner,
        # Those of earlier trainings are theirs.
        starts=timeline.starts[-1:] if others else timeline.starts,
        went_back=went_back,
        gpu_count=announced.ranks,
        total_steps=announced.total_steps if per_epoch is not None or not series else None,
        last_step=max(last, default=None),
        from_start=not resumed
        and (not len(steps) or len(steps) < 2 or int(steps[0]) <= int(steps[1] - steps[0])),
        sign=sign,
        sign_after_training=now.closed and b"Running training" not in now.since,
    )


def _evaluated_at(
    now: _Training, steps: NDArray[np.int64], per_epoch: float | None, total: int | None
) -> NDArray[np.int64]:
    """Steps of the evaluations; where none are known, the entry of training that each came after."""
    if per_epoch is not None or not len(steps):
        return now.evaluation.steps(per_epoch, total)
    epochs = np.array(now.training.epochs)
    if (np.diff(epochs) < 0).any():
        return np.array(now.evaluation.after, dtype=np.int64)
    return np.searchsorted(epochs, np.array(now.evaluation.epochs) + 1e-9, side="right").astype(np.int64)


class _Logged:
    """The entries of training, or those of evaluation: their epochs, and their numbers by place."""

    def __init__(self) -> None:
        self.epochs = array("d")
        self.after = array("q")
        """Entries of training before each."""
        self.points = SeriesBuilder("")

    def add(self, entry: dict[str, Any], after: int = 0) -> None:
        epoch = as_float(entry.pop("epoch"))
        if epoch is not None:
            self.points.add(len(self.epochs), entry)
            self.epochs.append(epoch)
            self.after.append(after)

    def steps(self, per_epoch: float | None, total: int | None) -> NDArray[np.int64]:
        """Steps by the epochs, never beyond the printed total; else the places of the entries."""
        if per_epoch is None or not self.epochs:
            return np.arange(1, len(self.epochs) + 1)
        steps = steps_by_epochs(np.array(self.epochs), per_epoch)
        return steps if total is None else np.minimum(steps, total)


def _put_all(made: dict[str, Series], logged: _Logged, steps: NDArray[np.int64], source: str) -> None:
    for name, series in logged.points.series().items():
        _put(made, name, steps[series.steps], series.values, source)
    _put(made, "epoch", steps, np.array(logged.epochs), source)


def _went_back(training: _Logged, steps: NDArray[np.int64], source: str, *, resumed: int) -> list[WentBack]:
    """Where training went back; `resumed` is how often the log says that it is resumed."""
    if not training.epochs:
        return []
    epochs = np.array(training.epochs)
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


class _Announced(NamedTuple):
    total_steps: int | None
    epochs: int | None
    per_epoch: int | None
    examples: int | None
    batch: int | None
    """Examples per optimizer step, over all ranks."""
    trainable: int | None
    ranks: int | None
    banner: str


class _Bar(NamedTuple):
    """A bar without a label, as training and evaluation have it."""

    done: int
    total: int
    at: int


def _announced(head: bytes, now: _Training) -> _Announced:
    text = head[:200_000].decode("utf-8", "replace")
    total = last_number(_TOTAL, head)
    return _Announced(
        total if total is not None else _total_by_bars(head, now),
        last_number(_EPOCHS, head),
        last_number(_PER_EPOCH, head),
        last_number(_EXAMPLES, head),
        last_number(_BATCH, head),
        last_number(_TRAINABLE, head),
        last_number(_RANKS, head),
        next(
            (name for name in ("axolotl", "llamafactory") if f"[{name}." in text or f"] {name}." in text), ""
        ),
    )


def _steps_per_epoch(announced: _Announced, now: _Training) -> float | None:
    total, epochs = announced.total_steps, announced.epochs
    if announced.per_epoch:
        return announced.per_epoch
    rounded_up = (
        math.ceil(announced.examples / announced.batch) if announced.examples and announced.batch else None
    )
    # Trainers differ in whether the last, smaller batch is a step: the announced total tells.
    if (
        total
        and epochs
        and total % epochs == 0
        and (not rounded_up or abs(total // epochs - rounded_up) <= 1)
    ):
        return total // epochs
    if rounded_up:
        return rounded_up
    # Epochs are announced rounded up, so that with max_steps this is too few: hence only now.
    if total and epochs:
        return total / epochs
    return _by_bars(now, total) if total else None


def _total_by_bars(head: bytes, now: _Training) -> int | None:
    """Steps of the training by its bar, where nothing announces them.

    Bars of evaluations have no label either. The training's has as many steps as the closing summary says;
    else it is the one that began fewest times, and of those the longest.
    """
    entries = len(now.training.epochs)
    begun: dict[int, int] = {}
    last: dict[int, int] = {}
    for bar in _bars(head + b"\n" + now.tail):
        begun[bar.total] = begun.get(bar.total, 0) + (bar.total not in last or bar.done < last[bar.total])
        last[bar.total] = bar.done
    told = _told_steps(now.summary)
    if told is not None:
        near = [total for total in last if abs(total - told) <= max(1.0, _SAME_STEPS * told)]
        return min(near, key=lambda total: abs(total - told), default=None)
    # Every entry is a step at least, and a bar that never moved is of no use.
    able = [total for total, done in last.items() if done >= max(1, entries)]
    return min(able, key=lambda total: (begun[total], -total), default=None)


def _told_steps(summary: Mapping[str, float]) -> float | None:
    seconds, rate = summary.get("train_runtime"), summary.get("train_steps_per_second")
    return seconds * rate if seconds and rate else None


def _bars(text: bytes, total: int | None = None) -> list[_Bar]:
    """The bars without a label in a text, of that total."""
    found = []
    for bar in PROGRESS.finditer(text):
        label = bar["label"]
        # The rest of an entry may stand before a bar in its line.
        named = label is not None and b"{" not in label and b"}" not in label
        if not named and (total is None or int(bar["total"]) == total):
            found.append(_Bar(int(bar["done"]), int(bar["total"]), bar.start()))
    return found


def _by_bars(now: _Training, total: int) -> float | None:
    """Steps per epoch, of a finished training by its closing epoch, else by bars right after entries."""
    closing = now.summary.get("epoch") or (
        now.training.epochs[-1] if now.summary and now.training.epochs else 0
    )
    if closing:
        return total / closing
    head = bytes(now.head)
    rates = []
    for place, match in enumerate(itertools.islice(DICTIONARY.finditer(head), 500), 1):
        bars = _bars(head[match.end() : match.end() + _NEAR], total)
        for entry in parse_entries([match.group()])[0]:
            epoch = as_float(entry.get("epoch"))
            if bars and epoch and bars[0].done >= place and not _OF_TRAINING.isdisjoint(entry):
                rates.append(bars[0].done / epoch)
    if not rates:
        return None
    # The last is the most exact. Where they disagree, what was printed was written late.
    middle = float(np.median(rates))
    return rates[-1] if abs(rates[-1] / middle - 1) < 0.25 else None


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
        mark = file.read(3)
        file.seek(0)
        # UTF-16 is turned as a whole: it is what Windows' shell writes, of no great length.
        source = io.BytesIO(utf8(file.read())) if utf8(mark) != mark else file
        while data := source.read(_CHUNK):
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
