"""Rows of a file of predictions: LLaMA-Factory's, our records, or any JSONL, JSON, CSV or Parquet.

Rows are read one at a time, so memory does not grow with the file.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from tunebook.data.rows import iter_rows
from tunebook.errors import TunebookError

PREDICTION_COLUMNS = ("predict", "prediction", "generated_text", "output", "response")
"""Looked for in this order; `predict` and `label` are LLaMA-Factory's `generated_predictions.jsonl`."""
REFERENCE_COLUMNS = ("label", "reference", "target", "answer", "gold")


class Row(NamedTuple):
    """One prediction with its reference."""

    number: int
    """From 0, in the order of the file."""
    prediction: str
    reference: str


def read_predictions(
    path: Path,
    *,
    prediction_column: str | None = None,
    reference_column: str | None = None,
    on_bytes: Callable[[int], None] | None = None,
) -> Iterator[Row]:
    """Yield the rows of a file.

    Args:
        prediction_column: None: the first of `PREDICTION_COLUMNS` that the first row has.
        reference_column: None: the first of `REFERENCE_COLUMNS` that the first row has.
        on_bytes: Called with the number of bytes read so far, where the format tells it.

    Raises:
        TunebookError: The file cannot be read, a line is no JSON object, a column is missing or a value
            is no text; each names file, row and column.
    """
    columns: tuple[str, str] | None = None
    for index, values in enumerate(_rows(path, on_bytes)):
        if columns is None:
            columns = (
                _column(path, values, prediction_column, PREDICTION_COLUMNS, "--prediction-column"),
                _column(path, values, reference_column, REFERENCE_COLUMNS, "--reference-column"),
            )
        yield Row(index, text_in(path, index, values, columns[0]), text_in(path, index, values, columns[1]))
    if columns is None:
        raise TunebookError(f"{path} holds no rows", fix="name a file with one prediction a row")


def _rows(path: Path, on_bytes: Callable[[int], None] | None) -> Iterator[Mapping[str, Any]]:
    if path.suffix == ".jsonl":
        return _jsonl_rows(path, on_bytes)
    if path.suffix in (".csv", ".json"):
        return iter_rows(path)
    if path.suffix == ".parquet":
        return _parquet_rows(path)
    raise TunebookError(
        f"cannot read predictions from {path}: its name ends in {path.suffix!r}",
        fix="name a .jsonl, .json, .csv or .parquet file",
    )


def _jsonl_rows(path: Path, on_bytes: Callable[[int], None] | None) -> Iterator[Mapping[str, Any]]:
    try:
        with path.open("rb") as stream:
            done = 0
            for number, line in enumerate(stream, 1):
                done += len(line)
                if line.strip():
                    yield _object(path, number, line)
                if on_bytes is not None:
                    on_bytes(done)
    except OSError as error:
        raise TunebookError(
            f"cannot read {path}: {error.strerror}", fix="name a file that exists and that you may read"
        ) from error


def _object(path: Path, number: int, line: bytes) -> Mapping[str, Any]:
    try:
        value = json.loads(line)
    except ValueError as error:  # JSONDecodeError and UnicodeDecodeError are both ones
        raise TunebookError(
            f"{path}, line {number}: not JSON: {error}", fix=f"mend or delete line {number}"
        ) from error
    if not isinstance(value, dict):
        raise TunebookError(
            f"{path}, line {number}: holds a {type(value).__name__}, not an object",
            fix="write one JSON object a line",
        )
    return value


def _parquet_rows(path: Path) -> Iterator[Mapping[str, Any]]:
    try:
        from pyarrow import ArrowInvalid, parquet
    except ImportError as error:
        raise TunebookError(
            f"reading {path} needs pyarrow, which is not installed",
            fix="`pip install pyarrow`, or convert the file to .jsonl",
        ) from error
    try:
        with parquet.ParquetFile(path) as table:
            for batch in table.iter_batches(batch_size=1024):
                yield from batch.to_pylist()
    except (OSError, ArrowInvalid) as error:
        raise TunebookError(f"cannot read {path}: {error}", fix="name a readable Parquet file") from error


def _column(
    path: Path, row: Mapping[str, Any], wanted: str | None, usual: tuple[str, ...], option: str
) -> str:
    candidates = (wanted,) if wanted is not None else usual
    for name in candidates:
        if name in row:
            return name
    raise TunebookError(
        f"{path} has no column {' or '.join(repr(name) for name in candidates)}; "
        f"it has {', '.join(repr(name) for name in row)}",
        fix=f"name the right one with {option}",
    )


def text_in(path: Path, index: int, row: Mapping[str, Any], column: str) -> str:
    """Return the text of one column; a number or a boolean is text as Python writes it.

    Args:
        path: The file, for the message.
        index: Number of the row, from 0.
        row: The row.
        column: Its column.

    Raises:
        TunebookError: The column is missing or holds something else.
    """
    value = row.get(column)
    if isinstance(value, str):
        return value
    if isinstance(value, bool | int | float):
        return str(value)
    found = "is missing" if column not in row else f"holds {json.dumps(value, default=str)[:60]}"
    raise TunebookError(
        f"{path}, row {index + 1}: column {column!r} {found}, which is no text",
        fix="write an empty string where a model said nothing",
    )
