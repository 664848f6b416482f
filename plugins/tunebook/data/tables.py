"""Rows of a data file of any kind that holds rows: JSON, JSONL, CSV and Parquet, one at a time."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import orjson

from tunebook.data import rows
from tunebook.errors import TunebookError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

READABLE = rows.READABLE | {".parquet"}
"""Suffixes that `iter_table` reads."""

_PARQUET_ROWS = 256
"""Rows decoded at a time: some of them may be whole books."""


def iter_table(
    path: Path,
    *,
    on_bytes: Callable[[int], None] | None = None,
    on_broken: Callable[[int, str], None] | None = None,
) -> Iterator[dict[str, Any]]:
    """Yield the rows of a file.

    Args:
        path: Its name ends in one of `READABLE`.
        on_bytes: Called before each row with the bytes of the file read so far; Parquet's are estimated
            from its rows.
        on_broken: Called with the line number and what is wrong with a line of JSONL that is no object. The
            line is left out, and bytes that are no UTF-8 are replaced in any text file. None: both are
            errors.

    Raises:
        TunebookError: The file cannot be read, or a row is no object; names file and row.
    """
    if path.suffix not in READABLE:
        raise TunebookError(
            f"cannot read rows from {path}: its name ends in {path.suffix!r}",
            fix=f"convert it to one of {', '.join(sorted(READABLE))}",
        )
    if path.suffix == ".parquet":
        return _parquet_rows(path, on_bytes)
    if path.suffix == ".jsonl":
        return _jsonl_rows(path, on_bytes, on_broken)
    errors = "strict" if on_broken is None else "replace"
    return rows.iter_rows(path, errors=errors, on_bytes=on_bytes)


def _jsonl_rows(
    path: Path, on_bytes: Callable[[int], None] | None, on_broken: Callable[[int, str], None] | None
) -> Iterator[dict[str, Any]]:
    done = 0
    try:
        with path.open("rb") as stream:
            for number, line in enumerate(stream, 1):
                done += len(line)
                if on_bytes is not None:
                    on_bytes(done)
                if number == 1:
                    line = line.removeprefix(b"\xef\xbb\xbf")
                if not line.strip():
                    continue
                fault, row = _object(line, tolerant=on_broken is not None)
                if fault is None:
                    yield row
                elif on_broken is not None:
                    on_broken(number, fault)
                else:
                    raise TunebookError(f"{path}, line {number}: {fault}", fix="correct or delete the line")
    except OSError as error:
        raise TunebookError(
            f"{path}: cannot be read: {error.strerror}", fix="check the path and its rights"
        ) from error


def _object(line: bytes, *, tolerant: bool) -> tuple[str | None, dict[str, Any]]:
    """What is wrong with a line, and the object it holds."""
    try:
        value = orjson.loads(line)
    except orjson.JSONDecodeError:
        # orjson refuses NaN, lone surrogates and very large numbers, all of which the engines read.
        try:
            value = json.loads(line.decode("utf-8", errors="replace" if tolerant else "strict"))
        except UnicodeDecodeError as error:
            return f"is not UTF-8 text at byte {error.start} of the line", {}
        except ValueError as error:
            return f"is no JSON: {error}", {}
    if not isinstance(value, dict):
        return f"holds a {type(value).__name__}, not an object", {}
    return None, value


def _parquet_rows(path: Path, on_bytes: Callable[[int], None] | None) -> Iterator[dict[str, Any]]:
    try:
        from pyarrow import ArrowInvalid, parquet
    except ImportError as error:
        raise TunebookError(
            f"reading {path} needs pyarrow, which is not installed",
            fix="`pip install pyarrow`, or convert the file to .jsonl",
        ) from error
    try:
        size = path.stat().st_size
        with parquet.ParquetFile(path) as table:
            total, done = max(1, table.metadata.num_rows), 0
            for batch in table.iter_batches(batch_size=_PARQUET_ROWS):
                for row in batch.to_pylist():
                    done += 1
                    if on_bytes is not None:
                        on_bytes(size * done // total)
                    yield row
    except (OSError, ArrowInvalid) as error:
        raise TunebookError(f"cannot read {path}: {error}", fix="name a readable Parquet file") from error
