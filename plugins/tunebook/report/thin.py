"""Thins a series for drawing, in a way that no spike and no dip is lost."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


def thin(values: NDArray[np.float64], limit: int) -> NDArray[np.int64]:
    """Indices of at most `limit` points that draw like all of them.

    The series is cut into equal runs of points; of each the lowest and the highest are kept, besides the
    first and the last point and, where the values turn to nan or infinity and back, the point at each
    turn.

    Args:
        values: Shape (N,).
        limit: At least 8.

    Returns:
        Increasing indices, shape (M,), M <= max(limit, 2 + number of turns).

    >>> import numpy as np
    >>> line = np.zeros(100_000); line[70_123] = 9.0
    >>> kept = thin(line, 100)
    >>> len(kept) <= 100, 70_123 in kept
    (True, True)
    """
    if len(values) <= limit:
        return np.arange(len(values))
    turns = _turns(values)[: limit // 4]
    buckets = (limit - 2 - len(turns)) // 2
    size = -(-len(values) // buckets)
    padded = np.full(buckets * size, np.nan)
    padded[: len(values)] = np.where(np.isfinite(values), values, np.nan)
    table = padded.reshape(buckets, size)
    starts = np.arange(buckets) * size
    lowest = starts + np.argmin(np.where(np.isnan(table), np.inf, table), axis=1)
    highest = starts + np.argmax(np.where(np.isnan(table), -np.inf, table), axis=1)
    kept: NDArray[Any] = np.unique(np.concatenate([[0], lowest, highest, turns, [len(values) - 1]]))
    return kept[kept < len(values)].astype(np.int64)


def _turns(values: NDArray[np.float64]) -> NDArray[np.int64]:
    finite = np.isfinite(values)
    return np.flatnonzero(finite[1:] != finite[:-1]) + 1
