"""What has to be read inside rows: the column that groups them, the texts whose tokens are counted."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import orjson
import xxhash

from tunebook.errors import TunebookError
from tunebook.splits.options import GROUP_TABLE
from tunebook.splits.sources import SourceFile

Row = Mapping[str, Any]


def parse_rows(source: SourceFile, rows: Iterable[memoryview]) -> Iterator[Row]:
    """Yield each row as a mapping of its columns. The rows are those of a checked block.

    Raises:
        TunebookError: A row is no UTF-8 text, or no JSON after all.
    """
    try:
        if source.format == "csv":
            csv.field_size_limit(2**31 - 1)
            for fields in csv.reader(str(row, "utf-8") for row in rows):
                yield dict(zip(source.columns, fields, strict=True))
        else:
            for row in rows:
                yield orjson.loads(row)
    except UnicodeDecodeError as err:
        raise TunebookError(f"{source.path}: is not UTF-8 text", fix="save the file as UTF-8") from err
    except orjson.JSONDecodeError as err:
        raise TunebookError(
            f"{source.path}: a row is no JSON: {err}", fix="mend it; --check-json full tells the line"
        ) from err


def group_of(row: Row, column: str, where: str) -> int:
    """Return the group of a row, 0 to `GROUP_TABLE` - 1. Values are equal when their JSON is: 7 is not "7".

    Raises:
        TunebookError: The row, which messages call `where`, lacks the column.
    """
    if column not in row:
        raise TunebookError(
            f"{where}: there is no column {column!r} among {', '.join(map(repr, row))}",
            fix="name a column of every row with --group-by",
        )
    return xxhash.xxh3_64_intdigest(orjson.dumps(row[column], default=str)) % GROUP_TABLE


def text_of(row: Row, columns: tuple[str, ...]) -> str:
    """Return the texts of a row, one a line: of `columns`, or of all where none are named."""
    values = [row.get(column) for column in columns] if columns else row.values()
    found: list[str] = []
    for value in values:
        _collect(value, found)
    return "\n".join(found)


def _collect(value: Any, found: list[str]) -> None:
    if isinstance(value, str):
        found.append(value)
    elif isinstance(value, Mapping):
        for item in value.values():
            _collect(item, found)
    elif isinstance(value, list):
        for item in value:
            _collect(item, found)
