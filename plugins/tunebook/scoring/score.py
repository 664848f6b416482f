"""Scores predictions with one metric, in this process or in several, and sums the scores up.

Memory holds one small record an example, never the texts: equal scores share one record.
"""

from __future__ import annotations

import multiprocessing
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any, NamedTuple

import numpy as np

from tunebook import metrics
from tunebook.errors import TunebookError
from tunebook.metrics import statistics
from tunebook.metrics.statistics import Interval
from tunebook.scoring.prediction_files import PredictionRow
from tunebook.types import UNPARSED, Metric, Score

_BATCH = 256
_IN_FLIGHT_PER_WORKER = 3
_KEPT_TEXT = 64
"""Characters of a parsed answer kept for the summary: a class, a number or a letter, but no essay."""
_RESAMPLE_BUDGET = 300_000
"""Scores aggregated in all for the interval of a figure that is no mean, e.g. F1."""
_FEWEST_RESAMPLES = 100


class Scored(NamedTuple):
    """A row and the verdict on it."""

    row: PredictionRow
    score: Score


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """The value of one figure over all examples, and how sure it is."""

    value: float
    interval: Interval | None
    """95 %; None where none is defined or it would take too long."""
    method: str | None
    """How the interval was made: `wilson` or `bootstrap`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """What a metric says about a file of predictions."""

    metric: str
    n: int
    figures: Mapping[str, Estimate]
    signature: str | None
    """How the figures were computed, e.g. sacrebleu's signature, to be published with them."""
    n_unparsed: int
    unparsed_reasons: Mapping[str, int]
    rules: Mapping[str, int]
    """How many answers each rule read."""
    confusion: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    """For answers of a few classes: reference -> answer -> how many; `unparsed` for those that are none."""


def score_rows(metric: str, rows: Iterable[PredictionRow], *, workers: int = 1) -> Iterator[Scored]:
    """Score rows in their order.

    Args:
        metric: A name that `metrics.load` knows; each worker loads it for itself.
        workers: Processes; 1 for none but this one.

    Raises:
        TunebookError: A reference cannot be used, naming its row; the metric cannot be loaded.
    """
    if workers == 1:
        loaded = metrics.load(metric)
        for row in rows:
            yield Scored(row, _score(loaded, row))
        return
    # Spawned, not forked: a caller may have threads, and a fork copies their locks.
    with multiprocessing.get_context("spawn").Pool(workers, _load_in_worker, (metric,)) as pool:
        iterator = iter(rows)
        pending: deque[tuple[list[PredictionRow], Any]] = deque()
        while True:
            batch = list(islice(iterator, _BATCH))
            if batch:
                pending.append((batch, pool.apply_async(_score_in_worker, (batch,))))
            # A bounded queue: `imap` would read the whole file ahead.
            while pending and (not batch or len(pending) > workers * _IN_FLIGHT_PER_WORKER):
                done, result = pending.popleft()
                yield from map(Scored, done, result.get())
            if not batch:
                return


_loaded_in_worker: Metric


def _load_in_worker(name: str) -> None:
    global _loaded_in_worker
    _loaded_in_worker = metrics.load(name)


def _score_in_worker(batch: list[PredictionRow]) -> list[Score]:
    return [_score(_loaded_in_worker, row) for row in batch]


def _score(metric: Metric, row: PredictionRow) -> Score:
    try:
        return metric.score(row.prediction, row.reference)
    except ValueError as error:
        raise TunebookError(
            f"row {row.number + 1} cannot be scored with {metric.name}: {error}",
            fix="correct the reference of that row, or choose the metric that fits these data",
        ) from error


# -------------------------------------------------------------------------------------------- summing up


class Collector:
    """Keeps what the summary needs of each score."""

    def __init__(self, metric: Metric) -> None:
        self._metric = metric
        self._scores: list[Score] = []
        self._seen: dict[tuple[object, ...], Score] = {}

    def add(self, score: Score) -> None:
        """Add one score."""
        kept = replace(
            score,
            parsed=None if score.parsed is None else score.parsed[:_KEPT_TEXT],
            reference=None if score.reference is None else score.reference[:_KEPT_TEXT],
        )
        key = (kept.parsed, kept.reference, kept.rule, kept.reason, *kept.values.items())
        # Only so many: figures such as ROUGE differ from one example to the next.
        if len(self._seen) < _BATCH or key in self._seen:
            kept = self._seen.setdefault(key, kept)
        self._scores.append(kept)

    def summary(self) -> Summary:
        """Figures with their intervals over all scores.

        Raises:
            ValueError: There are no scores.
        """
        if not self._scores:
            raise ValueError("a summary needs at least one score")
        scores = self._scores
        figures = self._metric.aggregate(scores)
        return Summary(
            metric=self._metric.name,
            n=len(scores),
            figures=with_intervals(self._metric.aggregate, scores, figures),
            signature=self._metric.signature and self._metric.signature(),
            n_unparsed=sum(score.parsed is None for score in scores),
            unparsed_reasons=statistics.unparsed_reasons(scores),
            rules=statistics.counts_by_rule(scores),
            confusion=_confusion(scores) if self._metric.classes else {},
        )


def _confusion(scores: Sequence[Score]) -> dict[str, dict[str, int]]:
    counts = Counter((score.reference or "", score.parsed or "unparsed") for score in scores)
    found: dict[str, dict[str, int]] = {}
    for (reference, answer), n in sorted(counts.items()):
        found.setdefault(reference, {})[answer] = n
    return found


def with_intervals(
    aggregate: Callable[[Sequence[Score]], Mapping[str, float]],
    scores: Sequence[Score],
    figures: Mapping[str, float],
) -> dict[str, Estimate]:
    """Give each figure a 95 % interval.

    Wilson's for a share of examples, the bootstrap's over examples for a mean; for any other figure the
    bootstrap of the whole aggregate, up to a few thousand examples. Seeded: the same scores, the same
    intervals.
    """
    n = len(scores)
    resampled = _resampled(aggregate, scores, figures)
    result = {}
    for name, value in figures.items():
        column = _column(scores, name)
        if column is not None and abs(float(column.mean()) - value) < 1e-9:
            if np.isin(column, (0.0, 1.0)).all():
                interval, method = statistics.wilson(round(float(column.sum())), n), "wilson"
            else:
                interval, method = statistics.bootstrap_mean(column), "bootstrap"
            result[name] = Estimate(value=value, interval=interval, method=method)
        elif name == UNPARSED.name:
            share = statistics.wilson(sum(score.parsed is None for score in scores), n)
            result[name] = Estimate(value=value, interval=share, method="wilson")
        else:
            interval_or_none = resampled.get(name)
            method_or_none = "bootstrap" if interval_or_none else None
            result[name] = Estimate(value=value, interval=interval_or_none, method=method_or_none)
    return result


def _column(scores: Sequence[Score], name: str) -> np.ndarray[tuple[int], np.dtype[np.float64]] | None:
    """The per-example values of a figure, where every score has one."""
    if not all(name in score.values for score in scores):
        return None
    return np.array([score.values[name] for score in scores], dtype=np.float64)


def _resampled(
    aggregate: Callable[[Sequence[Score]], Mapping[str, float]],
    scores: Sequence[Score],
    figures: Mapping[str, float],
) -> dict[str, Interval]:
    n = len(scores)
    resamples = min(1_000, _RESAMPLE_BUDGET // n)
    others = [name for name in figures if any(name not in score.values for score in scores)]
    if resamples < _FEWEST_RESAMPLES or not set(others) - {UNPARSED.name}:
        return {}
    generator = np.random.default_rng(0)
    columns: dict[str, list[float]] = {name: [] for name in others}
    for _ in range(resamples):
        drawn = aggregate([scores[at] for at in generator.integers(0, n, n)])
        for name in others:
            if name in drawn:
                columns[name].append(drawn[name])
    # A figure that some resamples leave undefined, or that none of them moves, has no honest interval.
    return {
        name: Interval(*(float(bound) for bound in np.quantile(values, (0.025, 0.975))))
        for name, values in columns.items()
        if len(values) == resamples and min(values) < max(values)
    }
