"""Reads what tunebook wrote down of a run: each start (run-1.json, ..., run.json), its process, its end."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, NamedTuple

from tunebook.runlog.records import Note
from tunebook.runlog.tolerant_json import read_object

if TYPE_CHECKING:
    from pathlib import Path

_EARLIER = re.compile(r"run-(\d+)\.json")


class OwnRecords(NamedTuple):
    """Our records of a run, each empty where it left none."""

    run: dict[str, Any]
    """`run.json`, of the latest start."""
    starts: list[tuple[str, dict[str, Any]]]
    """File and record of every start, the earliest first."""
    process: dict[str, Any]
    finished: dict[str, Any]
    notes: list[Note]


def read_own_records(folder: Path) -> OwnRecords:
    """Read the records in a run's `tunebook` folder.

    Raises:
        OSError: A file cannot be read.
    """
    notes: list[Note] = []
    numbered = sorted(
        (int(m[1]), path) for path in folder.glob("run-*.json") if (m := _EARLIER.fullmatch(path.name))
    )
    starts = []
    for path in [*(path for _, path in numbered), folder / "run.json"]:
        record = _read(path, notes)
        if record:
            starts.append((f"tunebook/{path.name}", record))
    run = starts[-1][1] if starts and starts[-1][0] == "tunebook/run.json" else {}
    return OwnRecords(
        run=run,
        starts=starts,
        process=_read(folder / "process.json", notes),
        finished=_read(folder / "finished.json", notes),
        notes=notes,
    )


def _read(path: Path, notes: list[Note]) -> dict[str, Any]:
    if not path.is_file():
        return {}
    found = read_object(path)
    if found is None:
        notes.append(
            Note(kind="lost", file=f"tunebook/{path.name}", message="damaged; nothing could be read")
        )
        return {}
    return found
