"""Reads LLaMA-Factory's `trainer_log.jsonl`, which holds losses and speed but no other metrics."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from tunebook.runlog.columns import Columns
from tunebook.runlog.joining import WentBack
from tunebook.runlog.records import Note, Series
from tunebook.runlog.tolerant_json import as_int, read_lines

if TYPE_CHECKING:
    from pathlib import Path

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
    columns = Columns(source)
    lines = read_lines(path)
    total = None
    bad = lines.bad
    steps: list[int] = []
    entries: list[dict[str, Any]] = []
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
        steps.append(step)
        entries.append(entry)
    columns.add(steps, entries)
    notes = (
        [Note(kind="lost", file=source, message=f"{bad} lines are damaged and were left out")] if bad else []
    )
    return TrainerLog(columns.series(), total, went_back, notes)


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
