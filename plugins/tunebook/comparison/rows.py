"""Rows of one side: a run's records, or a file of predictions in any of the usual shapes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from tunebook.data.rows import iter_rows
from tunebook.errors import TunebookError
from tunebook.scoring.prediction_files import PREDICTION_COLUMNS, REFERENCE_COLUMNS, text_in
from tunebook.types import Score

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path


class Columns(NamedTuple):
    """Columns that the command line names; None for those to be found."""

    prediction: str | None = None
    reference: str | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """One answered example."""

    dataset: str
    index: int
    prompt: str
    """Empty where the file holds none."""
    prediction: str
    reference: str
    scores: Mapping[str, Any]
    """The verdicts that the run wrote down, by metric; empty for a file of predictions."""


def read_rows(path: Path, columns: Columns, on_bytes: Callable[[int], None] | None = None) -> Iterator[Row]:
    """Yield the rows of a file, one at a time.

    A row's number is its `index`, and without one its place in the file, from 0. The prompt is `prompt`; or
    `instruction` and `input`; or `history_titles` and `candidate_title`. A file of training rows
    (instruction, input, output) with predictions beside them has its reference in `output`.

    Raises:
        TunebookError: The file cannot be read, a column is missing or a value is no text.
    """
    found: Columns | None = None
    for place, values in enumerate(iter_rows(path, on_bytes=on_bytes)):
        if found is None:
            found = _columns(path, values, columns)
        index = values.get("index", place)
        scores = values.get("scores")
        yield Row(
            dataset=str(values.get("dataset", "")),
            index=_index(path, place, index),
            prompt=_prompt(values),
            prediction=text_in(path, place, values, str(found.prediction)),
            reference=text_in(path, place, values, str(found.reference)),
            scores=scores if isinstance(scores, dict) else {},
        )
    if found is None:
        raise TunebookError(f"{path} holds no rows", fix="name a file with one prediction a row")


def recorded_score(entry: Mapping[str, Any]) -> Score:
    """The verdict of one metric as a run wrote it down."""
    return Score(
        values={str(name): float(value) for name, value in entry.get("values", {}).items()},
        parsed=entry.get("parsed"),
        reference=entry.get("reference"),
        rule=entry.get("rule"),
        reason=entry.get("reason"),
    )


def _columns(path: Path, row: Mapping[str, Any], asked: Columns) -> Columns:
    # `output` is a prediction in some files and the reference in training rows: it is the prediction only
    # where no other column is, and the reference only where it is not the prediction.
    predictions = [*(name for name in PREDICTION_COLUMNS if name != "output"), "output"]
    prediction = _first(path, row, asked.prediction, predictions, "--prediction-column")
    references = [name for name in (*REFERENCE_COLUMNS, "output") if name != prediction]
    return Columns(prediction, _first(path, row, asked.reference, references, "--reference-column"))


def _first(path: Path, row: Mapping[str, Any], asked: str | None, usual: list[str], option: str) -> str:
    for name in [asked] if asked is not None else usual:
        if name in row:
            return name
    wanted = repr(asked) if asked is not None else " or ".join(map(repr, usual))
    raise TunebookError(
        f"{path} has no column {wanted}; it has {', '.join(map(repr, row))}",
        fix=f"name the right one with {option}",
    )


def _index(path: Path, place: int, value: object) -> int:
    if isinstance(value, str) and value.isdigit():
        return int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise TunebookError(
            f"{path}, row {place + 1}: index is {value!r}, which is no row number",
            fix="write whole numbers from 0, or leave the column out to number the rows as they stand",
        )
    return value


def _prompt(row: Mapping[str, Any]) -> str:
    if isinstance(row.get("prompt"), str):
        return str(row["prompt"])
    if "instruction" in row:
        return "\n".join(str(row[name]) for name in ("instruction", "input") if row.get(name))
    if "candidate_title" in row:
        history = row.get("history_titles") or []
        titles = history if isinstance(history, str) else "; ".join(map(str, history))
        user = f"user {row['user_id']}: " if "user_id" in row else ""
        return f"{user}watched {titles}\ncandidate: {row['candidate_title']}"
    return ""
