"""Reads the files of a run into one `RunLog`; each number keeps the name of its file."""

from tunebook.runlog.folder import read_run
from tunebook.runlog.records import (
    EvaluatedExample,
    Evaluation,
    Note,
    Phase,
    Restart,
    RunLog,
    Series,
    SeriesPart,
    Sourced,
    TimeSeries,
    Trainer,
    WatchedGpu,
)

__all__ = [
    "EvaluatedExample",
    "Evaluation",
    "Note",
    "Phase",
    "Restart",
    "RunLog",
    "Series",
    "SeriesPart",
    "Sourced",
    "TimeSeries",
    "Trainer",
    "WatchedGpu",
    "read_run",
]
