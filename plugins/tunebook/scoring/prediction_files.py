"""Rows of a file of predictions: LLaMA-Factory's, our records, or any JSONL, JSON, CSV or Parquet.

Rows are read one at a time, so memory does not grow with the file.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from tunebook.data.rows import TABLE_SUFFIXES, iter_table
from tunebook.errors import TunebookError

PREDICTION_COLUMNS = (
    *("predict", "prediction", "generated_text", "output", "response", "resps", "output.completion"),
    *("model_output", "messages"),
)
"""Looked for in this order; `predict` and `label` are LLaMA-Factory's `generated_predictions.jsonl`, `resps`
and `target` lm-evaluation-harness's `samples_*.jsonl`, `output.completion` Inspect's."""
REFERENCE_COLUMNS = ("label", "reference", "target", "answer", "gold", "doc.answer")


class PredictionRow(NamedTuple):
    """One prediction with its reference."""

    number: int
    """From 0, in the order of the file."""
    prediction: str
    reference: str


@dataclass(slots=True)
class LeftOut:
    """Rows of a file that are not scored, counted as they pass."""

    without_reference: int = 0
    other_filters: int = 0
    """Of an lm-evaluation-harness file, which writes each answer once for each of its filters."""


def read_predictions(
    path: Path,
    *,
    prediction_column: str | None = None,
    reference_column: str | None = None,
    references: References | None = None,
    left_out: LeftOut | None = None,
    on_bytes: Callable[[int], None] | None = None,
) -> Iterator[PredictionRow]:
    """Yield the rows of a file.

    Args:
        path: The file. A JSON file may also be OpenCompass's predictions or an Inspect log.
        prediction_column: None: the first of `PREDICTION_COLUMNS` that the first row has. A dot leads into an
            object (`doc.answer`); a list of one is its element; of chat messages the last assistant's counts.
        reference_column: None: the first of `REFERENCE_COLUMNS` that the first row has.
        references: Where references are looked up instead, in another file.
        left_out: Counts rows without a reference, which are then left out; None: they are an error.
        on_bytes: Called with the number of bytes read so far, where the format shows it.

    Raises:
        TunebookError: The file cannot be read, a line is no JSON object, a column is missing or a value
            is no text; each names file, row and column.
    """
    prediction: str | None = None
    reference: str | None = reference_column
    first_filter = None
    for index, values in enumerate(_unwrapped(_rows(path, on_bytes))):
        if prediction is None:
            prediction = _column(path, values, prediction_column, PREDICTION_COLUMNS, "--prediction-column")
            if references is None:
                usual = REFERENCE_COLUMNS
                reference = _column(path, values, reference_column, usual, "--reference-column")
            first_filter = values.get("filter") if "filtered_resps" in values else None
        if first_filter is not None and values.get("filter") != first_filter:
            if left_out is not None:
                left_out.other_filters += 1
            continue
        wanted = references.of(path, index, values) if references else _at(values, str(reference))
        if left_out is not None and (wanted is None or (isinstance(wanted, str) and not wanted.strip())):
            left_out.without_reference += 1
            continue
        said = text_in(path, index, values, prediction)
        yield PredictionRow(
            index, said, _text(path, index, references.column if references else str(reference), wanted)
        )
    if prediction is None:
        raise TunebookError(f"{path} holds no rows", fix="name a file with one prediction a row")


class References:
    """References of a second file, found by a column that both files have.

    Raises:
        TunebookError: The file cannot be read, or two of its rows have one value of the column and different
            references.
    """

    def __init__(self, path: Path, join: str, column: str | None = None) -> None:
        self._path, self._join = path, join
        self._found: dict[str, Any] = {}
        self.column = column or ""
        for index, values in enumerate(_unwrapped(_rows(path, None))):
            if not self.column:
                self.column = _column(path, values, None, REFERENCE_COLUMNS, "--reference-column")
            key, value = text_in(path, index, values, join), _at(values, self.column)
            if self._found.setdefault(key, value) != value:
                raise TunebookError(
                    f"{path}, row {index + 1}: {join} {key!r} has two different references",
                    fix="join by a column that names each row once",
                )

    def of(self, path: Path, index: int, values: Mapping[str, Any]) -> Any:
        """Return the reference of a row of `path`; None where the second file has none."""
        return self._found.get(text_in(path, index, values, self._join))


def _unwrapped(rows: Iterator[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    """The rows inside one object: OpenCompass's `{"0": {...}, ...}`, or the `samples` of an Inspect log."""
    for row in rows:
        samples = row.get("samples")
        if isinstance(samples, list) and samples and all(isinstance(one, dict) for one in samples):
            yield from samples
        elif row and all(key.isdigit() and isinstance(value, dict) for key, value in row.items()):
            yield from (row[key] for key in sorted(row, key=int))
        else:
            yield row


def _at(values: Mapping[str, Any], column: str) -> Any:
    """The value of a column, or of a dotted path into objects; None where there is none.

    A list of one is its element, and of a list of chat messages the last assistant's text is taken.
    """
    found: Any = values.get(column)
    if found is None and "." in column:
        found = values
        for part in column.split("."):
            found = found.get(part) if isinstance(found, Mapping) else None
    while isinstance(found, list) and len(found) == 1 and not isinstance(found[0], Mapping):
        found = found[0]
    if (
        isinstance(found, list)
        and found
        and all(isinstance(one, Mapping) and "content" in one for one in found)
    ):
        said = [one["content"] for one in found if one.get("role") in ("assistant", "gpt", "model")]
        found = said[-1] if said else None
    return found


def _rows(path: Path, on_bytes: Callable[[int], None] | None) -> Iterator[Mapping[str, Any]]:
    if path.suffix not in TABLE_SUFFIXES:
        raise TunebookError(
            f"cannot read predictions from {path}: its name ends in {path.suffix!r}",
            fix="name a .jsonl, .json, .csv or .parquet file",
        )
    return iter_table(path, on_bytes=on_bytes)


def _column(
    path: Path, row: Mapping[str, Any], wanted: str | None, usual: tuple[str, ...], option: str
) -> str:
    candidates = (wanted,) if wanted is not None else usual
    for name in candidates:
        # An object of that name is not the text: Inspect has `output.completion`.
        if (name in row or _at(row, name) is not None) and not isinstance(row.get(name), Mapping):
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
    return _text(path, index, column, _at(row, column), missing=column not in row)


def _text(path: Path, index: int, column: str, value: Any, *, missing: bool = False) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, bool | int | float):
        return str(value)
    found = "is missing" if missing else f"holds {json.dumps(value, default=str)[:60]}"
    raise TunebookError(
        f"{path}, row {index + 1}: column {column!r} {found}, which is no text",
        fix="write an empty string where a model said nothing",
    )
