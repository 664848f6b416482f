"""Figures of two-class answers: confusion with an unparsed column, ranking and calibration.

Tested for equality with scikit-learn, which is not needed to run. A figure that is not defined for its
data raises `UndefinedFigureError`; an aggregate leaves it out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import median
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tunebook.metrics.statistics import UndefinedFigureError, column_of
from tunebook.types import Score

# confusion


class Confusion(NamedTuple):
    """Counts for two classes, with a column of its own for answers that could not be parsed.

    An unparsed answer is neither class: it lowers recall and accuracy and does not change precision.
    Ratios with an empty denominator are 0, as scikit-learn's `zero_division=0` has it.
    """

    true_positive: int
    false_negative: int
    unparsed_positive: int
    false_positive: int
    true_negative: int
    unparsed_negative: int

    @property
    def n(self) -> int:
        """All examples."""
        return sum(self)

    @property
    def positives(self) -> int:
        """Examples whose reference is the positive class."""
        return self.true_positive + self.false_negative + self.unparsed_positive

    @property
    def negatives(self) -> int:
        """Examples whose reference is the negative class."""
        return self.false_positive + self.true_negative + self.unparsed_negative

    @property
    def accuracy(self) -> float:
        """Share of right answers among all, unparsed ones included."""
        return _ratio(self.true_positive + self.true_negative, self.n)

    @property
    def precision(self) -> float:
        """Share of right answers among those that say positive."""
        return _ratio(self.true_positive, self.true_positive + self.false_positive)

    @property
    def recall(self) -> float:
        """Share of positive references answered positive."""
        return _ratio(self.true_positive, self.positives)

    @property
    def specificity(self) -> float:
        """Share of negative references answered negative."""
        return _ratio(self.true_negative, self.negatives)

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall of the positive class."""
        return _f1(self.true_positive, self.false_positive, self.positives)

    @property
    def macro_f1(self) -> float:
        """Mean of both classes' F1."""
        return (self.f1 + _f1(self.true_negative, self.false_negative, self.negatives)) / 2

    @property
    def balanced_accuracy(self) -> float:
        """Mean recall of the classes that occur among the references."""
        recalls = [
            value
            for value, count in ((self.recall, self.positives), (self.specificity, self.negatives))
            if count
        ]
        return _ratio(sum(recalls), len(recalls))

    @property
    def mcc(self) -> float:
        """Matthews correlation with unparsed as a third predicted class; 0 where a side has one class.

        Source: Gorodkin (2004), "Comparing two K-category assignments by a K-category correlation
        coefficient", which is the ordinary coefficient where everything was parsed.
        """
        n = self.n
        said_positive = self.true_positive + self.false_positive
        said_negative = self.true_negative + self.false_negative
        unparsed = self.unparsed_positive + self.unparsed_negative
        covariance = (
            (self.true_positive + self.true_negative) * n
            - said_positive * self.positives
            - said_negative * self.negatives
        )
        said_spread = n * n - said_positive**2 - said_negative**2 - unparsed**2
        true_spread = n * n - self.positives**2 - self.negatives**2
        return _ratio(covariance, math.sqrt(said_spread * true_spread))


def from_margins(scores: Sequence[Score], positive: str) -> dict[str, float]:
    """Ranking and calibration of two classes.

    Args:
        scores: Each with `values["margin"]`, log p(positive) - log p(other) in nats at the answer position,
            and `values["class_mass"]`, the sum of both probabilities.
        positive: The first of the two classes.
    """
    truth = [score.reference == positive for score in scores]
    margins = [score.values["margin"] for score in scores]
    probabilities = probability(margins)
    masses = sorted(score.values["class_mass"] for score in scores)
    figures = {
        "brier": brier(truth, probabilities),
        "ece": expected_calibration_error(truth, probabilities),
        "class_mass": math.fsum(masses) / len(masses),
        "class_mass_median": median(masses),
    }
    if any(truth):
        figures["average_precision"] = average_precision(truth, margins)
        if not all(truth):
            figures["auroc"] = auroc(truth, margins)
    return figures


def confusion(parsed: Sequence[str | None], references: Sequence[str], *, positive: str) -> Confusion:
    """Count answers against references of two classes; None among `parsed` is an unparsed answer."""
    counts = [0] * 6
    for answer, reference in zip(parsed, references, strict=True):
        row = 0 if reference == positive else 3
        if answer is None:
            counts[row + 2] += 1
        else:
            counts[row + (answer != positive)] += 1
    return Confusion(*counts)


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else 0.0


def _f1(right: int, wrongly_said: int, occurring: int) -> float:
    return _ratio(2 * right, right + wrongly_said + occurring)


# --------------------------------------------------------------------------------- ranking, calibration


def auroc(positive: ArrayLike, scores: ArrayLike) -> float:
    """Area under the ROC curve: the chance that a positive is scored above a negative, ties counting half.

    Args:
        positive: Whether each reference is the positive class.
        scores: Larger means more likely positive.

    Raises:
        UndefinedFigureError: Only one class occurs.
    """
    truth, column = _labelled(positive, scores)
    positives = int(truth.sum())
    negatives = len(truth) - positives
    if not positives or not negatives:
        raise UndefinedFigureError("AUROC needs both classes among the references")
    rank_sum = float(_mid_ranks(column)[truth].sum())
    return (rank_sum - positives * (positives + 1) / 2) / (positives * negatives)


def average_precision(positive: ArrayLike, scores: ArrayLike) -> float:
    """Area under the precision-recall steps, tied scores taken together.

    Raises:
        UndefinedFigureError: No reference is positive.
    """
    truth, column = _labelled(positive, scores)
    positives = int(truth.sum())
    if not positives:
        raise UndefinedFigureError("average precision needs a positive reference")
    order = np.argsort(-column, kind="stable")
    ends = np.append(np.flatnonzero(np.diff(column[order])), len(column) - 1)
    hits = np.cumsum(truth[order])[ends]
    precision = hits / (ends + 1)
    return float(np.sum(np.diff(hits, prepend=0) / positives * precision))


def brier(positive: ArrayLike, probabilities: ArrayLike) -> float:
    """Mean squared distance between the probability of positive and what was true; 0 is best."""
    truth, column = _labelled(positive, probabilities)
    return float(np.mean((column - truth) ** 2))


def expected_calibration_error(positive: ArrayLike, probabilities: ArrayLike, *, bins: int = 10) -> float:
    """Mean distance between stated probability and observed share over equal-width bins, weighted by size.

    Source: Naeini et al. (2015), "Obtaining well calibrated probabilities using Bayesian binning".
    """
    truth, column = _labelled(positive, probabilities)
    which = np.minimum((column * bins).astype(int), bins - 1)
    gaps = np.bincount(which, weights=column - truth, minlength=bins)
    return float(np.abs(gaps).sum() / len(column))


def probability(margins: ArrayLike) -> NDArray[np.float64]:
    """Probability of the positive class from log-odds in nats."""
    column = np.asarray(margins, dtype=np.float64)
    # By the sign, so that exp never overflows.
    small = np.exp(-np.abs(column))
    return np.where(column >= 0, 1 / (1 + small), small / (1 + small))


def _labelled(positive: ArrayLike, scores: ArrayLike) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    truth, column = np.asarray(positive, dtype=bool), column_of(scores)
    if truth.shape != column.shape:
        raise ValueError(f"{truth.shape} references for {column.shape} scores")
    if not np.isfinite(column).all():
        raise ValueError("scores must be finite")
    return truth, column


def _mid_ranks(column: NDArray[np.float64]) -> NDArray[np.float64]:
    """Ranks from 1; equal values share the mean of theirs."""
    _, group, counts = np.unique(column, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[group]
