"""Reads what the Trainer and LLaMA-Factory's callback leave: checkpoints' states, and `trainer_log.jsonl`."""

from __future__ import annotations

import itertools
import re
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import orjson

from tunebook.runlog.files import utf8
from tunebook.runlog.records import Note, Series, Trainer
from tunebook.runlog.series import SeriesBuilder, WentBack, join_starts
from tunebook.runlog.tolerant_json import as_float, as_int, loads, loads_numbers, numbers_of, read_lines

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from tunebook.runlog.files import RunFiles


_NAMES = {
    "loss": "loss",
    "lr": "learning_rate",
    "epoch": "epoch",
    "eval_loss": "eval_loss",
    "throughput": "train_tokens_per_second",
    "total_tokens": "num_input_tokens_seen",
    # LLaMA-Factory's callback shortens TRL's names.
    "accuracy": "rewards/accuracies",
    "reward": "reward",
}
_FEWEST_REPEATS = 4
"""A step back more often than a run is started again, each by no more than a few entries: two writers."""


class TrainerLog(NamedTuple):
    """The series of the file, the steps it was to take, where it was started again, and what was lost."""

    series: dict[str, Series]
    total_steps: int | None
    went_back: list[WentBack]
    notes: list[Note]


def read_trainer_log(path: Path, source: str) -> TrainerLog:
    """Read one `trainer_log.jsonl`.

    Raises:
        OSError: The file cannot be read.
    """
    points = SeriesBuilder(source)
    lines = read_lines(path)
    total = None
    bad = lines.bad
    went_back: list[WentBack] = []
    steps: list[int] = []
    clocks: list[tuple[int, float, float]] = []
    last_step, clock, before = 0, 0.0, 0.0
    for line in lines.objects:
        step = as_int(line.get("current_steps"))
        if step is None:
            bad += 1
            continue
        total = as_int(line.get("total_steps")) or total
        entry = {ours: line[theirs] for theirs, ours in _NAMES.items() if theirs in line}
        seconds = _seconds(line.get("elapsed_time"))
        # A start appends to the file, and its clock begins at zero, also after the last step.
        if step < last_step or (seconds is not None and seconds < clock):
            went_back.append(WentBack(last_step, step, source))
            before, clock = before + clock, 0.0
        last_step = step
        if seconds is not None:
            clock = seconds
            clocks.append((step, before + seconds, seconds))
        if "loss" in entry:
            steps.append(step)
        points.add(step, entry)
    notes = (
        [Note(kind="lost", file=source, message=f"{bad} lines are damaged and were left out")] if bad else []
    )
    twice = _written_twice(steps, went_back)
    if twice:
        message = "two processes wrote this file at the same time: of equal steps the later line counts"
        notes.append(Note(kind="read", file=source, message=message))
        went_back = []
    for step, joined, own in clocks:
        points.add(step, {"elapsed_seconds": own if twice else joined})
    return TrainerLog(points.series(), total, went_back, notes)


def _written_twice(steps: list[int], went_back: list[WentBack]) -> bool:
    """Whether two processes wrote the steps: most are there twice, and they lie side by side."""
    if len(steps) < 2 * _FEWEST_REPEATS:
        return False
    repeated = len(steps) - len(set(steps))
    if repeated < len(steps) / 3 or repeated < _FEWEST_REPEATS:
        return False
    interval = float(np.median(np.diff(np.unique(steps)))) if len(set(steps)) > 1 else 1.0
    near = sum(place.last_before - place.first_again <= 5 * interval for place in went_back)
    beside = sum(one == other for one, other in itertools.pairwise(steps))
    return beside + near >= repeated / 2


def _seconds(clock: object) -> float | None:
    """Seconds out of `1 day, 2:03:04` or `2:03:04`, as `str(timedelta)` writes them."""
    if not isinstance(clock, str):
        return None
    days, _, time = clock.rpartition(", ")
    try:
        hours, minutes, seconds = (int(part) for part in time.split(":"))
        return (int(days.split()[0]) if days else 0) * 86400.0 + hours * 3600 + minutes * 60 + seconds
    except (ValueError, IndexError):
        return None


# Reads the `trainer_state.json` of a run: the newest, and those of checkpoints with another history.

_COMPARED_BYTES = 64 << 20
"""Of all checkpoints together: beyond it only the newest is read."""
_DIFFERING = 2


class TrainerStates(NamedTuple):
    """The state that counts, its series joined with those of an earlier start, and what was lost."""

    state: TrainerState | None
    series: dict[str, Series]
    went_back: list[WentBack]
    notes: list[Note]


def read_states(files: RunFiles) -> TrainerStates:
    """Read the state at the top of the folder, else that of the newest checkpoint that has one.

    The Trainer carries its history on from checkpoint to checkpoint. One whose history differs is from
    another start, e.g. an earlier one that went further: of that, the steps beyond are taken.

    Raises:
        OSError: A file cannot be read.
    """
    notes: list[Note] = []
    newest: TrainerState | None = None
    others: list[Path] = []
    path_of_newest = None
    for path in _current_first(files):
        if newest is not None:
            others.append(path)
            continue
        source = files.name(path)
        newest = read_trainer_state(path, source)
        path_of_newest = path
        if newest is None:
            notes.append(Note(kind="lost", file=source, message="damaged; nothing could be read"))
        else:
            notes.extend(newest.notes)
    if newest is None or path_of_newest is None:
        return TrainerStates(None, {}, [], notes)
    starts = [(_written(path_of_newest), newest.series)]
    if sum(path.stat().st_size for path in others) <= _COMPARED_BYTES:
        for path in others:
            other = read_trainer_state(path, files.name(path))
            if other is None or not _differs(newest.series, other.series):
                continue
            if (foreign := _why_of_another_run(newest.trainer, other.trainer)) is not None:
                notes.append(Note(kind="left out", file=other.trainer.source, message=foreign))
                continue
            starts.append((_written(path), other.series))
            break
    # The top of the folder is written at the end of the last start; checkpoints say it by their time.
    if path_of_newest.parent != files.base:
        starts.sort(key=lambda start: start[0])
    else:
        starts.reverse()
    joined = join_starts([series for _, series in starts])
    return TrainerStates(newest, joined.series, joined.went_back, notes)


def _why_of_another_run(newest: Trainer, other: Trainer) -> str | None:
    """Why a state with another history is of another run; None where it may be of an earlier start."""
    if newest.max_steps and other.max_steps and newest.max_steps != other.max_steps:
        return f"is of another run: {other.max_steps:,} steps were planned there, {newest.max_steps:,} here"
    if newest.max_steps and (other.global_step or 0) > newest.max_steps:
        return f"is of another run: it is at step {other.global_step:,} of {newest.max_steps:,}"
    return None


def _current_first(files: RunFiles) -> list[Path]:
    """The states, the newest step first; checkpoints of an older run lie behind the others."""
    if len(files.states) < 2 or files.states[0].parent == files.base:
        return files.states
    planned = {path: _planned(path) for path in files.states}
    if len(set(planned.values()) - {None}) < 2:
        return files.states
    latest = planned[max(files.states, key=_written)]
    return sorted(files.states, key=lambda path: planned[path] != latest)


def _planned(path: Path) -> int | None:
    match = _MAX_STEPS.search(path.read_bytes())
    return int(match[1]) if match else None


def _written(path: Path) -> float:
    return path.stat().st_mtime


def _differs(newest: dict[str, Series], other: dict[str, Series]) -> bool:
    """Whether both histories differ at the last steps they share; a single one may be damaged."""
    if "loss" not in newest or "loss" not in other:
        return False
    mine, theirs = newest["loss"], other["loss"]
    shared, here, there = np.intersect1d(mine.steps, theirs.steps, return_indices=True)
    if len(shared) < _DIFFERING:
        return False
    last, others = mine.values[here[-_DIFFERING:]], theirs.values[there[-_DIFFERING:]]
    return not bool(np.isclose(last, others, rtol=1e-9, equal_nan=True).any())


# Reads `trainer_state.json`, whole or cut off, of any length.

# Entries of log_history are flat objects; the Trainer writes nothing nested into them.
_ENTRY = re.compile(rb"\{[^{}]*\}")
_START = re.compile(rb'"log_history"\s*:\s*\[')
_EPOCH = b'"epoch":'
_MAX_STEPS = re.compile(rb'"max_steps"\s*:\s*(\d+)')
_ENDLESS = 1e15
"""Epochs that the Trainer writes for a stream, which has no length: there an epoch says nothing of steps."""
_BETWEEN = b" \t\r\n,"
_BLOCK = 10_000
"""Entries parsed at once."""
_SUMMARY_KEYS = frozenset({"total_flos", "train_loss", "train_samples_per_second", "train_steps_per_second"})


class TrainerState(NamedTuple):
    """The state file's series, its facts, the closing figures of training, and what was lost."""

    series: dict[str, Series]
    trainer: Trainer
    summary: dict[str, float]
    notes: list[Note]


def read_trainer_state(path: Path, source: str) -> TrainerState | None:
    """Read one `trainer_state.json`.

    Args:
        path: The file.
        source: Its name for the reader, below the run folder.

    Returns:
        None where the file holds neither facts nor entries.

    Raises:
        OSError: The file cannot be read.
    """
    entries = _Entries(utf8(path.read_bytes()))
    points = SeriesBuilder(source)
    summary: dict[str, float] = {}
    for entry in entries:
        _take(entry, points, summary)
    if entries.broken and (whole := _whole(entries.text)) is not None:
        # Not damaged: a metric function that returns mappings has put them into the entries.
        points, summary, entries.damaged = SeriesBuilder(source), {}, 0
        for entry in whole["log_history"]:
            _take(entry, points, summary)
        entries.around = orjson.dumps(whole | {"log_history": []})
    facts = _facts(entries.around)
    notes = []
    if facts is None:
        facts = _salvage(entries.around)
        if not facts and not entries.read:
            return None
        message = f"cut off after {entries.read} log entries; the rest is lost"
        notes.append(Note(kind="lost", file=source, message=message))
    elif entries.damaged:
        message = f"{entries.damaged} damaged stretches of log entries were left out"
        notes.append(Note(kind="lost", file=source, message=message))
    endless = (as_float(facts.get("num_train_epochs")) or 0.0) > _ENDLESS
    series, torn = drop_torn(points.series(), judge=not endless)
    if torn:
        message = f"{torn} log entries whose epoch does not fit their step were left out"
        notes.append(Note(kind="lost", file=source, message=message))
    return TrainerState(series, _trainer(facts, source), summary, notes)


class _Entries:
    """The whole entries of `log_history`; afterwards, what is around them."""

    def __init__(self, text: bytes) -> None:
        self.text = text
        self.around = text
        """The file without its entries."""
        self.read = 0
        self.damaged = 0
        self.broken = False
        """Whether something lies between the entries."""

    def __iter__(self) -> Iterator[dict[str, Any]]:
        if not (start := _START.search(self.text)):
            return
        after = start.end()
        block: list[bytes] = []
        for match in _ENTRY.finditer(self.text, after):
            between = self.text[after : match.start()].strip(_BETWEEN)
            if between.startswith(b"]"):
                break
            after = match.end()
            # One object of two entries: lines between them are gone, and of equal keys the later holds.
            two_in_one = match.group().count(_EPOCH) > 1
            self.broken |= bool(between)
            self.damaged += bool(between) + two_in_one
            if not two_in_one:
                block.append(match.group())
            if len(block) == _BLOCK:
                yield from self._parse(block)
                block = []
        yield from self._parse(block)
        self.around = self.text[: start.end()] + self.text[after:]

    def _parse(self, block: list[bytes]) -> list[dict[str, Any]]:
        try:
            entries: list[dict[str, Any]] = loads_numbers(b"[" + b",".join(block) + b"]")
        except ValueError:
            entries = [entry for one in block if (entry := _facts(one)) is not None]
            self.damaged += len(block) - len(entries)
        self.read += len(entries)
        return entries


def _whole(text: bytes) -> dict[str, Any] | None:
    """The file, where it is JSON as a whole with a list of entries in it."""
    facts = _facts(text)
    history = facts.get("log_history") if facts else None
    if facts is None or not isinstance(history, list) or not all(isinstance(one, dict) for one in history):
        return None
    return facts


def _take(entry: dict[str, Any], points: SeriesBuilder, summary: dict[str, float]) -> None:
    step = entry.pop("step", None)
    step = step if type(step) is int else as_int(step)
    if "train_loss" in entry and entry.keys() >= _SUMMARY_KEYS:
        summary.update(numbers_of(entry))
    elif step is not None:
        if "epoch" in entry:
            # An evaluation has the step of a training entry: each is judged by its own epoch. One that
            # damage has made of both kinds is judged as both.
            evaluated = any(name.startswith("eval_") for name in entry)
            if evaluated:
                entry[EVALUATION] = entry["epoch"]
            if not evaluated or not OF_TRAINING.isdisjoint(entry):
                entry[TRAINING] = entry["epoch"]
        points.add(step, entry)


def _facts(data: bytes) -> dict[str, Any] | None:
    try:
        facts = loads(data)
    except ValueError:
        return None
    return facts if isinstance(facts, dict) else None


def _salvage(head: bytes) -> dict[str, Any]:
    """Facts before the entries of a file without an end."""
    pairs = re.findall(rb'"(\w+)"\s*:\s*("[^"\\]*"|-?[\d.eE+-]+|null)\s*,', head)
    salvaged: dict[str, Any] = {}
    for key, value in pairs:
        try:
            salvaged[key.decode()] = orjson.loads(value)
        except orjson.JSONDecodeError:
            continue
    return salvaged


def _trainer(facts: Mapping[str, Any], source: str) -> Trainer:
    checkpoint = facts.get("best_model_checkpoint")
    name = re.split(r"[/\\]", checkpoint.rstrip("/\\"))[-1] if isinstance(checkpoint, str) else None
    step = as_int(facts.get("best_global_step"))
    if step is None and name and name.startswith("checkpoint-"):
        step = as_int(name.removeprefix("checkpoint-"))
    stopping = _nested(facts, "stateful_callbacks", "EarlyStoppingCallback")
    return Trainer(
        source=source,
        global_step=as_int(facts.get("global_step")),
        max_steps=as_int(facts.get("max_steps")),
        epochs=as_float(facts.get("num_train_epochs")),
        best_metric=as_float(facts.get("best_metric")),
        best_step=step,
        best_checkpoint=name,
        best_folder=_parent(checkpoint),
        patience=as_int(_nested(stopping, "args", "early_stopping_patience")),
        without_improvement=as_int(_nested(stopping, "attributes", "early_stopping_patience_counter")),
    )


def _parent(checkpoint: object) -> str | None:
    """Name of the folder that a checkpoint's path lies in; Windows writes paths with backslashes."""
    parts = re.split(r"[/\\]+", checkpoint.rstrip("/\\")) if isinstance(checkpoint, str) else []
    return parts[-2] if len(parts) > 1 and parts[-2] not in ("", ".", "..") else None


def _nested(value: Any, *keys: str) -> Any:
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value


# Finds log entries that damage has made of two: the head of one, the tail of another.
#
# Where bytes were lost between them, what is left may be valid JSON, with a number made of two halves. The
# entry then has the epoch of the first and the step of the second, which do not fit each other. Of a single
# entry that cannot be seen.

_SLACK_STEPS = 1.5
"""The last step of an epoch may have fewer batches, which moves the epoch by less than a step."""
_SLACK_EPOCHS = 0.011
"""Older Trainers write the epoch with two digits."""
_SAME_PACE = 0.01
TRAINING, EVALUATION = "epoch of training", "epoch of evaluation"
"""Names of the epochs of either kind of entry, which `drop_torn` takes out again."""
OF_TRAINING = frozenset({"loss", "grad_norm", "learning_rate"})
"""What only entries of training have."""


def drop_torn(series: dict[str, Series], *, judge: bool = True) -> tuple[dict[str, Series], int]:
    """Leave out every entry whose epoch is off, while its neighbours go at the pace of the whole.

    A resumed run may change its pace, with other batches: around that place nothing is left out.

    Args:
        series: By name, with the epochs of both kinds of entries under the names above.
        judge: Whether epochs go at the pace of steps at all.

    Returns:
        The series, and how many entries were left out of them.
    """
    left = {name: one for name, one in series.items() if name not in (TRAINING, EVALUATION)}
    count = 0
    for kind in (TRAINING, EVALUATION) if judge else ():
        torn = _torn_steps(series[kind]) if kind in series else None
        if torn is not None and len(torn):
            count += len(torn)
            for name in left:
                # What both kinds of entries have, such as the epoch, is one series.
                of_the_other = name in OF_TRAINING if kind == EVALUATION else name.startswith("eval_")
                if not of_the_other:
                    left[name] = _without(left[name], torn)
    return {name: one for name, one in left.items() if len(one.steps)}, count


def _torn_steps(epochs: Series) -> NDArray[np.int64]:
    none: NDArray[np.int64] = epochs.steps[:0]
    steps, values = epochs.steps.astype(float), epochs.values
    if len(steps) < 5:
        return _torn_of_few(epochs.steps, values) if len(steps) > 1 and steps[0] > 0 else none
    # A pace that was gone at, not the middle of two.
    pace = float(np.quantile(np.diff(values) / np.diff(steps), 0.5, method="lower"))
    if not pace > 0:
        return none
    # Of each entry the two that it is judged by: its neighbours, or at an end the two beside it.
    before, after = np.arange(-1, len(steps) - 1), np.arange(1, len(steps) + 1)
    before[0], after[0] = 1, 2
    before[-1], after[-1] = len(steps) - 3, len(steps) - 2
    around = (values[after] - values[before]) / (steps[after] - steps[before])
    expected = values[before] + pace * (steps - steps[before])
    off = np.abs(values - expected) > max(_SLACK_STEPS * pace, _SLACK_EPOCHS)
    torn: NDArray[np.int64] = epochs.steps[off & (np.abs(around - pace) < _SAME_PACE * pace)]
    return torn


def _torn_of_few(steps: NDArray[np.int64], values: NDArray[np.float64]) -> NDArray[np.int64]:
    """Of a handful, those that do not go at the pace of most since the start; of two that differ, both."""
    pace = float(np.quantile(values / steps, 0.5, method="lower"))
    off = np.abs(values - pace * steps) > max(_SLACK_STEPS * pace, _SLACK_EPOCHS)
    torn: NDArray[np.int64] = steps if len(steps) == 2 and off.any() else steps[off]
    return torn


def _without(one: Series, torn: NDArray[np.int64]) -> Series:
    kept = ~np.isin(one.steps, torn)
    return Series(name=one.name, steps=one.steps[kept], values=one.values[kept], source=one.source)
