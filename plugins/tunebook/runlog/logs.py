"""Finds the logs of a run that are not the Trainer's own files, and reads each: events, then consoles."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from tunebook.runlog.columns import merge
from tunebook.runlog.console import Console, read_console
from tunebook.runlog.tensorboard import read_events

if TYPE_CHECKING:
    from pathlib import Path

    from tunebook.runlog.records import Note, Series

_CONSOLES = ("*.log", "*.out", "*.err", "*.txt", "logs/*.log", "logs/*.out", "logs/*.err")


class Events(NamedTuple):
    """The scalars of all event files of a run."""

    series: dict[str, Series]
    notes: list[Note]


def read_event_files(folder: Path) -> Events:
    """Read every TensorBoard event file below a run folder; a restarted run continues in a later file.

    Raises:
        OSError: A file cannot be read.
    """
    read = [
        read_events(path, str(path.relative_to(folder)))
        for path in sorted(folder.rglob("events.out.tfevents.*"))
    ]
    # The closing evaluation, of the weights that were kept, has a file of its own: it must not overwrite
    # what the last step measured.
    curves = [events.series for events in read if any(len(one.steps) > 1 for one in events.series.values())]
    series = merge(curves or [events.series for events in read])
    return Events(series, [note for events in read for note in events.notes])


def read_consoles(folder: Path) -> list[Console]:
    """Read every console log in a run folder that a Trainer printed into, the longest first.

    Raises:
        OSError: A file cannot be read.
    """
    paths = {path for pattern in _CONSOLES for path in folder.glob(pattern) if path.is_file()}
    read = [read_console(path, str(path.relative_to(folder))) for path in sorted(paths)]
    found = [console for console in read if console is not None]
    return sorted(found, key=lambda console: -sum(len(one.steps) for one in console.series.values()))
