"""Reads the rows of a set as the engine does and measures them, some at a time."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from tunebook.data.tables import iter_table
from tunebook.errors import TunebookError
from tunebook.lengths.hub_sets import ARROW, iter_arrow
from tunebook.lengths.tally import Tally

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
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
# What Arrow, with which both engines read JSONL, takes for a date or a time.
_DATE = re.compile(r"\d{4}-\d\d-\d\d([ T]\d\d(:\d\d(:\d\d)?)?(Z|[+-]\d\d(:?\d\d)?)?)?")
_GUESSED = {".csv": (_NUMBER, "numbers"), ".jsonl": (_DATE, "dates")}
"""Texts that the engines read as something else where a column of such a file holds nothing else."""
_LOOKED_AT = 10_000
"""Rows from which the engines guess what a column holds."""


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
    for row in engine_rows(rows.files, rows.columns, rows.name, limit=limit, on_bytes=place.set):
        batch.append(row)
        if len(batch) == _BATCH_ROWS or place.bytes - place.batch_start > _BATCH_BYTES:
            on_bytes(place.bytes)
            yield measured(rows, batch, first)
            first, batch, place.batch_start = first + len(batch), [], place.bytes
    if batch:
        yield measured(rows, batch, first)
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

    def set(self, read: int) -> None:
        self.bytes = read


def measured(rows: RowSet, batch: Sequence[Row], first: int) -> Batch:
    """Return the lengths of some rows of a set.

    Raises:
        TunebookError: A row stops the engine, or cannot be measured; names the set and the row.
    """
    try:
        return rows.measure(batch, first)
    except TunebookError as err:
        raise TunebookError(f"{rows.name}, {err.problem}", fix=err.fix) from err


class FileReading:
    """Reads the rows of one file as the engine does, and finds what stops it in a whole column.

    Args:
        file: The engines guess types for the columns of CSV and JSONL.
        columns: Without one of these the engine stops.
        name: Of the set, for messages.
    """

    def __init__(self, file: Path, columns: Sequence[str], name: str) -> None:
        self._file, self._name = file, name
        self._missing = set(columns)
        self._csv = file.suffix == ".csv"
        self._guessed = _GUESSED.get(file.suffix)
        self._columns = tuple(columns) if self._guessed else ()
        self._texts, self._others = set[str](), set[str]()
        self._rows = 0

    def read(self, row: Row) -> Row:
        """Return a row as the engine sees it.

        Raises:
            TunebookError: It has more fields than the header, or a column of text holds nothing that the
                engine reads as text.
        """
        self._rows += 1
        if self._missing:
            self._missing -= row.keys()
        if self._csv:
            if None in row:
                raise TunebookError(
                    f"{self._file}, row {self._rows}: has more fields than the header, on which the engines "
                    "stop",
                    fix="mend the row",
                )
            row = as_engine_reads(row)
        if self._rows <= _LOOKED_AT:
            self._look(row)
        return row

    def finish(self) -> None:
        """Look at the file as a whole.

        Raises:
            TunebookError: A column is missing from every row, or as in `read`.
        """
        if self._rows and self._missing:
            raise TunebookError(
                f"{self._file} has no column {', '.join(sorted(self._missing))}, without which the engine "
                "stops",
                fix=f"name the columns it has where {self._name} is described",
            )
        self._refuse()

    def _look(self, row: Row) -> None:
        if self._guessed is None:
            return
        for name in self._columns:
            value = row.get(name)
            if isinstance(value, str) and name not in self._texts:
                (self._others if self._guessed[0].fullmatch(value) else self._texts).add(name)
        if self._rows == _LOOKED_AT:
            self._refuse()

    def _refuse(self) -> None:
        found = sorted(self._others - self._texts)
        if found and self._guessed is not None:
            kind = self._guessed[1]
            raise TunebookError(
                f"{self._file}: the column {found[0]!r} holds nothing but {kind}, so the engines read it as "
                f"{kind}, and drop the rows or stop",
                fix="convert the file to Parquet, with a column of text",
            )


def engine_rows(
    files: Sequence[Path],
    columns: Sequence[str],
    name: str,
    *,
    limit: int | None = None,
    on_bytes: Callable[[int], None] | None = None,
) -> Iterator[Row]:
    """Yield the rows of a set as the engine sees them, in order.

    Args:
        files: Of the set.
        columns: Without one of these the engine stops.
        name: Of the set, for messages.
        limit: Rows to read, from the first.
        on_bytes: Called with the bytes read so far.

    Raises:
        TunebookError: A file cannot be read, a column is missing, or a row stops the engine.
    """
    done = count = 0
    for file in files:
        reading = FileReading(file, columns, name)

        def report(read: int, at_start: int = done) -> None:
            if on_bytes is not None:
                on_bytes(at_start + read)

        source = iter_arrow(file) if file.suffix == ARROW else iter_table(file, on_bytes=report)
        for row in source:
            if limit is not None and count >= limit:
                return
            count += 1
            yield reading.read(row)
        reading.finish()
        done += file.stat().st_size
