"""Which row of which file a hashed row is, in a few numbers for each row that was left out before it."""

from __future__ import annotations

from bisect import bisect_right
from typing import NamedTuple

from tunebook.checks.data_audit.findings import Place


class _Run(NamedTuple):
    """Rows that follow each other in one file."""

    first: int
    """Index of the first one."""
    file: str
    row: int
    """Its row."""


class RowPlaces:
    """The places of rows that were taken in in order."""

    def __init__(self) -> None:
        self._runs: list[_Run] = []
        self._count = 0
        self._last: Place | None = None

    def add(self, place: Place) -> None:
        """Take the next row in."""
        assert place.row is not None
        last = self._last
        if last is None or last.file != place.file or last.row != place.row - 1:
            self._runs.append(_Run(self._count, place.file, place.row))
        self._count, self._last = self._count + 1, place

    def place(self, index: int, *, same_as: str | None = None) -> Place:
        """Where the row of that index stands."""
        run = self._runs[bisect_right(self._runs, index, key=lambda run: run.first) - 1]
        return Place(run.file, run.row + index - run.first, None, same_as)
