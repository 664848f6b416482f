"""The difference of each figure over the matched rows, with interval, test and Holm's correction."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from tunebook.comparison.draws import OF_CLASSES, ClassCounts, Ranking, stratified
from tunebook.comparison.records import FigureDifference
from tunebook.comparison.tables import UNPARSED
from tunebook.errors import TunebookError
from tunebook.metrics import statistics, two_classes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from tunebook.comparison.records import Verdict
    from tunebook.comparison.tables import PairedVerdicts
    from tunebook.metrics.statistics import Interval, PairedTest
    from tunebook.types import Metric

SIGNIFICANT = 0.05
MCNEMAR = "exact McNemar"
BOOTSTRAP = "paired bootstrap"
NORMAL = "paired normal"

_DRAWS = 2000
_RANKED_ABOVE = 10_000
"""Rows beyond which rankings, which are slow to draw, are tested by a standard error."""
_FEW_DRAWS = 200
"""Enough for that standard error."""


def row_figures(metric: Metric, pair: PairedVerdicts) -> list[str]:
    """Figures that are means over rows, the one that the metric selects by first, where it is one.

    Corpus BLEU and chrF are no means, and their sentence scores stand in for them.

    Raises:
        TunebookError: The metric gives rows no figure.
    """
    left_out = _left_out(metric)
    known = [name for name in metric.names if name in pair.first and name not in left_out]
    if not known:
        known = sorted(name for name in pair.first if name.startswith("sentence_"))
    if not metric.figures_complete:
        known += sorted(pair.first.keys() - set(known) - left_out)
    if not known:
        raise TunebookError(
            f"the metric {metric.name} gives single rows no figure, so two models cannot be paired by it",
            fix="name another one with --metric",
        )
    return sorted(known, key=lambda name: name != metric.select_by)


def compare_figures(metric: Metric, pair: PairedVerdicts) -> list[FigureDifference]:
    """All figures of a metric, the primary one first; p-values are not yet adjusted."""
    names = row_figures(metric, pair)
    found = [_mean(metric, pair, name) for name in [*names, UNPARSED]]
    found += _of_counts(metric, pair, None)
    found += _of_margins(metric, pair, None)
    return [replace(found[0], primary=True), *found[1:]]


def compare_figure(metric: Metric, pair: PairedVerdicts, name: str) -> FigureDifference:
    """One figure of a metric; its p-value is not yet adjusted.

    Returns:
        Of a figure that rows have no share in, such as corpus BLEU, the figure that stands in for it: the
        first of `row_figures`.

    Raises:
        TunebookError: The metric gives rows no figure, or fewer than two rows have it.
    """
    drawn = _of_counts(metric, pair, name) or _of_margins(metric, pair, name)
    if drawn:
        return drawn[0]
    if name not in pair.first or name in _left_out(metric):
        name = row_figures(metric, pair)[0]
    return _mean(metric, pair, name)


def _left_out(metric: Metric) -> set[str]:
    """Per-row values that say what an answer is like and not how good it is; unparsed answers are added."""
    return {UNPARSED, *(figure.name for figure in metric.figures if figure.descriptive)}


class Tested(NamedTuple):
    """A paired test and its name."""

    result: PairedTest
    by: str


def paired_test(first: NDArray[np.float64], second: NDArray[np.float64]) -> Tested:
    """Test the difference of two means: by McNemar where every value is 0 or 1.

    Raises:
        UndefinedFigureError: There are fewer than two rows that are not 0 or 1.
    """
    if is_right_or_wrong(first) and is_right_or_wrong(second):
        only_first, only_second = int(np.sum(first > second)), int(np.sum(second > first))
        return Tested(statistics.paired_shares_test(only_first, only_second, len(first)), MCNEMAR)
    by = NORMAL if len(first) > statistics.NORMAL_ABOVE else BOOTSTRAP
    return Tested(statistics.paired_means_test(first, second), by)


def is_right_or_wrong(values: NDArray[np.float64]) -> bool:
    """Whether each value is 0 or 1."""
    return bool(np.isin(values, (0.0, 1.0)).all())


def _mean(metric: Metric, pair: PairedVerdicts, name: str) -> FigureDifference:
    first, second = pair.first[name], pair.second[name]
    both = ~(np.isnan(first) | np.isnan(second))
    first, second = first[both], second[both]
    if len(first) < 2:
        raise TunebookError(
            f"the two have {len(first)} rows in common that have a {name}; a comparison needs two",
            fix="name files or runs with more of the same rows",
        )
    tested = paired_test(first, second)
    return _difference(
        metric, name, float(first.mean()), float(second.mean()), len(first), tested, _alone(second)
    )


def _alone(values: NDArray[np.float64]) -> Interval:
    """The interval of one mean: Wilson's of zeros and ones, else 1.96 standard errors."""
    if is_right_or_wrong(values):
        return statistics.wilson(int(values.sum()), len(values))
    mean, half = float(values.mean()), 1.96 * statistics.standard_error(values)
    return statistics.Interval(mean - half, mean + half)


def _of_counts(metric: Metric, pair: PairedVerdicts, only: str | None) -> list[FigureDifference]:
    """Figures of classes, drawn from the counts of (reference, first's answer, second's answer).

    Args:
        metric: Whose figures.
        pair: The rows.
        only: One figure's name; None for all that the metric has.
    """
    codes = np.array([hash(label) for label in metric.classes], dtype=np.int64)
    names = [name for name in OF_CLASSES if name in metric.names and only in (None, name)]
    if not names or len(codes) < 2 or not np.isin(pair.classes, codes).all():
        return []
    rows = np.stack([_place(side, codes) for side in (pair.classes, pair.first_parsed, pair.second_parsed)])
    cells, counts = np.unique(rows, axis=1, return_counts=True)
    n = int(counts.sum())
    # Rows drawn with replacement, as counts: the same distribution at any number of rows.
    draws = np.random.default_rng(0).multinomial(n, counts / n, size=_DRAWS)
    # What was observed is the first of them.
    weights = np.concatenate([counts[None], draws]).astype(np.float64)
    every = metric.short_name == "yes_no"
    sides = [ClassCounts(weights, cells[0], answers, len(codes), every_class=every) for answers in cells[1:]]
    found = []
    for name in names:
        (first, *firsts), (second, *seconds) = (OF_CLASSES[name](side).tolist() for side in sides)
        test = statistics.paired_draws_test(np.array(seconds) - np.array(firsts), second - first)
        alone = statistics.percentiles(np.array(seconds))
        found.append(_difference(metric, name, first, second, n, Tested(test, BOOTSTRAP), alone))
    return found


def _place(side: NDArray[np.int64], codes: NDArray[np.int64]) -> NDArray[np.int64]:
    """Which of the classes each row has; their number for none of them."""
    order = np.argsort(codes)
    at = order[np.searchsorted(codes, side, sorter=order).clip(max=len(codes) - 1)]
    return np.where(codes[at] == side, at, len(codes))


_RANKINGS = ("auroc", "average_precision")


def _of_margins(metric: Metric, pair: PairedVerdicts, only: str | None) -> list[FigureDifference]:
    """Ranking and calibration, where both sides have a margin on each row and both of two classes occur."""
    names = [name for name in (*_RANKINGS, "brier") if name in metric.names and only in (None, name)]
    if not names or len(metric.classes) != 2 or any("margin" not in one for one in (pair.first, pair.second)):
        return []
    margins = [pair.first["margin"], pair.second["margin"]]
    if not np.isfinite(margins).all() or len(np.unique(pair.classes)) != 2:
        return []
    truth, n = pair.classes == hash(next(iter(metric.classes))), len(pair.classes)
    found = _rankings(metric, truth, margins, [name for name in names if name in _RANKINGS])
    if "brier" in names:
        first, second = ((two_classes.probability(side) - truth) ** 2 for side in margins)
        tested, means = paired_test(first, second), (float(first.mean()), float(second.mean()))
        found.append(_difference(metric, "brier", *means, n, tested, _alone(second)))
    return found


def _rankings(
    metric: Metric, truth: NDArray[np.bool_], margins: list[NDArray[np.float64]], names: list[str]
) -> list[FigureDifference]:
    n, positives = len(truth), int(truth.sum())
    large = n > _RANKED_ABOVE
    sides = [Ranking(truth, side) for side in margins]
    draws = stratified(positives, n - positives, (_FEW_DRAWS if large else _DRAWS) if names else 0)
    drawn = [[side.figures(rows) for side in sides] for rows in draws]
    found = []
    for name in names:
        first, second = (float(getattr(two_classes, name)(truth, side)) for side in margins)
        firsts, seconds = (np.array([one[side][name] for one in drawn]) for side in (0, 1))
        if large:
            error, own = float((seconds - firsts).std()), 1.96 * float(seconds.std())
            tested = Tested(statistics.paired_normal_test(second - first, error), NORMAL)
            alone = statistics.Interval(second - own, second + own)
        else:
            tested = Tested(statistics.paired_draws_test(seconds - firsts, second - first), BOOTSTRAP)
            alone = statistics.percentiles(seconds)
        found.append(_difference(metric, name, first, second, n, tested, alone))
    return found


def _difference(
    metric: Metric, name: str, first: float, second: float, n: int, tested: Tested, alone: Interval
) -> FigureDifference:
    result = tested.result
    # A bootstrap that nothing moves would claim to be certain.
    interval, own = (one if one.low < one.high else None for one in (result.interval, alone))
    return FigureDifference(
        name=name,
        n=n,
        first=first,
        second=second,
        difference=result.difference,
        low=interval.low if interval else None,
        high=interval.high if interval else None,
        second_low=own.low if own else None,
        second_high=own.high if own else None,
        p_value=result.p_value,
        p_adjusted=result.p_value,
        test=tested.by,
        primary=False,
        larger_is_better=_larger_is_better(metric, name),
        verdict="not distinguishable",
        rows_needed=statistics.examples_needed(result.difference, result.standard_error, n),
        detectable=statistics.detectable_difference(result.standard_error),
    )


def _larger_is_better(metric: Metric, name: str) -> bool:
    """A row's figure that stands in for the corpus's, such as `sentence_bleu`, goes the same way as that."""
    declared = name if name in metric.names else metric.select_by
    return (
        name != UNPARSED and (declared if metric.figures_complete else name) not in metric.smaller_is_better
    )


def adjust(figures: Sequence[FigureDifference]) -> list[FigureDifference]:
    """Adjust the p-values of figures that are tested together, and say of each what it comes to."""
    adjusted = statistics.holm([figure.p_value for figure in figures])
    return [
        replace(figure, p_adjusted=p_value, verdict=_verdict(figure, p_value))
        for figure, p_value in zip(figures, adjusted, strict=True)
    ]


def _verdict(figure: FigureDifference, p_value: float) -> Verdict:
    if p_value >= SIGNIFICANT:
        return "not distinguishable"
    return "better" if (figure.difference > 0) == figure.larger_is_better else "worse"
