"""A user's function as a metric."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from tunebook.errors import TunebookError
from tunebook.types import UNPARSED, Figure, Metric, Score

DEFAULT_FIGURE = "score"
"""The figure of a function that returns one number; a dict that is to choose checkpoints has it as a key."""


def metric_of_function(name: str, function: Callable[[str, str], Any]) -> Metric:
    """Make a metric of `function(prediction, reference)`; each figure is the mean over the examples.

    Args:
        function: Returns a `Score`, a dict of figures, a number or a bool. Its exceptions are not caught:
            a failed score is not a score of 0. It may declare its figures in an attribute `figures`.
    """

    def score(prediction: str, reference: str) -> Score:
        result = function(prediction, reference)
        if isinstance(result, Score):
            return result
        values = result if isinstance(result, Mapping) else {DEFAULT_FIGURE: result}
        return Score(
            values={str(key): _number(name, value) for key, value in values.items()},
            parsed=prediction,
            reference=reference,
        )

    declared = tuple(getattr(function, "figures", ()))
    metric = Metric(
        name=name,
        score=score,
        aggregate=means,
        figures=(*(declared or [Figure(name=DEFAULT_FIGURE, low=None, high=None)]), UNPARSED),
        select_by=DEFAULT_FIGURE,
        figures_complete=bool(declared) or _returns_a_number(function),
    )
    return metric if DEFAULT_FIGURE in metric.names else replace(metric, select_by=metric.names[0])


def _returns_a_number(function: Callable[..., Any]) -> bool:
    """Whether a function says that it returns one figure."""
    try:
        returned = inspect.signature(function).return_annotation
    except (TypeError, ValueError):  # not every callable has a signature
        return False
    # As text where its module begins with `from __future__ import annotations`.
    return returned in (bool, int, float, "bool", "int", "float")


def means(scores: Sequence[Score]) -> Mapping[str, float]:
    """The mean of each figure over the scores that have it, and the share that could not be parsed."""
    if not scores:
        return {}
    columns: dict[str, list[float]] = {}
    for score in scores:
        for key, value in score.values.items():
            columns.setdefault(key, []).append(value)
    figures = {key: math.fsum(column) / len(column) for key, column in columns.items()}
    figures["unparsed_rate"] = sum(score.parsed is None for score in scores) / len(scores)
    return figures


def _number(name: str, value: object) -> float:
    try:
        number = float(value)  # type: ignore[arg-type]  # numpy's and torch's scalars are welcome
    except (TypeError, ValueError) as error:
        raise TunebookError(
            f"the metric {name!r} returned {value!r}",
            fix="return a Score, a number, a bool, or a dict of numbers",
        ) from error
    if not math.isfinite(number):
        raise TunebookError(
            f"the metric {name!r} returned {number}", fix="return a finite number for every prediction"
        )
    return number
