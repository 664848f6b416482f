"""Says which of several runs are distinguishable: paired tests, Holm's correction, letters for groups."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace
from functools import lru_cache
from itertools import combinations, permutations
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from tunebook import metrics
from tunebook.comparison.figures import adjust, compare_figure
from tunebook.comparison.rows import Columns
from tunebook.comparison.tables import match, pair, read_tables
from tunebook.errors import TunebookError
from tunebook.report.records import ConfidenceInterval

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from tunebook.comparison.records import FigureDifference
    from tunebook.comparison.tables import PairedVerdicts, Table
    from tunebook.runlog import Evaluation, RunLog
    from tunebook.types import Metric


MOST_IN_ALL_PAIRS = 10
"""More runs are tested only against the best: over all their pairs Holm's correction would ask for smaller
p-values than a bootstrap of 2,000 resamples can give."""


class TestedRanking(NamedTuple):
    """What the tests say of runs that are ranked by one figure."""

    against_best: Mapping[int, FigureDifference]
    """By place in the ranking: the run against the first, p-values adjusted."""
    letters: Mapping[int, str]
    """By place: runs that share a letter are not distinguishable. Empty above `MOST_IN_ALL_PAIRS` runs."""
    not_tested: Mapping[int, str]
    """By place: why a run could not be tested against the first."""
    tests: int
    outcomes: Mapping[int, PairedOutcome]
    """By place: the test against the first with its rows."""


def rank_runs(answers: Sequence[Answers], pairing: Pairing) -> TestedRanking:
    """Test runs, ranked best first, in pairs.

    Args:
        answers: Of one figure on one dataset, the best run first; at least two.
        pairing: Reads the records.
    """
    outcomes = {place: pairing.test(answers[0], answers[place]) for place in range(1, len(answers))}
    tested = [place for place, outcome in outcomes.items() if outcome.difference is not None]
    found: dict[tuple[int, int], FigureDifference] = {}
    for place in tested:
        difference = outcomes[place].difference
        assert difference is not None
        found[0, place] = difference
    all_pairs = len(tested) + 1 <= MOST_IN_ALL_PAIRS
    if all_pairs:
        for first, second in combinations(tested, 2):
            difference = pairing.test(answers[first], answers[second]).difference
            if difference is not None:
                found[first, second] = difference
    adjusted = dict(zip(found, adjust(list(found.values())), strict=True))
    apart = {places for places, one in adjusted.items() if one.verdict != "not distinguishable"}
    return TestedRanking(
        against_best={place: adjusted[0, place] for place in tested},
        letters=letters([0, *tested], apart) if all_pairs and tested else {},
        not_tested={place: one.reason for place, one in outcomes.items() if one.difference is None},
        tests=len(found),
        outcomes={
            place: one._replace(difference=replace(adjusted[0, place]))
            for place, one in outcomes.items()
            if place in tested
        },
    )


def letters(places: Sequence[int], apart: Collection[tuple[int, int]]) -> dict[int, str]:
    """The compact letter display: two places share a letter exactly when they are not in `apart`.

    Source: insert and absorb, Piepho (2004), https://doi.org/10.1198/1061860043515.

    >>> letters([0, 1, 2], {(0, 2)})
    {0: 'a', 1: 'ab', 2: 'b'}
    """
    groups: list[frozenset[int]] = [frozenset(places)]
    for first, second in sorted(apart):
        split: list[frozenset[int]] = []
        for group in groups:
            parts = [group - {first}, group - {second}] if {first, second} <= group else [group]
            split += [part for part in parts if part not in split]
        groups = [group for group in split if not any(group < other for other in split)]
    groups.sort(key=lambda group: sorted(places.index(place) for place in group))
    return {
        place: "".join(_letter(number) for number, group in enumerate(groups) if place in group)
        for place in places
    }


def _letter(number: int) -> str:
    return chr(ord("a") + number) if number < 26 else f"({number + 1})"


# Tests two evaluations against each other on the rows that both answered, from their records.


class Answers(NamedTuple):
    """Where the answers of one figure are."""

    name: str
    """Of the run, for readers."""
    path: Path | None
    """File of records; None where the run left none."""
    figure: str
    """As the run reports it."""
    metrics: tuple[str, ...]
    """Those of the evaluation."""


class PairedOutcome(NamedTuple):
    """A paired test, or why there is none."""

    difference: FigureDifference | None
    reason: str
    """Empty where there is a test."""
    verdicts: PairedVerdicts | None
    metric: Metric | None


class Pairing:
    """Tests pairs of answers; each file is read once."""

    def __init__(self) -> None:
        self._tables: dict[tuple[Path, str], Table | str] = {}

    def test(self, first: Answers, second: Answers) -> PairedOutcome:
        """Test `second` against `first`; the p-value is not adjusted."""
        named = _metric_of(first)
        if isinstance(named, str):
            return _not_tested(named)
        metric, figure = named
        sides = []
        for answers in (first, second):
            if answers.path is None:
                return _not_tested(f"{answers.name} left no records of single answers")
            table = self._table(answers.path, metric)
            if isinstance(table, str):
                return _not_tested(f"the records of {answers.name} cannot be used: {table}")
            sides.append(table)
        one, other = sides
        matched = match(one, other)
        if len(matched.index) < 2:
            return _not_tested(f"{first.name} and {second.name} answered no rows in common")
        if len(matched.other_references):
            return _not_tested(
                f"{first.name} and {second.name} were not evaluated on the same rows: "
                f"{len(matched.other_references):,} of {len(matched.index):,} have another reference"
            )
        verdicts = pair(metric.name, one, other, matched)
        try:
            return PairedOutcome(compare_figure(metric, verdicts, figure), "", verdicts, metric)
        except TunebookError as err:
            return _not_tested(err.problem)

    def _table(self, path: Path, metric: Metric) -> Table | str:
        key = path, metric.name
        if key not in self._tables:
            self._tables[key] = _read(path, metric)
        return self._tables[key]


def _not_tested(reason: str) -> PairedOutcome:
    return PairedOutcome(None, reason, None, None)


def _read(path: Path, metric: Metric) -> Table | str:
    try:
        tables = read_tables(path, Columns(), [metric], recorded=True)
    except TunebookError as err:
        return err.problem
    return next(iter(tables.values())) if len(tables) == 1 else "they are of several datasets"


def _metric_of(answers: Answers) -> tuple[Metric, str] | str:
    """The metric that made a figure, and the metric's own name for it; else why there is none."""
    for name in answers.metrics:
        try:
            metric = metrics.load(name)
        except TunebookError as err:
            return err.problem
        if answers.figure in metric.names or not metric.figures_complete:
            return metric, answers.figure
        own = answers.figure.removeprefix(f"{metric.short_name}_")
        if own in metric.names:
            return metric, own
    if not answers.metrics:
        return "no metric was at work, so that no single answers were written down"
    return f"no metric of {answers.name} gives single answers a {answers.figure}"


def answers_of(run: RunLog, name: str, evaluation: Evaluation | None, figure: str) -> Answers:
    """Where the answers of one evaluation are."""
    if evaluation is None:
        return Answers(name, None, figure, ())
    path = run.record_files.get((evaluation.dataset, evaluation.step))
    return Answers(name, path, figure, evaluation.metrics)


# Whether two figures put things in the same order, and how sure that is.

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


# 95 % intervals: of proportions, of figures with a standard error, and of F1-like figures.

_INTERVAL_DRAWS = 4000

Pairs = Counter[tuple[str, str | None]]
"""How often each (reference, parsed answer) occurred."""


def wilson_interval(value: float, n: int) -> ConfidenceInterval:
    """Interval of a proportion `value` out of `n`; also right at 0 and 1, where the usual one has no width.

    Source: Wilson (1927), https://doi.org/10.1080/01621459.1927.10502953.

    >>> round(wilson_interval(1.0, 100).low, 3)
    0.963
    """
    middle = (value + _Z**2 / (2 * n)) / (1 + _Z**2 / n)
    half = _Z / (1 + _Z**2 / n) * math.sqrt(value * (1 - value) / n + _Z**2 / (4 * n**2))
    return ConfidenceInterval(
        low=max(0.0, middle - half), high=min(1.0, middle + half), method=f"Wilson, n {n}"
    )


def normal_interval(value: float, stderr: float) -> ConfidenceInterval:
    """Interval of a mean with a standard error."""
    return ConfidenceInterval(
        low=value - _Z * stderr, high=value + _Z * stderr, method="1.96 standard errors"
    )


def yes_no_interval(name: str, value: float, counted: Pairs) -> ConfidenceInterval | None:
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
    figure = _YES_NO.get(name)
    if figure is None:
        return None
    counts = tuple(counted[cell] for cell in _CELLS)
    exact = figure(np.array([counts], dtype=np.float64))
    if not sum(counts) or abs(float(exact[0]) - value) > 1e-6:
        return None
    figures = figure(_draws(counts))
    low, high = np.quantile(figures, [0.025, 0.975])
    return ConfidenceInterval(
        low=min(float(low), value),
        high=max(float(high), value),
        method=f"posterior of the confusion counts, n {sum(counts)}",
    )


_CELLS = [(reference, parsed) for reference in ("yes", "no") for parsed in ("yes", "no", None)]


@lru_cache(maxsize=1)
def _draws(counts: tuple[int, ...]) -> NDArray[np.float64]:
    """Shares of `_CELLS`; those of one evaluation serve all its figures."""
    # No prior on "unparsed" where nothing was: it would say that a clean run has unread answers.
    prior = [
        1e-9 if parsed is None and count == 0 else 0.5
        for (_, parsed), count in zip(_CELLS, counts, strict=True)
    ]
    return np.random.default_rng(0).dirichlet(np.add(counts, prior), size=_INTERVAL_DRAWS)


def _share(part: NDArray[np.float64], whole: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.divide(part, whole, out=np.zeros_like(part), where=whole > 0)


# Each of rows of shares or counts of `_CELLS`.


def _f1(cells: NDArray[np.float64]) -> NDArray[np.float64]:
    tp, fn, fn_unread, fp, _, _ = cells.T
    return _share(2 * tp, 2 * tp + fn + fn_unread + fp)


def _f1_no(cells: NDArray[np.float64]) -> NDArray[np.float64]:
    _, fn, _, fp, tn, fp_unread = cells.T
    return _share(2 * tn, 2 * tn + fp + fp_unread + fn)


def _recall(cells: NDArray[np.float64]) -> NDArray[np.float64]:
    tp, fn, fn_unread, _, _, _ = cells.T
    return _share(tp, tp + fn + fn_unread)


def _specificity(cells: NDArray[np.float64]) -> NDArray[np.float64]:
    _, _, _, fp, tn, fp_unread = cells.T
    return _share(tn, tn + fp + fp_unread)


_YES_NO: dict[str, Callable[[NDArray[np.float64]], NDArray[np.float64]]] = {
    "f1": _f1,
    "macro_f1": lambda cells: (_f1(cells) + _f1_no(cells)) / 2,
    "precision": lambda cells: _share(cells.T[0], cells.T[0] + cells.T[3]),
    "recall": _recall,
    "balanced_accuracy": lambda cells: (_recall(cells) + _specificity(cells)) / 2,
}
