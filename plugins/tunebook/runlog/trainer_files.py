"""Reads what the Trainer and LLaMA-Factory's callback leave: checkpoints' states, and `trainer_log.jsonl`."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from tunebook.runlog.records import Note, Series
from tunebook.runlog.series import SeriesBuilder, WentBack, join_starts
from tunebook.runlog.tolerant_json import as_int, read_lines
from tunebook.runlog.trainer_state import TrainerState, read_trainer_state

if TYPE_CHECKING:
    from pathlib import Path

    from tunebook.runlog.files import RunFiles
    from tunebook.runlog.records import Series


_NAMES = {
    "loss": "loss",
    "lr": "learning_rate",
    "epoch": "epoch",
    "eval_loss": "eval_loss",
    "throughput": "train_tokens_per_second",
    "total_tokens": "num_input_tokens_seen",
}


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
    last_step, clock, before = 0, 0.0, 0.0
    for line in lines.objects:
        step = as_int(line.get("current_steps"))
        if step is None:
            bad += 1
            continue
        total = as_int(line.get("total_steps")) or total
        entry = {ours: line[theirs] for theirs, ours in _NAMES.items() if theirs in line}
        seconds = _seconds(line.get("elapsed_time"))
        # A start appends to the file, and its clock begins anew, also where it went on behind the last step.
        if step < last_step or (seconds is not None and seconds < clock):
            went_back.append(WentBack(last_step, step, source))
            before, clock = before + clock, 0.0
        last_step = step
        if seconds is not None:
            clock = seconds
            entry["elapsed_seconds"] = before + seconds
        points.add(step, entry)
    notes = (
        [Note(kind="lost", file=source, message=f"{bad} lines are damaged and were left out")] if bad else []
    )
    return TrainerLog(points.series(), total, went_back, notes)


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


# Reads the `trainer_state.json` of a run: the newest, and those of checkpoints that tell another story.

_COMPARED_BYTES = 64 << 20
"""Of all checkpoints together: beyond it only the newest is read."""
_DIFFERING = 2


class States(NamedTuple):
    """The state that counts, its series joined with those of an earlier start, and what was lost."""

    state: TrainerState | None
    series: dict[str, Series]
    went_back: list[WentBack]
    notes: list[Note]


def read_states(files: RunFiles) -> States:
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
    for path in files.states:
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
        return States(None, {}, [], notes)
    starts = [(_written(path_of_newest), newest.series)]
    if sum(path.stat().st_size for path in others) <= _COMPARED_BYTES:
        for path in others:
            other = read_trainer_state(path, files.name(path))
            if other is not None and _differs(newest.series, other.series):
                starts.append((_written(path), other.series))
                break
    # The top of the folder is written at the end of the last start; checkpoints say it by their time.
    if path_of_newest.parent != files.base:
        starts.sort(key=lambda start: start[0])
    else:
        starts.reverse()
    joined = join_starts([series for _, series in starts])
    return States(newest, joined.series, joined.went_back, notes)


def _written(path: Path) -> float:
    return path.stat().st_mtime


def _differs(newest: dict[str, Series], other: dict[str, Series]) -> bool:
    """Whether the last of the steps that both histories have were other steps: one alone may be damaged."""
    if "loss" not in newest or "loss" not in other:
        return False
    mine, theirs = newest["loss"], other["loss"]
    shared, here, there = np.intersect1d(mine.steps, theirs.steps, return_indices=True)
    if len(shared) < _DIFFERING:
        return False
    last, others = mine.values[here[-_DIFFERING:]], theirs.values[there[-_DIFFERING:]]
    return not bool(np.isclose(last, others, rtol=1e-9, equal_nan=True).any())
