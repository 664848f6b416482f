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


NORMAL_ABOVE = 50_000
"""Examples beyond which a paired mean is tested by its standard error: the bootstrap says the same there."""


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
    Interval(low=0.7773986203493057, high=0.8205566332645113)
    """
    if not 0 <= successes <= n or n == 0:
        raise ValueError(f"a proportion needs 0 <= successes <= n and n > 0, not {successes} of {n}")
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    p = successes / n
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    # Rounding may leave 1e-17 where the bound is exactly 0 or 1.
    return Interval(0.0 if successes == 0 else centre - half, 1.0 if successes == n else centre + half)


def is_share(mean: float, n: int) -> bool:
    """Whether a mean may be one of `n` zeros and ones, whose interval has a width even at 0 and 1."""
    return 0 <= mean <= 1 and abs(mean * n - round(mean * n)) < 1e-6


def half_width(mean: float, stderr: float, n: int) -> float:
    """Half the width of the 95 % interval of a mean: Wilson's of a share, else 1.96 standard errors.

    At 0 and at 1 it is the whole width, since all of it lies on one side.

    >>> round(half_width(0.5, 0.05, 100), 3), round(half_width(1.0, 0.0, 100), 3)
    (0.096, 0.037)
    """
    if is_share(mean, n):
        low, high = wilson(round(mean * n), n)
        return (high - low) / (1 if mean in (0, 1) else 2)
    return NormalDist().inv_cdf(0.975) * stderr


def bootstrap_mean(
    values: ArrayLike, *, seed: int = 0, resamples: int = 2000, confidence: float = 0.95
) -> Interval:
    """Percentile bootstrap interval of a mean; the same for the same values, seed and resamples."""
    means = _resampled_means(column_of(values), seed=seed, resamples=resamples)
    return percentiles(means, confidence)


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


def percentiles(draws: NDArray[np.float64], confidence: float = 0.95) -> Interval:
    """Interval of a figure from its values over resampled examples."""
    low, high = np.quantile(draws, [0.5 - confidence / 2, 0.5 + confidence / 2])
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


class PairedTest(NamedTuple):
    """A difference of two runs on the same examples, and how sure it is."""

    difference: float
    """Second run minus first."""
    interval: Interval
    p_value: float
    """Two-sided, of the hypothesis that there is no difference."""
    standard_error: float


def paired_shares_interval(
    only_first: int, only_second: int, n: int, *, confidence: float = 0.95
) -> Interval:
    """Interval of the difference of two shares over the same `n` examples, second minus first.

    Keeps a width where the runs differ on no example, as the bootstrap and Wald's interval do not.

    Args:
        only_first: Examples that only the first run got right.
        only_second: Examples that only the second run got right.
        n: All examples.

    Source: Bonett and Price (2012), "Adjusted Wald confidence interval for a difference of binomial
    proportions based on paired data".
    """
    if min(only_first, only_second) < 0 or only_first + only_second > n or n < 1:
        raise ValueError(f"{only_first} and {only_second} cannot disagree among {n} examples")
    first, second = (only_first + 1) / (n + 2), (only_second + 1) / (n + 2)
    difference = second - first
    half = _z(confidence) * math.sqrt((first + second - difference**2) / (n + 2))
    return Interval(max(-1.0, difference - half), min(1.0, difference + half))


def paired_shares_test(only_first: int, only_second: int, n: int) -> PairedTest:
    """Exact McNemar test of two shares over the same `n` examples, with the interval of their difference."""
    difference = (only_second - only_first) / n
    spread = (only_first + only_second) / n - difference**2
    return PairedTest(
        difference,
        paired_shares_interval(only_first, only_second, n),
        mcnemar(only_first, only_second),
        math.sqrt(spread / n),
    )


def paired_means_test(
    first: ArrayLike, second: ArrayLike, *, seed: int = 0, resamples: int = 2000
) -> PairedTest:
    """Paired bootstrap of two means; by the standard error where there are more than `NORMAL_ABOVE` examples.

    Raises:
        UndefinedFigureError: There are fewer than two examples.
    """
    before, after = column_of(first), column_of(second)
    if before.shape != after.shape:
        raise ValueError(f"paired runs need the same examples: {len(before)} and {len(after)}")
    differences = after - before
    observed, error = float(differences.mean()), standard_error(differences)
    if len(differences) <= NORMAL_ABOVE:
        return paired_draws_test(_resampled_means(differences, seed=seed, resamples=resamples), observed)
    return paired_normal_test(observed, error)


def paired_normal_test(observed: float, error: float) -> PairedTest:
    """Interval and test of a difference by its standard error, for many examples."""
    half = _z(0.95) * error
    p_value = math.erfc(abs(observed) / error / math.sqrt(2)) if error else float(observed == 0)
    return PairedTest(observed, Interval(observed - half, observed + half), p_value, error)


def paired_draws_test(draws: ArrayLike, observed: float) -> PairedTest:
    """Interval and test of a difference from its values over resampled examples.

    The p-value is the share of resamples that, moved so that their centre is no difference, are as far off
    as what was observed; never below 1 / (resamples + 1), the least that so many resamples can show.

    Source: Noreen (1989), "Computer-intensive methods for testing hypotheses", the shift method.
    """
    column = column_of(draws)
    # The tolerance is for sums that differ only in rounding.
    extreme = int(np.sum(np.abs(column - column.mean()) >= abs(observed) - 1e-12))
    p_value = (extreme + 1) / (len(column) + 1)
    return PairedTest(observed, percentiles(column), p_value, float(column.std()))


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values adjusted for their number, in the order given.

    Source: Holm (1979), "A simple sequentially rejective multiple test procedure".

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    adjusted = [0.0] * len(p_values)
    highest = 0.0
    for rank, place in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[place]))
        adjusted[place] = highest
    return adjusted


def examples_needed(difference: float, standard_error: float, n: int, *, power: float = 0.8) -> int | None:
    """Examples with which a difference of this size would be significant at 5 %, with probability `power`.

    Args:
        difference: As observed.
        standard_error: Of the difference, over `n` examples; it falls with the root of their number.
        n: Examples that there were.

    Returns:
        None where no number is enough: there is no difference.
    """
    if difference == 0:
        return None
    return math.ceil(n * (_told_apart(power) * standard_error / difference) ** 2)


def detectable_difference(standard_error: float, *, power: float = 0.8) -> float:
    """The smallest difference that is significant at 5 % with probability `power`, at this standard error."""
    return _told_apart(power) * standard_error


def _told_apart(power: float) -> float:
    return _z(0.95) + NormalDist().inv_cdf(power)


def _z(confidence: float) -> float:
    return NormalDist().inv_cdf(0.5 + confidence / 2)


def unparsed_reasons(scores: Sequence[Score]) -> dict[str, int]:
    """How often each reason kept an answer from being read, the most frequent first."""
    return dict(Counter(score.reason for score in scores if score.reason is not None).most_common())


def counts_by_rule(scores: Sequence[Score]) -> dict[str, int]:
    """How many answers each rule read, the most frequent first."""
    return dict(Counter(score.rule for score in scores if score.rule is not None).most_common())
