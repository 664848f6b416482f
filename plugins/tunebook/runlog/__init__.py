"""Reads what a run left behind into one `RunLog`; each number keeps the name of its file."""

from tunebook.runlog.folder import read_run
from tunebook.runlog.records import Evaluation, Example, Note, RunLog, Series, Trainer

__all__ = ["Evaluation", "Example", "Note", "RunLog", "Series", "Trainer", "read_run"]
