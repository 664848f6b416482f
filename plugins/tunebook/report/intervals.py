"""95 % intervals: of proportions, of figures with a standard error, and of F1-like figures."""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING

import numpy as np

from tunebook.report.records import Interval

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from tunebook.runlog import Example

_Z = 1.959963984540054
_DRAWS = 4000

Pairs = Counter[tuple[str, str | None]]
"""How often each (reference, parsed answer) occurred."""


def wilson(value: float, n: int) -> Interval:
    """Interval of a proportion `value` out of `n`; also right at 0 and 1, where the usual one has no width.

    Source: Wilson (1927), https://doi.org/10.1080/01621459.1927.10502953.

    >>> round(wilson(1.0, 100).low, 3)
    0.963
    """
    middle = (value + _Z**2 / (2 * n)) / (1 + _Z**2 / n)
    half = _Z / (1 + _Z**2 / n) * math.sqrt(value * (1 - value) / n + _Z**2 / (4 * n**2))
    return Interval(low=max(0.0, middle - half), high=min(1.0, middle + half), method=f"Wilson, n {n}")


def normal(value: float, stderr: float) -> Interval:
    """Interval of a mean with a standard error."""
    return Interval(low=value - _Z * stderr, high=value + _Z * stderr, method="1.96 standard errors")


def difference(one: Interval, one_value: float, other: Interval, other_value: float) -> Interval:
    """Interval of `one_value - other_value`, the two measured independently of each other.

    On the same rows a paired comparison is sharper; this one needs no more than the two intervals.

    Source: for proportions Newcombe (1998, Statistics in Medicine 17:873, method 10), whose example stands
    below; for any two figures with intervals Zou and Donner (2008, Statistics in Medicine 27:1693).

    >>> found = difference(wilson(56 / 70, 70), 56 / 70, wilson(48 / 80, 80), 48 / 80)
    >>> round(found.low, 4), round(found.high, 4)
    (0.0524, 0.3339)
    """
    gap = one_value - other_value
    return Interval(
        low=gap - math.hypot(one_value - one.low, other.high - other_value),
        high=gap + math.hypot(one.high - one_value, other_value - other.low),
        method="square-and-add of the two intervals",
    )


def pairs(examples: Sequence[Example], metric: str) -> Pairs:
    """Count (reference, parsed) over the examples of a metric that answers with classes."""
    counted: Pairs = Counter()
    for example in examples:
        score = example.scores.get(metric, {})
        reference, parsed = score.get("reference"), score.get("parsed")
        if isinstance(reference, str):
            counted[reference, parsed if isinstance(parsed, str) else None] += 1
    return counted


def yes_no_interval(name: str, value: float, counted: Pairs) -> Interval | None:
    """Interval of a Yes/No figure from its confusion counts.

    Each cell's share is drawn from the posterior that a Jeffreys prior and the counts give, and the figure
    computed for each draw.

    Args:
        name: A figure of the metric `yes_no`.
        value: As the run reported it.
        counted: (reference, parsed) counts of the same evaluation.

    Returns:
        None where the figure is none of these, or where the counts do not give `value`, so that an interval
        can never belong to another number.

    Source: Goutte and Gaussier (2005), https://doi.org/10.1007/978-3-540-31865-1_25.
    """
    cells = [(r, p) for r in ("yes", "no") for p in ("yes", "no", None)]
    counts = np.array([counted[cell] for cell in cells], dtype=np.float64)
    exact = _figure(name, counts[None])
    if exact is None or not counts.sum() or abs(float(exact[0]) - value) > 1e-6:
        return None
    # No prior on "unparsed" where nothing was: it would say that a clean run has unread answers.
    prior = np.where(np.array([p is None for _, p in cells]) & (counts == 0), 1e-9, 0.5)
    draws = np.random.default_rng(0).dirichlet(counts + prior, size=_DRAWS)
    figures = _figure(name, draws)
    assert figures is not None
    low, high = np.quantile(figures, [0.025, 0.975])
    return Interval(
        low=min(float(low), value),
        high=max(float(high), value),
        method=f"posterior of the confusion counts, n {int(counts.sum())}",
    )


def _figure(name: str, cells: NDArray[np.float64]) -> NDArray[np.float64] | None:
    """A figure for each row of (yes,yes) (yes,no) (yes,-) (no,yes) (no,no) (no,-)."""
    tp, fn, fn_unread, fp, tn, fp_unread = cells.T
    missed, alarmed = fn + fn_unread, fp + fp_unread

    def share(part: NDArray[np.float64], whole: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.divide(part, whole, out=np.zeros_like(part), where=whole > 0)

    f1_yes = share(2 * tp, 2 * tp + missed + fp)
    f1_no = share(2 * tn, 2 * tn + alarmed + fn)
    known = {
        "f1": f1_yes,
        "macro_f1": (f1_yes + f1_no) / 2,
        "precision": share(tp, tp + fp),
        "recall": share(tp, tp + missed),
        "balanced_accuracy": (share(tp, tp + missed) + share(tn, tn + alarmed)) / 2,
    }
    return known.get(name)
