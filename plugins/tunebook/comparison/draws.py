"""Figures that are no means over rows, of many draws of the same rows at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray


class ClassCounts:
    """One side's counts by class, over draws of rows; arrays are (draws, classes).

    The figures are those of `metrics.classification` and `metrics.two_classes`, of many draws at once.
    """

    def __init__(
        self,
        weights: NDArray[np.float64],
        references: NDArray[np.int64],
        answers: NDArray[np.int64],
        classes: int,
        *,
        every_class: bool,
    ) -> None:
        # One column more for answers that are none of the classes, which is left out.
        one_hot = np.eye(classes + 1)
        self.n = weights.sum(axis=1)
        self.true = weights @ one_hot[references][:, :-1]
        self.said = weights @ one_hot[answers][:, :-1]
        self.right = weights @ (one_hot[references] * one_hot[answers])[:, :-1]
        self.occurs = (self.true + self.said > 0) | every_class
        self.precision = _ratio(self.right, self.said)
        self.recall = _ratio(self.right, self.true)
        self.f1 = _ratio(2 * self.right, self.true + self.said)

    def mean(self, of_classes: NDArray[np.float64]) -> NDArray[np.float64]:
        """Mean over the classes that occur."""
        return _ratio((of_classes * self.occurs).sum(axis=1), self.occurs.sum(axis=1))

    def balanced(self) -> NDArray[np.float64]:
        """Mean recall of the classes among the references."""
        return _ratio(self.recall.sum(axis=1), (self.true > 0).sum(axis=1))

    def mcc(self) -> NDArray[np.float64]:
        """Gorodkin's, with unparsed as one more predicted class."""
        unparsed = self.n - self.said.sum(axis=1)
        covariance = self.right.sum(axis=1) * self.n - (self.said * self.true).sum(axis=1)
        said_spread = self.n**2 - (self.said**2).sum(axis=1) - unparsed**2
        true_spread = self.n**2 - (self.true**2).sum(axis=1)
        return _ratio(covariance, np.sqrt(said_spread * true_spread))


def _ratio(part: NDArray[Any], whole: NDArray[Any]) -> NDArray[np.float64]:
    found: NDArray[np.float64] = np.divide(part, whole, out=np.zeros(np.shape(part)), where=whole > 0)
    return found


# The positive class is the first.
OF_CLASSES: dict[str, Callable[[ClassCounts], NDArray[np.float64]]] = {
    "f1": lambda side: side.f1[:, 0],
    "macro_f1": lambda side: side.mean(side.f1),
    "weighted_f1": lambda side: _ratio((side.f1 * side.true).sum(axis=1), side.n),
    "precision": lambda side: side.precision[:, 0],
    "macro_precision": lambda side: side.mean(side.precision),
    "recall": lambda side: side.recall[:, 0],
    "macro_recall": lambda side: side.mean(side.recall),
    "specificity": lambda side: side.recall[:, 1],
    "balanced_accuracy": ClassCounts.balanced,
    "mcc": ClassCounts.mcc,
}


class Drawn(NamedTuple):
    """Rows drawn with replacement."""

    positives: NDArray[np.int64]
    """Places among the rows of the positive class."""
    negatives: NDArray[np.int64]


def stratified(positives: int, negatives: int, draws: int) -> Iterator[Drawn]:
    """Draw rows; each class keeps its number of them, so that a ranking always has both."""
    generator = np.random.default_rng(0)
    for _ in range(draws):
        yield Drawn(*(generator.integers(0, size, size) for size in (positives, negatives)))


class Ranking:
    """Rows by falling margin, equal ones together: `two_classes` has the figures of all rows."""

    def __init__(self, truth: NDArray[np.bool_], margins: NDArray[np.float64]) -> None:
        values, places = np.unique(-margins, return_inverse=True)
        self._margins = len(values)
        self._positives, self._negatives = places[truth], places[~truth]

    def figures(self, drawn: Drawn) -> dict[str, float]:
        """AUROC and average precision of the drawn rows."""
        positives = np.bincount(self._positives[drawn.positives], minlength=self._margins)
        negatives = np.bincount(self._negatives[drawn.negatives], minlength=self._margins)
        hits, misses = positives.cumsum(), negatives.cumsum()
        taken = positives > 0
        won = positives * (len(drawn.negatives) - misses + negatives / 2)
        precision = hits[taken] / (hits[taken] + misses[taken])
        return {
            "auroc": float(won.sum()) / (len(drawn.positives) * len(drawn.negatives)),
            "average_precision": float((positives[taken] * precision).sum()) / len(drawn.positives),
        }
