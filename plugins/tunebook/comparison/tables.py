"""Verdicts of one side as columns of numbers: no text is kept, so a million rows fit in memory.

Texts are kept as 64-bit hashes, enough to see whether two of this process are equal.
"""

from __future__ import annotations

import math
from array import array
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from tunebook import types
from tunebook.comparison.rows import read_answered_rows, recorded_score
from tunebook.errors import TunebookError
from tunebook.text import SPECIAL_TOKENS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from tunebook.comparison.rows import AnsweredRow, Columns
    from tunebook.types import Metric, Score

UNPARSED = types.UNPARSED.name
"""The column, and the figure that is its mean, of whether an answer could not be read."""

_NAMED = 64
"""Distinct canonical references whose text is kept; data with more have no classes."""
_LONGEST_NAME = 64


class Verdicts:
    """What one metric says about each row."""

    def __init__(self) -> None:
        self.parsed = array("q")
        self.references = array("q")
        self.values: dict[str, array[float]] = {UNPARSED: array("d")}
        self.names: dict[int, str] = {}

    def add(self, score: Score) -> None:
        """Take in the verdict on the next row."""
        rows = len(self.parsed)
        self.parsed.append(hash(score.parsed or ""))
        self.references.append(self._named(score.reference))
        for name in score.values.keys() - self.values.keys():
            self.values[name] = array("d", [math.nan]) * rows
        for name, column in self.values.items():
            column.append(score.values.get(name, math.nan))
        self.values[UNPARSED][-1] = float(score.parsed is None)

    def _named(self, reference: str | None) -> int:
        if reference is None:
            return 0
        code = hash(reference)
        if len(self.names) <= _NAMED and len(reference) <= _LONGEST_NAME:
            self.names[code] = reference
        return code


class Table:
    """The rows of one side on one dataset."""

    def __init__(self, metrics: Sequence[Metric]) -> None:
        self.index = array("q")
        self.prompts = array("q")
        self.references = array("q")
        self.predictions = array("q")
        self.prompt_lengths = array("q")
        self.reference_lengths = array("q")
        self.verdicts = {metric.name: Verdicts() for metric in metrics}

    def add(self, row: AnsweredRow) -> None:
        """Take in what is known of a row without a metric."""
        self.index.append(row.index)
        self.prompts.append(hash(row.prompt))
        self.references.append(hash(row.reference.strip()))
        self.predictions.append(hash(SPECIAL_TOKENS.sub("", row.prediction).strip()))
        self.prompt_lengths.append(len(row.prompt))
        self.reference_lengths.append(len(row.reference))


def verdict_of(metric: Metric, row: AnsweredRow, path: Path, *, recorded: bool) -> Score:
    """The verdict of a metric on a row: as the run wrote it down, or made now.

    Raises:
        TunebookError: The record has no verdict of that metric, or the reference cannot be used.
    """
    where = f"{path}: row {row.index}" + (f" of {row.dataset}" if row.dataset else "")
    try:
        return (
            recorded_score(row.scores[metric.name])
            if recorded
            else metric.score(row.prediction, row.reference)
        )
    except KeyError as err:
        raise TunebookError(
            f"{where} has no verdict of {metric.name}",
            fix="evaluate the step again, or delete the record",
        ) from err
    except (ValueError, TypeError, AttributeError) as err:
        raise TunebookError(
            f"{where} cannot be judged by {metric.name}: {err}",
            fix="correct that row, or choose the metric that fits these data with --metric",
        ) from err


def read_tables(
    path: Path,
    columns: Columns,
    metrics: Sequence[Metric],
    *,
    recorded: bool,
    on_bytes: Callable[[int], None] | None = None,
) -> dict[str, Table]:
    """Read a file into one table a dataset.

    Raises:
        TunebookError: As `read_answered_rows` and `verdict_of`.
    """
    tables: dict[str, Table] = {}
    for row in read_answered_rows(path, columns, on_bytes):
        table = tables.get(row.dataset)
        if table is None:
            table = tables[row.dataset] = Table(metrics)
        table.add(row)
        for metric in metrics:
            table.verdicts[metric.name].add(verdict_of(metric, row, path, recorded=recorded))
    return tables


@dataclass(frozen=True, slots=True)
class Matched:
    """The rows that both sides have, in the order of their index."""

    index: NDArray[np.int64]
    first: NDArray[np.int64]
    """Places of these rows in the first table."""
    second: NDArray[np.int64]
    only_in_first: int
    only_in_second: int
    other_references: NDArray[np.int64]
    """Indexes of rows whose references differ."""
    other_prompts: NDArray[np.int64]
    """Indexes of rows whose prompts differ, where both have one."""


def match(first: Table, second: Table) -> Matched:
    """Match two tables by row index. Of an index that is there twice on a side, the later row counts."""
    known = [_last_places(table.index) for table in (first, second)]
    index, at_first, at_second = np.intersect1d(
        known[0].indexes, known[1].indexes, assume_unique=True, return_indices=True
    )
    places = known[0].places[at_first], known[1].places[at_second]

    def differ(one: array[int], other: array[int]) -> NDArray[np.bool_]:
        found: NDArray[np.bool_] = _column(one)[places[0]] != _column(other)[places[1]]
        return found

    without = hash("")
    both_prompted = (_column(first.prompts)[places[0]] != without) & (
        _column(second.prompts)[places[1]] != without
    )
    return Matched(
        index=index,
        first=places[0],
        second=places[1],
        only_in_first=len(known[0].indexes) - len(index),
        only_in_second=len(known[1].indexes) - len(index),
        other_references=index[differ(first.references, second.references)],
        other_prompts=index[differ(first.prompts, second.prompts) & both_prompted],
    )


class _Places(NamedTuple):
    indexes: NDArray[np.int64]
    places: NDArray[np.int64]


def _last_places(index: array[int]) -> _Places:
    column = _column(index)
    unique, place_from_the_end = np.unique(column[::-1], return_index=True)
    return _Places(unique, len(column) - 1 - place_from_the_end)


def _column(values: array[int]) -> NDArray[np.int64]:
    return np.frombuffer(values, dtype=np.int64)


@dataclass(frozen=True, slots=True, kw_only=True)
class PairedVerdicts:
    """One metric's verdicts on the matched rows, both sides in the same order."""

    index: NDArray[np.int64]
    first: Mapping[str, NDArray[np.float64]]
    """By figure; NaN where a row has none."""
    second: Mapping[str, NDArray[np.float64]]
    first_parsed: NDArray[np.int64]
    second_parsed: NDArray[np.int64]
    classes: NDArray[np.int64]
    """Hash of the canonical reference; 0 where there is none."""
    names: Mapping[int, str]
    """Hash -> canonical reference; of at most the first few distinct ones."""
    lengths: NDArray[np.int64]
    """Characters of the prompt, or of the reference where there are no prompts."""
    lengths_of: str
    other_texts: NDArray[np.bool_]
    """Whether the two answers differ as texts; special tokens and space around them do not count."""


def pair(metric: str, first: Table, second: Table, matched: Matched) -> PairedVerdicts:
    """The verdicts of a metric on the rows that both tables have."""
    one, other = first.verdicts[metric], second.verdicts[metric]
    names = one.values.keys() & other.values.keys()
    lengths, of = _column(first.prompt_lengths)[matched.first], "prompt characters"
    if not lengths.any():
        lengths, of = _column(first.reference_lengths)[matched.first], "reference characters"
    return PairedVerdicts(
        index=matched.index,
        first={name: np.frombuffer(one.values[name])[matched.first] for name in names},
        second={name: np.frombuffer(other.values[name])[matched.second] for name in names},
        first_parsed=_column(one.parsed)[matched.first],
        second_parsed=_column(other.parsed)[matched.second],
        classes=_column(one.references)[matched.first],
        names=one.names,
        lengths=lengths,
        lengths_of=of,
        other_texts=_column(first.predictions)[matched.first] != _column(second.predictions)[matched.second],
    )
