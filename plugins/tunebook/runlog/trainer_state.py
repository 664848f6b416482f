"""Reads `trainer_state.json`, whole or cut off, of any length, without holding its entries."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, NamedTuple

import orjson

from tunebook.runlog.columns import Columns
from tunebook.runlog.records import Note, Series, Trainer
from tunebook.runlog.tolerant_json import as_float, as_int, loads

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

# Entries of log_history are flat objects; the Trainer writes nothing nested into them.
_ENTRY = re.compile(rb"\{[^{}]*\}")
_START = re.compile(rb'"log_history"\s*:\s*\[')
_BLOCK = 1 << 22
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
    data = path.read_bytes()
    columns = Columns(source)
    summary: dict[str, float] = {}
    start = _START.search(data)
    end = start.end() if start else len(data)
    entries = 0
    for entry, after in _entries(data, end) if start else ():
        end = after
        entries += 1
        _take(entry, columns, summary)
    facts = _facts(data[: start.end()] + data[end:] if start else data)
    if facts is None:
        facts = _salvage(data[: start.start()] if start else data)
        if not facts and not entries:
            return None
        notes = [
            Note(kind="lost", file=source, message=f"cut off after {entries} log entries; the rest is lost")
        ]
    else:
        notes = []
    return TrainerState(columns.series(), _trainer(facts, source), summary, notes)


def _entries(data: bytes, position: int) -> Iterator[tuple[dict[str, Any], int]]:
    """Entries from `position` on, each with where it ends; stops where the list does."""
    while True:
        block_end = min(position + _BLOCK, len(data))
        found, after = [], position
        for match in _ENTRY.finditer(data, position, block_end):
            if data[after : match.start()].strip(b" \t\r\n,"):
                break
            found.append(match.group())
            after = match.end()
        if not found:
            return
        for entry in loads(b"[" + b",".join(found) + b"]"):
            yield entry, after
        position = after


def _take(entry: Mapping[str, Any], columns: Columns, summary: dict[str, float]) -> None:
    step = as_int(entry.get("step"))
    if entry.keys() >= _SUMMARY_KEYS:
        for name, value in entry.items():
            if (number := as_float(value)) is not None and name != "step":
                summary[name] = number
    elif step is not None:
        columns.add(step, {name: value for name, value in entry.items() if name != "step"})


def _facts(data: bytes) -> dict[str, Any] | None:
    try:
        facts = loads(data)
    except ValueError:
        return None
    return facts if isinstance(facts, dict) else None


def _salvage(head: bytes) -> dict[str, Any]:
    """Facts that stand before the entries of a file without an end."""
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
    name = checkpoint.rstrip("/").rsplit("/", 1)[-1] if isinstance(checkpoint, str) else None
    step = as_int(facts.get("best_global_step"))
    if step is None and name and name.startswith("checkpoint-"):
        step = as_int(name.removeprefix("checkpoint-"))
    return Trainer(
        source=source,
        global_step=as_int(facts.get("global_step")),
        max_steps=as_int(facts.get("max_steps")),
        epochs=as_float(facts.get("num_train_epochs")),
        best_metric=as_float(facts.get("best_metric")),
        best_step=step,
        best_checkpoint=name,
    )
