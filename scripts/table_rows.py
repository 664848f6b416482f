"""Rows of a data file of any common kind, one at a time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tunebook.data.rows import READABLE, TABLE_SUFFIXES, iter_rows, parquet_rows
from tunebook.errors import TunebookError

SUFFIXES = sorted(TABLE_SUFFIXES)

_BATCH_ROWS = 16
"""Few: a row may hold a document of a megabyte."""


def table_rows(path: Path) -> Iterator[Mapping[str, Any]]:
    """Yield the rows of a `.csv`, `.json`, `.jsonl` or `.parquet` file.

    Raises:
        TunebookError: The file cannot be read, or is of another kind.
    """
    if path.suffix == ".parquet":
        yield from parquet_rows(path, rows_at_a_time=_BATCH_ROWS)
    elif path.suffix in READABLE:
        yield from iter_rows(path)
    else:
        raise TunebookError(
            f"cannot read {path}: its name ends in {path.suffix!r}",
            fix=f"give a file whose name ends in {', '.join(SUFFIXES)}",
        )


def need_columns(path: Path, row: Mapping[str, Any], columns: Sequence[str], *, fix: str) -> None:
    """Stop unless a row has the columns.

    Raises:
        TunebookError: Names every column that is missing, and those that are there.
    """
    missing = [column for column in columns if column not in row]
    if missing:
        raise TunebookError(
            f"{path} has no column {' and no column '.join(map(repr, missing))}; "
            f"it has {', '.join(repr(name) for name in row)}",
            fix=fix,
        )
