"""Reads LLaMA-Factory's `trainer_log.jsonl`, which holds losses and speed but no other metrics."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from tunebook.runlog.columns import Columns
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
    """The series of the file, the steps it was to take, and what was lost."""

    series: dict[str, Series]
    total_steps: int | None
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
    steps, entries = [], []
    for line in lines.objects:
        step = as_int(line.get("current_steps"))
        if step is None:
            bad += 1
            continue
        total = as_int(line.get("total_steps")) or total
        entry = {ours: line[theirs] for theirs, ours in _NAMES.items() if theirs in line}
        if seconds := _seconds(line.get("elapsed_time")):
            entry["elapsed_seconds"] = seconds
        steps.append(step)
        entries.append(entry)
    columns.add(steps, entries)
    notes = (
        [Note(kind="lost", file=source, message=f"{bad} lines are damaged and were left out")] if bad else []
    )
    return TrainerLog(columns.series(), total, notes)


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
