"""Works steps out of printed epochs, which are rounded: to four digits, or to two decimals."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

_MAX_ANCHORS = 200
_FIRST_BLOCK = 256
"""Entries looked at behind an anchor, and twice as many each time they agree."""
_LAST_BLOCK = 1 << 16


def steps_of(epochs: NDArray[np.float64], per_epoch: float) -> NDArray[np.int64]:
    """Steps of log entries, from their printed epochs.

    Entries come every so many steps, so that their order tells more than the rounded epoch does: entries
    are counted on from an anchor, and anchored anew where an epoch contradicts the count, as after a
    restart or where lines are missing.

    Args:
        epochs: As printed, in the order of the log, shape (N,), N >= 1.
        per_epoch: Optimizer steps in an epoch.

    >>> import numpy as np
    >>> steps_of(np.array([0.1136, 0.2273, 0.3409]), 88).tolist()
    [10, 20, 30]
    """
    estimates = epochs * per_epoch
    least = 0.75
    if all(
        np.array_equal(part, np.round(part, 2)) for part in np.array_split(epochs, len(epochs) // 65536 + 1)
    ):
        least += 0.0055 * per_epoch
    interval = _interval(estimates)
    if interval is None:
        return np.rint(estimates).astype(np.int64)
    steps = np.empty(len(estimates), dtype=np.int64)
    start = 0
    for _ in range(_MAX_ANCHORS):
        anchor = _anchor(estimates[start:], interval)
        first = _count_on(steps, estimates, least, start, anchor, interval)
        # An anchor that does not even fit its own entry: a first step logged out of turn.
        if first == start:
            steps[start] = round(estimates[start])
            first += 1
        start = first
        if start >= len(estimates):
            return steps
    return np.rint(estimates).astype(np.int64)


def _count_on(
    steps: NDArray[np.int64],
    estimates: NDArray[np.float64],
    least: float,
    start: int,
    anchor: int,
    interval: int,
) -> int:
    """Fill in `steps` from `start` on by counting; returns the first place that contradicts the count."""
    first, size = start, _FIRST_BLOCK
    while first < len(estimates):
        after = min(first + size, len(estimates))
        counted = anchor + interval * np.arange(first - start, after - start)
        # How far an estimate may be off, in steps: four digits of an epoch, or two behind its point.
        error = np.maximum(0.75 + 5.5e-4 * estimates[first:after], least)
        wrong = np.abs(counted - estimates[first:after]) > error
        steps[first:after] = counted
        if wrong.any():
            return first + int(np.argmax(wrong))
        first, size = after, min(size * 2, _LAST_BLOCK)
    return first


def _interval(estimates: NDArray[np.float64]) -> int | None:
    """Steps between entries, by the median over wide gaps; None where that is less than one."""
    if len(estimates) == 1:
        return max(1, round(float(estimates[0])))
    # Wide, so that rounding does not show, and narrow enough that few gaps span a restart.
    gap = min(max(1, len(estimates) // 4), 200)
    ahead = estimates[gap:] - estimates[:-gap]
    interval = round(float(np.median(ahead, overwrite_input=True)) / gap)
    return interval if interval >= 1 else None


def _anchor(estimates: NDArray[np.float64], interval: int) -> int:
    """The step of the first entry: a multiple of the interval that agrees with the entries behind it."""
    ahead = estimates[:20] - interval * np.arange(len(estimates[:20]))
    # Not the median: where a restart follows within these few, it would be between the two.
    return round(float(ahead[0]) / interval) * interval if len(ahead) < 3 else _agreed(ahead, interval)


def _agreed(ahead: NDArray[np.float64], interval: int) -> int:
    candidates = np.rint(ahead / interval).astype(np.int64) * interval
    near = candidates[np.abs(candidates - candidates[0]) <= interval]
    return int(np.median(near))
