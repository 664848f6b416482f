"""Reads the rows of a set as the engine does and measures them, some at a time."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from tunebook.errors import TunebookError
from tunebook.lengths.tally import Tally
from tunebook.table_files import iter_table

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from pathlib import Path

    from tunebook.lengths.batches import Batch
    from tunebook.lengths.sets import RowSet

Row = dict[str, Any]

_BATCH_ROWS = 1000
_BATCH_BYTES = 4 << 20

# What pandas, with which both engines read CSV, takes for an empty cell: STR_NA_VALUES in its parsers.pyx.
_EMPTY_CELLS = frozenset(
    {
        *("", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN"),
        *("<NA>", "N/A", "NA", "NULL", "NaN", "None", "n/a", "nan", "null"),
    }
)
_NUMBER = re.compile(r"\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*|(?i:true|false|[+-]?inf(inity)?)")
_LOOKED_AT = 10_000
"""Rows from which the engines' CSV reader guesses what a column holds."""


def measure(rows: RowSet, *, max_rows: int | None, on_bytes: Callable[[int], None]) -> Tally:
    """Return the lengths of a set.

    Args:
        rows: The set.
        max_rows: Rows to read, from the first; None for as many as the engine does.
        on_bytes: Called with the bytes read so far.

    Raises:
        TunebookError: A file cannot be read, a column is missing, or a row stops the engine.
    """
    tally = Tally(rows.measure.form, rows.rule, rows.limit)
    for batch in iter_batches(rows, max_rows=max_rows, on_bytes=on_bytes):
        tally.add(batch)
    return tally


def iter_batches(rows: RowSet, *, max_rows: int | None, on_bytes: Callable[[int], None]) -> Iterator[Batch]:
    """Yield the rows of a set, measured; see `measure`."""
    limit = min((bound for bound in (max_rows, rows.limit_rows) if bound is not None), default=None)
    first, batch = 1, list[Row]()
    place = _Place()
    for row in _iter_rows(rows, limit, place, on_bytes):
        batch.append(row)
        if len(batch) == _BATCH_ROWS or place.bytes - place.batch_start > _BATCH_BYTES:
            yield _measured(rows, batch, first)
            first, batch, place.batch_start = first + len(batch), [], place.bytes
    if batch:
        yield _measured(rows, batch, first)
    elif first == 1:
        raise TunebookError(
            f"{rows.name}: {', '.join(map(str, rows.files))} has no rows", fix="name a file with rows"
        )


def as_engine_reads(row: Mapping[str, Any]) -> Row:
    """Return a row of a CSV file as both engines read it: some words stand for an empty cell.

    >>> as_engine_reads({"question": "Which group?", "answer": "NA"})
    {'question': 'Which group?', 'answer': None}
    """
    return {key: None if value in _EMPTY_CELLS else value for key, value in row.items()}


class _Place:
    """Bytes read: of the files so far, and where the batch began."""

    def __init__(self) -> None:
        self.bytes = self.batch_start = 0


def _measured(rows: RowSet, batch: list[Row], first: int) -> Batch:
    try:
        return rows.measure(batch, first)
    except TunebookError as err:
        raise TunebookError(f"{rows.name}, {err.problem}", fix=err.fix) from err


class _NumberColumns:
    """Finds columns of a CSV file that hold nothing but numbers, from the rows that the engines guess by."""

    def __init__(self, file: Path, columns: Iterable[str]) -> None:
        self._file, self._texts, self._numbers = file, set[str](), set[str]()
        self._columns = tuple(columns)
        self._rows = 0

    def look(self, row: Row) -> None:
        """Look at a row of the file."""
        self._rows += 1
        if self._rows > _LOOKED_AT:
            return
        for name in self._columns:
            value = row.get(name)
            if value is not None and name not in self._texts:
                (self._numbers if _NUMBER.fullmatch(value) else self._texts).add(name)
        if self._rows == _LOOKED_AT:
            self.refuse()

    def refuse(self) -> None:
        """Raise TunebookError if there is one."""
        found = sorted(self._numbers - self._texts)
        if found:
            raise TunebookError(
                f"{self._file}: the column {found[0]!r} holds nothing but numbers, so the engines read it as "
                "numbers, and drop the rows or stop",
                fix="convert the file to JSONL, with the numbers in quotes",
            )


def _iter_rows(
    rows: RowSet, limit: int | None, place: _Place, on_bytes: Callable[[int], None]
) -> Iterator[Row]:
    done = count = 0
    for file in rows.files:
        missing, numbers = set(rows.columns), _NumberColumns(file, rows.columns)
        at_start, before = done, count

        def report(read: int, at_start: int = at_start) -> None:
            place.bytes = at_start + read
            on_bytes(place.bytes)

        for row in iter_table(file, on_bytes=report):
            if limit is not None and count >= limit:
                return
            count += 1
            if file.suffix == ".csv":
                row = as_engine_reads(row)
                numbers.look(row)
            if missing:
                missing -= row.keys()
            yield row
        if count > before and missing:
            raise TunebookError(
                f"{file} has no column {', '.join(sorted(missing))}, without which LLaMA-Factory stops",
                fix=f'name the columns it has under "columns" of {rows.name}',
            )
        numbers.refuse()
        done += file.stat().st_size
