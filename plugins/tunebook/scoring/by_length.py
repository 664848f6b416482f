"""The figures of an evaluation by the length of what was asked and of what was wanted."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from tunebook.scoring.figures import metric_figures
from tunebook.types import EvalRecord, Metric

BOUNDS = (512, 2_048, 8_192, 32_768)
"""Tokens at which a bucket ends; the last one has no end."""


class RecordAndLength(NamedTuple):
    """A scored row with a length."""

    record: EvalRecord
    tokens: int


class Bucket(NamedTuple):
    """The figures of the rows of some lengths."""

    name: str
    """`<512`, `512-2k`, `2k-8k`, `8k-32k` or `32k+`."""
    n: int
    n_unparsed: int
    """Answers in which some metric found nothing to read; they count as wrong in the figures."""
    values: dict[str, float]
    """By the name a figure is reported under; one that these rows leave undefined is left out."""


def bucket_name(tokens: int, bounds: Sequence[int] = BOUNDS) -> str:
    """The bucket that a number of tokens belongs to.

    >>> [bucket_name(tokens) for tokens in (511, 512, 2_048, 32_767, 32_768)]
    ['<512', '512-2k', '2k-8k', '8k-32k', '32k+']
    """
    place = sum(tokens >= bound for bound in bounds)
    if place == 0:
        return f"<{_short(bounds[0])}"
    if place == len(bounds):
        return f"{_short(bounds[-1])}+"
    return f"{_short(bounds[place - 1])}-{_short(bounds[place])}"


def by_length(
    metrics: Sequence[Metric], rows: Iterable[RecordAndLength], bounds: Sequence[int] = BOUNDS
) -> list[Bucket]:
    """Compute every figure of every metric over the rows of each bucket.

    Args:
        metrics: Those of the set.
        rows: In any order.
        bounds: Where buckets end, ascending.

    Returns:
        Shortest first; a bucket that no row falls into is left out.
    """
    found: dict[int, list[EvalRecord]] = {}
    for row in rows:
        found.setdefault(sum(row.tokens >= bound for bound in bounds), []).append(row.record)
    starts = (0, *bounds)
    return [
        Bucket(
            name=bucket_name(starts[place], bounds),
            n=len(records),
            n_unparsed=sum(any(score.parsed is None for score in one.scores.values()) for one in records),
            values=_values(metrics, records),
        )
        for place, records in sorted(found.items())
    ]


def _values(metrics: Sequence[Metric], records: Sequence[EvalRecord]) -> dict[str, float]:
    return {name: value for name, value in metric_figures(metrics, records).items() if math.isfinite(value)}


def _short(tokens: int) -> str:
    return f"{tokens // 1024}k" if tokens >= 1024 and tokens % 1024 == 0 else str(tokens)
