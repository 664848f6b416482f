"""Reads what a run left behind into one `RunLog`; each number keeps the name of its file."""

from tunebook.runlog.folder import read_run
from tunebook.runlog.records import (
    Evaluation,
    Example,
    Gpu,
    Note,
    Part,
    Phase,
    Restart,
    RunLog,
    Series,
    Sourced,
    TimeSeries,
    Trainer,
)

__all__ = [
    "Evaluation",
    "Example",
    "Gpu",
    "Note",
    "Part",
    "Phase",
    "Restart",
    "RunLog",
    "Series",
    "Sourced",
    "TimeSeries",
    "Trainer",
    "read_run",
]
