"""Whether two figures put things in the same order, and how sure that is."""

from __future__ import annotations

import math
from itertools import permutations
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

_ALL_ORDERS_UP_TO = 7
_DRAWS = 10_000
_Z = 1.959963984540054


class RankCorrelation(NamedTuple):
    """How far two orders of the same things agree."""

    rho: float
    """1.0 for the same order, -1.0 for the reverse."""
    n: int
    low: float | None
    high: float | None
    """95 % interval; None below five things or where the order is all the same or the reverse."""
    p_value: float
    """Two-sided: how often things in random order give a rho as far from 0."""


def spearman(first: Sequence[float], second: Sequence[float]) -> RankCorrelation | None:
    """Correlate the ranks of two columns; equal values share their mean rank.

    The p-value counts all orders up to seven things, and 10,000 random ones beyond. The interval is Fisher's
    with the error of Bonett and Wright (2000), https://doi.org/10.1007/BF02294183.

    Args:
        first: Finite values, length n.
        second: As many.

    Returns:
        None below three things, or where a side has only one value.

    >>> found = spearman([1, 2, 3, 4], [10, 20, 40, 30])
    >>> found.rho, round(found.p_value, 3)
    (0.8, 0.333)
    """
    x, y = _ranks(first), _ranks(second)
    if len(x) != len(y):
        raise ValueError(f"ranks are of the same things: {len(x)} and {len(y)}")
    if len(x) < 3 or not np.ptp(x) or not np.ptp(y):
        return None
    x, y = (x - x.mean()) / x.std(), (y - y.mean()) / y.std()
    n = len(x)
    rho = float(np.clip(x @ y / n, -1, 1))
    rho = round(rho, 12)
    low, high = _interval(rho, n)
    return RankCorrelation(rho, n, low, high, _p_value(x, y, rho))


def rank_correlation(first: Sequence[float], second: Sequence[float]) -> float | None:
    """The coefficient of `spearman` alone; None where there is none.

    >>> rank_correlation([1.0, 2.0, 3.0], [10.0, 20.0, 5.0])
    -0.5
    """
    found = spearman(first, second)
    return found.rho if found else None


def _interval(rho: float, n: int) -> tuple[float | None, float | None]:
    if n < 5 or abs(rho) > 1 - 1e-9:
        return None, None
    half = _Z * math.sqrt((1 + rho**2 / 2) / (n - 3))
    middle = math.atanh(rho)
    return math.tanh(middle - half), math.tanh(middle + half)


def _p_value(x: NDArray[np.float64], y: NDArray[np.float64], rho: float) -> float:
    n = len(x)
    if n <= _ALL_ORDERS_UP_TO:
        orders = np.array(list(permutations(range(n))))
        found = y[orders] @ x / n
        return float(np.mean(np.abs(found) >= abs(rho) - 1e-9))
    random = np.random.default_rng(0)
    found = random.permuted(np.tile(y, (_DRAWS, 1)), axis=1) @ x / n
    return float((np.sum(np.abs(found) >= abs(rho) - 1e-9) + 1) / (_DRAWS + 1))


def _ranks(values: Sequence[float]) -> NDArray[np.float64]:
    array = np.asarray(values, dtype=np.float64)
    return np.array([(np.sum(array < value) + np.sum(array <= value) - 1) / 2 for value in array])
