"""The rows on which two models differ: which they are, and their texts, cut to what a reader takes in."""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import chain, zip_longest
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from tunebook.comparison.records import ComparedAnswer, Disagreement
from tunebook.comparison.rows import read_answered_rows
from tunebook.comparison.tables import verdict_of
from tunebook.text import SPECIAL_TOKENS, both_ends, cut

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from tunebook.comparison.rows import AnsweredRow, Columns
    from tunebook.comparison.tables import PairedVerdicts
    from tunebook.types import Metric

KEPT = 1000
"""Disagreements that go into the files; the counts are of all."""

_ROLES = re.compile(r"\A\s*(?:user|human)\n|\s*(?:assistant|model)\s*(?:<think>\s*</think>)?\s*\Z")


class Flips(NamedTuple):
    """Indexes of the rows on which the second model does better and worse, the largest differences first."""

    better: NDArray[np.int64]
    worse: NDArray[np.int64]


def flips_of(pair: PairedVerdicts, figure: str, *, larger_is_better: bool) -> Flips:
    """Find the rows on which a figure differs."""
    gain = (pair.second[figure] - pair.first[figure]) * (1 if larger_is_better else -1)
    gain = np.nan_to_num(gain, nan=0.0)
    # Stable, so that equal differences stay in the order of their index.
    return Flips(
        better=_largest_first(pair.index[gain > 0], gain[gain > 0]),
        worse=_largest_first(pair.index[gain < 0], -gain[gain < 0]),
    )


def _largest_first(index: NDArray[np.int64], size: NDArray[np.float64]) -> NDArray[np.int64]:
    return index[np.argsort(-size, kind="stable")]


def kept_of(flips: Flips) -> list[int]:
    """The rows to show, both directions in turn, as many as are kept."""
    turns = zip_longest(flips.worse[:KEPT].tolist(), flips.better[:KEPT].tolist())
    return [index for index in chain.from_iterable(turns) if index is not None][:KEPT]


def read_texts(
    path: Path, columns: Columns, dataset: str | None, wanted: Collection[int], *, cut_prompts: bool = True
) -> dict[int, AnsweredRow]:
    """Read the rows of these indexes again; of an index that is there twice, the later row counts.

    Args:
        path: The file.
        columns: As for `read_answered_rows`.
        dataset: Only rows of this dataset; None for all.
        wanted: Row indexes.
        cut_prompts: Keep of each prompt what is shown, since a thousand long documents fill a memory.
    """
    if not wanted:
        return {}
    return {
        row.index: replace(row, prompt=_shown_prompt(row.prompt)) if cut_prompts else row
        for row in read_answered_rows(path, columns)
        if row.index in wanted and dataset in (None, row.dataset)
    }


class AnswerTexts(NamedTuple):
    """One side's rows by index, and how they are judged."""

    path: Path
    rows: Mapping[int, AnsweredRow]


def disagreements_of(
    kept: Sequence[int],
    better: Collection[int],
    first: AnswerTexts,
    second: AnswerTexts,
    metric: Metric,
    figure: str,
    *,
    recorded: bool,
) -> tuple[Disagreement, ...]:
    """The kept rows with their texts and verdicts."""

    def answer(side: AnswerTexts, index: int) -> ComparedAnswer:
        row = side.rows[index]
        score = verdict_of(metric, row, side.path, recorded=recorded)
        parsed = score.parsed
        return ComparedAnswer(
            prediction=both_ends(row.prediction),
            parsed=None if parsed is None else both_ends(parsed),
            value=score.values[figure],
        )

    return tuple(
        Disagreement(
            index=index,
            kind="better" if index in better else "worse",
            prompt=first.rows[index].prompt or second.rows[index].prompt,
            reference=both_ends(first.rows[index].reference),
            first=answer(first, index),
            second=answer(second, index),
        )
        for index in kept
    )


def _shown_prompt(prompt: str) -> str:
    """What was asked, without special tokens and without the opening of the answer."""
    return cut(_ROLES.sub("", SPECIAL_TOKENS.sub("", prompt)).strip())
