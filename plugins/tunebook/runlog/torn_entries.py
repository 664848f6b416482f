"""Finds log entries that damage has made of two: the head of one, the tail of another.

Where bytes were lost between them, what is left may be valid JSON, with a number made of two halves. The
entry then has the epoch of the first and the step of the second, which do not fit each other. Of a single
entry that cannot be told.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from tunebook.runlog.records import Series

if TYPE_CHECKING:
    from numpy.typing import NDArray

_SLACK_STEPS = 1.5
"""The last step of an epoch may have fewer batches, which moves the epoch by less than a step."""
_SLACK_EPOCHS = 0.011
"""Older Trainers write the epoch with two digits."""
_SAME_PACE = 0.01
TRAINING, EVALUATION = "epoch of training", "epoch of evaluation"
"""Names of the epochs of either kind of entry, which `drop_torn` takes out again."""
OF_TRAINING = frozenset({"loss", "grad_norm", "learning_rate"})
"""What only entries of training have."""


def drop_torn(series: dict[str, Series]) -> tuple[dict[str, Series], int]:
    """Leave out every entry whose epoch is off, while its neighbours go at the pace of the whole.

    A resumed run may change its pace, with other batches: around that place nothing is left out.

    Args:
        series: By name, with the epochs of both kinds of entries under the names above.

    Returns:
        The series, and how many entries were left out of them.
    """
    left = {name: one for name, one in series.items() if name not in (TRAINING, EVALUATION)}
    count = 0
    for kind in (TRAINING, EVALUATION):
        torn = _torn_steps(series[kind]) if kind in series else None
        if torn is not None and len(torn):
            count += len(torn)
            for name in left:
                # What both kinds of entries have, such as the epoch, is one series.
                of_the_other = name in OF_TRAINING if kind == EVALUATION else name.startswith("eval_")
                if not of_the_other:
                    left[name] = _without(left[name], torn)
    return {name: one for name, one in left.items() if len(one.steps)}, count


def _torn_steps(epochs: Series) -> NDArray[np.int64]:
    none: NDArray[np.int64] = epochs.steps[:0]
    steps, values = epochs.steps.astype(float), epochs.values
    if len(steps) < 5:
        return _torn_of_few(epochs.steps, values) if len(steps) > 1 and steps[0] > 0 else none
    # A pace that was gone at, not the middle of two.
    pace = float(np.quantile(np.diff(values) / np.diff(steps), 0.5, method="lower"))
    if not pace > 0:
        return none
    # Of each entry the two that it is judged by: its neighbours, or at an end the two beside it.
    before, after = np.arange(-1, len(steps) - 1), np.arange(1, len(steps) + 1)
    before[0], after[0] = 1, 2
    before[-1], after[-1] = len(steps) - 3, len(steps) - 2
    around = (values[after] - values[before]) / (steps[after] - steps[before])
    expected = values[before] + pace * (steps - steps[before])
    off = np.abs(values - expected) > max(_SLACK_STEPS * pace, _SLACK_EPOCHS)
    torn: NDArray[np.int64] = epochs.steps[off & (np.abs(around - pace) < _SAME_PACE * pace)]
    return torn


def _torn_of_few(steps: NDArray[np.int64], values: NDArray[np.float64]) -> NDArray[np.int64]:
    """Of a handful, those that do not go at the pace of most since the start; of two that differ, both."""
    pace = float(np.quantile(values / steps, 0.5, method="lower"))
    off = np.abs(values - pace * steps) > max(_SLACK_STEPS * pace, _SLACK_EPOCHS)
    torn: NDArray[np.int64] = steps if len(steps) == 2 and off.any() else steps[off]
    return torn


def _without(one: Series, torn: NDArray[np.int64]) -> Series:
    kept = ~np.isin(one.steps, torn)
    return Series(name=one.name, steps=one.steps[kept], values=one.values[kept], source=one.source)
