"""Intervals, paired comparison of two runs, and the count of why answers were unparsed.

Tested for equality with scipy and statsmodels, neither of which is needed to run. A figure
that is not defined for its data raises `UndefinedFigureError`; an aggregate leaves it out.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tunebook.types import Score

_CHUNK = 4_000_000
"""Resampled values held at once: 32 MB of float64, whatever the number of examples."""


class UndefinedFigureError(ValueError):
    """The figure has no value for these data, e.g. AUROC where every reference is yes."""


class Interval(NamedTuple):
    """A two-sided confidence interval, in the unit of its figure."""

    low: float
    high: float


def wilson(successes: int, n: int, *, confidence: float = 0.95) -> Interval:
    """Wilson's score interval of a proportion.

    Source: Wilson (1927), "Probable inference, the law of succession, and statistical inference".

    >>> wilson(1055, 1319)
    Interval(low=0.7773824951720413, high=0.8205505411823376)
    """
    if not 0 <= successes <= n or n == 0:
        raise ValueError(f"a proportion needs 0 <= successes <= n and n > 0, not {successes} of {n}")
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    p = successes / n
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    # Rounding may leave 1e-17 where the bound is exactly 0 or 1.
    return Interval(0.0 if successes == 0 else centre - half, 1.0 if successes == n else centre + half)


def bootstrap_mean(
    values: ArrayLike, *, seed: int = 0, resamples: int = 2000, confidence: float = 0.95
) -> Interval:
    """Percentile bootstrap interval of a mean; the same for the same values, seed and resamples."""
    means = _resampled_means(column_of(values), seed=seed, resamples=resamples)
    return _percentiles(means, confidence)


def standard_error(values: ArrayLike) -> float:
    """Standard error of the mean.

    Raises:
        UndefinedFigureError: There are fewer than two values.
    """
    column = column_of(values)
    if len(column) < 2:
        raise UndefinedFigureError("a standard error needs two values")
    return float(column.std(ddof=1) / math.sqrt(len(column)))


def column_of(values: ArrayLike) -> NDArray[np.float64]:
    """One non-empty column of floats.

    Raises:
        ValueError: It is empty or not one-dimensional.
    """
    column = np.asarray(values, dtype=np.float64)
    if column.ndim != 1 or not len(column):
        raise ValueError(f"one non-empty column of numbers is needed, not shape {column.shape}")
    return column


def _resampled_means(column: NDArray[np.float64], *, seed: int, resamples: int) -> NDArray[np.float64]:
    generator = np.random.default_rng(seed)
    n = len(column)
    rows = max(1, _CHUNK // n)
    parts = []
    for done in range(0, resamples, rows):
        picks = generator.integers(0, n, size=(min(rows, resamples - done), n))
        parts.append(column[picks].mean(axis=1))
    return np.concatenate(parts)


def _percentiles(means: NDArray[np.float64], confidence: float) -> Interval:
    low, high = np.quantile(means, [0.5 - confidence / 2, 0.5 + confidence / 2])
    return Interval(float(low), float(high))


def mcnemar(only_first: int, only_second: int) -> float:
    """Exact two-sided McNemar p-value.

    Args:
        only_first: Examples that only the first run got right.
        only_second: Examples that only the second run got right.

    Source: McNemar (1947); exact by the binomial, so that it holds for few disagreements.
    """
    n, k = only_first + only_second, min(only_first, only_second)
    if n == 0 or only_first == only_second:
        return 1.0
    # In logarithms: 2**n leaves the floats' range beyond 1,023 disagreements.
    log_half_n = n * math.log(0.5)
    terms = (
        math.lgamma(n + 1) - math.lgamma(i + 1) - math.lgamma(n - i + 1) + log_half_n for i in range(k + 1)
    )
    return min(1.0, 2 * math.fsum(math.exp(term) for term in terms))


class Difference(NamedTuple):
    """Mean of the second run minus mean of the first over the same examples."""

    mean: float
    interval: Interval


def paired_bootstrap(
    first: ArrayLike, second: ArrayLike, *, seed: int = 0, resamples: int = 2000, confidence: float = 0.95
) -> Difference:
    """Difference of two runs on the same examples, with the percentile interval over resampled examples."""
    before, after = column_of(first), column_of(second)
    if before.shape != after.shape:
        raise ValueError(f"paired runs need the same examples: {len(before)} and {len(after)}")
    differences = after - before
    means = _resampled_means(differences, seed=seed, resamples=resamples)
    return Difference(float(differences.mean()), _percentiles(means, confidence))


def unparsed_reasons(scores: Sequence[Score]) -> dict[str, int]:
    """How often each reason kept an answer from being read, the most frequent first."""
    return dict(Counter(score.reason for score in scores if score.reason is not None).most_common())


def counts_by_rule(scores: Sequence[Score]) -> dict[str, int]:
    """How many answers each rule read, the most frequent first."""
    return dict(Counter(score.rule for score in scores if score.rule is not None).most_common())
