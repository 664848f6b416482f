"""Whether two figures put things in the same order."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray


def rank_correlation(first: Sequence[float], second: Sequence[float]) -> float | None:
    """Spearman's rank correlation of two series of the same length.

    Returns:
        From -1 to 1; None where a series has only one value, so that it puts nothing in order.

    >>> rank_correlation([1.0, 2.0, 3.0], [10.0, 20.0, 5.0])
    -0.5
    """
    x, y = _ranks(first), _ranks(second)
    if not np.ptp(x) or not np.ptp(y):
        return None
    return float(np.corrcoef(x, y)[0, 1])


def _ranks(values: Sequence[float]) -> NDArray[np.float64]:
    """Ranks from 0, equal values sharing their mean rank."""
    array = np.array(values)
    return np.array([(np.sum(array < value) + np.sum(array <= value) - 1) / 2 for value in array])
