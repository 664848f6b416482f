"""Makes the curves of charts: of a logged series, or of one figure over the evaluations."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from tunebook.report.records import Line
from tunebook.runlog import Series

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from numpy.typing import NDArray

    from tunebook.report.best import MeasuredEvaluation
    from tunebook.report.records import Best
    from tunebook.runlog import RunLog


POINTS_PER_CHART = 12_000
POINTS_PER_LINE = 1_500
TRAINING = "training"


class Curves(NamedTuple):
    """What the charts need of one run."""

    id: str
    name: str
    run: RunLog
    measured: Mapping[str, Sequence[MeasuredEvaluation]]
    """By dataset."""
    best: Sequence[Best]


def key_of(run: Curves, kind: str, *, several: bool) -> str:
    """What the legend toggles a curve by: the run where there are several, else the kind of curve."""
    return run.name if several else kind


def line_of(
    run: Curves, series: Series, kind: str, share: int, *, several: bool, bounds: Bounds | None = None
) -> Line:
    """A curve of a series, thinned to its share of the points that a chart may have.

    Args:
        run: The run it belongs to.
        series: What is drawn.
        kind: `training`, or the evaluated set.
        share: Curves in the chart.
        several: The report has several runs.
        bounds: Ends of the intervals of each point.
    """
    limit = max(60, min(POINTS_PER_LINE, POINTS_PER_CHART // max(1, share)))
    kept = thin(series.values, limit)
    bad = ~np.isfinite(series.values)
    return Line(
        run=run.id,
        key=key_of(run, kind, several=several),
        label=f"{run.name}, {kind}" if several else kind,
        dataset=kind,
        steps=series.steps[kept].tolist(),
        values=_rounded(series.values[kept]),
        low=_rounded(bounds.low[kept]) if bounds else None,
        high=_rounded(bounds.high[kept]) if bounds else None,
        logged=len(series.steps),
        not_finite=series.steps[bad][:20].tolist(),
        source=series.source,
    )


class Bounds(NamedTuple):
    """Ends of intervals, nan where a point has none."""

    low: NDArray[np.float64]
    high: NDArray[np.float64]


def _rounded(values: NDArray[np.float64]) -> list[float | None]:
    """Six significant digits, which no screen can show more of; None for what is not finite."""
    return [float(f"{value:.6g}") if np.isfinite(value) else None for value in values.tolist()]


def evaluated(run: Curves, name: str, share: int, *, several: bool) -> Iterable[Line]:
    """The line of one figure for each dataset that has it."""
    for dataset, measured in run.measured.items():
        points = [
            one for one in measured if not one.evaluation.after_training and name in one.evaluation.values
        ]
        if not points:
            continue
        nan = float("nan")
        series = Series(
            name=name,
            steps=np.array([one.evaluation.step for one in points], dtype=np.int64),
            values=np.array([one.evaluation.values[name] for one in points]),
            source=points[-1].evaluation.source,
        )
        ends = [one.intervals.get(name) for one in points]
        bounds = Bounds(
            np.array([end.low if end else nan for end in ends]),
            np.array([end.high if end else nan for end in ends]),
        )
        yield line_of(
            run,
            series,
            dataset or "evaluation",
            share,
            several=several,
            bounds=bounds if any(ends) else None,
        )


def about(title: str, lines: Sequence[Line], over: str | None = None) -> str:
    """The picture in words: where each curve starts, ends, and its extremes.

    Args:
        title: What is shown.
        lines: The curves, of which the first six are described.
        over: What the horizontal axis counts; None for optimizer steps.
    """
    at = "second" if over else "step"
    return f"{title} over {over or 'optimizer steps'}. " + " ".join(_in_words(line, at) for line in lines[:6])


def _in_words(line: Line, at: str) -> str:
    points = [(step, value) for step, value in zip(line.steps, line.values, strict=True) if value is not None]
    if not points:
        return f"{line.label}: no finite value."
    (first, start), (last, end) = points[0], points[-1]
    low, high = min(points, key=lambda p: p[1]), max(points, key=lambda p: p[1])
    return (
        f"{line.label}: {start:.4g} at {at} {first}, {end:.4g} at {at} {last}; "
        f"lowest {low[1]:.4g} at {at} {low[0]}, highest {high[1]:.4g} at {at} {high[0]}."
    )


def thinned(line: Line, limit: int) -> Line:
    """A curve of at most about so many points, without intervals, for where it is drawn small."""
    kept = thin(np.array([np.nan if value is None else value for value in line.values]), limit).tolist()
    return replace(
        line,
        steps=[line.steps[at] for at in kept],
        values=[line.values[at] for at in kept],
        low=None,
        high=None,
        not_finite=[],
    )


# Thins a series for drawing, in a way that no spike and no dip is lost.


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
