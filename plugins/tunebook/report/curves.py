"""Turns the series and evaluations of the runs into charts, as data."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from tunebook.report import figures
from tunebook.report.records import Chart, Line, Mark, Reference
from tunebook.report.thin import thin
from tunebook.runlog import Series

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from numpy.typing import NDArray

    from tunebook.report.best import Measured
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
    measured: Mapping[str, Sequence[Measured]]
    """By dataset."""
    best: Sequence[Best]


class _Plan(NamedTuple):
    id: str
    title: str
    y_label: str
    number_format: str
    y_zero: bool
    series: tuple[str, ...]
    """The first that the run has is drawn."""


_TRAINING_CHARTS = (
    _Plan("learning_rate", "Learning rate", "", "~e", True, ("learning_rate",)),
    _Plan("grad_norm", "Gradient norm", "norm before clipping", "~g", True, ("grad_norm",)),
    _Plan(
        "throughput",
        "Throughput",
        "tokens per second",
        "~s",
        True,
        ("train_tokens_per_second", "tokens/train_per_sec_per_gpu", "tokens_per_second_per_gpu"),
    ),
    _Plan("steps_per_second", "Speed", "steps per second", "~g", True, ("steps_per_second",)),
    _Plan(
        "memory", "GPU memory", "GiB", "~g", True, ("memory/max_active (GiB)", "memory/max_allocated (GiB)")
    ),
)


def charts(runs: Sequence[Curves]) -> tuple[Chart, ...]:
    """Every chart that the runs have data for; the chosen metrics first, then loss, then the rest."""
    several = len(runs) > 1
    metrics = _metric_charts(runs, several=several)
    chosen = {best.figure.name for run in runs for best in run.best if best.figure.name != "loss"}
    found = [
        replace(chart, secondary=False) for chart in metrics if chart.id.removeprefix("metric_") in chosen
    ]
    metrics = [chart for chart in metrics if chart.id not in {one.id for one in found}]
    loss = _loss_chart(runs, several=several)
    found += [loss] if loss.lines else []
    found += [chart for chart in metrics if chart not in found and not chart.secondary]
    for plan in _TRAINING_CHARTS:
        lines = [line for run in runs for line in _training_line(run, plan, len(runs), several=several)]
        if lines:
            found.append(_chart(plan, lines))
    found += [chart for chart in metrics if chart not in found]
    last = max((line.steps[-1] for chart in found for line in chart.lines if line.steps), default=1)
    return tuple(replace(chart, last_step=last) for chart in found)


def _key(run: Curves, kind: str, *, several: bool) -> str:
    return run.name if several else kind


def _line(
    run: Curves, series: Series, kind: str, share: int, *, several: bool, bounds: Bounds | None = None
) -> Line:
    limit = max(60, min(POINTS_PER_LINE, POINTS_PER_CHART // max(1, share)))
    kept = thin(series.values, limit)
    bad = ~np.isfinite(series.values)
    return Line(
        run=run.id,
        key=_key(run, kind, several=several),
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


def _training_line(run: Curves, plan: _Plan, share: int, *, several: bool) -> Iterable[Line]:
    for name in plan.series:
        if name in run.run.series:
            yield _line(run, run.run.series[name], TRAINING, share, several=several)
            return


def _chart(plan: _Plan, lines: Sequence[Line]) -> Chart:
    return Chart(
        id=plan.id,
        title=plan.title,
        y_label=plan.y_label,
        y_format=plan.number_format,
        y_zero=plan.y_zero,
        about=_about(plan.title, lines),
        last_step=0,
        lines=tuple(lines),
    )


def _evaluated(run: Curves, name: str, share: int, *, several: bool) -> Iterable[Line]:
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
        yield _line(
            run,
            series,
            dataset or "evaluation",
            share,
            several=several,
            bounds=bounds if any(ends) else None,
        )


def _loss_chart(runs: Sequence[Curves], *, several: bool) -> Chart:
    lines: list[Line] = []
    for run in runs:
        if "loss" in run.run.series:
            lines.append(_line(run, run.run.series["loss"], TRAINING, 2 * len(runs), several=several))
        lines += _evaluated(run, "loss", 2 * len(runs), several=several)
    return Chart(
        id="loss",
        title="Loss",
        y_label="cross-entropy, nats per token",
        y_format="~g",
        y_zero=False,
        about=_about("Loss", lines),
        last_step=0,
        lines=tuple(lines),
        log_scale=_spans_decades(lines),
    )


def _spans_decades(lines: Sequence[Line]) -> bool:
    values = [value for line in lines for value in line.values if value is not None]
    return bool(values) and min(values) > 0 and max(values) / min(values) >= 20


def _metric_charts(runs: Sequence[Curves], *, several: bool) -> list[Chart]:
    names = {
        name
        for run in runs
        for measured in run.measured.values()
        for one in measured
        for name in one.evaluation.values
    } - {"loss", figures.BASELINE, *figures.NOT_FIGURES}
    found = []
    for name in figures.order(names, None):
        known = figures.known(name)
        lines = [line for run in runs for line in _evaluated(run, name, len(runs), several=several)]
        if not lines or _is_flat(lines):
            continue
        label = figures.label(name)
        found.append(
            Chart(
                id=f"metric_{name}",
                title=label[0].upper() + label[1:],
                y_label="",
                y_format=known.number_format,
                y_zero=known.from_zero,
                about=_about(label, lines),
                last_step=0,
                lines=tuple(lines),
                references=_references(runs, name, several=several),
                marks=_marks(runs, name, several=several),
                secondary=name in figures.KNOWN and name not in figures.FIRST,
            )
        )
    return found


def _is_flat(lines: Sequence[Line]) -> bool:
    """Whether no curve ever moves, so that the table says it all."""
    return all(len(line.values) > 1 and len(set(line.values)) == 1 for line in lines)


def _references(runs: Sequence[Curves], name: str, *, several: bool) -> tuple[Reference, ...]:
    if name != "accuracy":
        return ()
    found: dict[float, Reference] = {}
    for run in runs:
        for dataset, measured in run.measured.items():
            values = [one.evaluation.values.get(figures.BASELINE) for one in measured]
            value = next((value for value in reversed(values) if value is not None), None)
            if value is not None:
                key = _key(run, dataset or "evaluation", several=several)
                found.setdefault(value, Reference(key=key, label="always the commoner answer", value=value))
    return tuple(found.values())


def _marks(runs: Sequence[Curves], name: str, *, several: bool) -> tuple[Mark, ...]:
    return tuple(
        Mark(
            key=_key(run, best.figure.dataset or "evaluation", several=several),
            label=f"best: step {best.figure.step}",
            step=best.figure.step,
            value=best.figure.value,
        )
        for run in runs
        for best in run.best
        if best.figure.name == name
    )


def _about(title: str, lines: Sequence[Line]) -> str:
    """The picture in words: where each curve starts, ends, and its extremes."""
    return f"{title} over optimizer steps. " + " ".join(_in_words(line) for line in lines[:6])


def _in_words(line: Line) -> str:
    points = [(step, value) for step, value in zip(line.steps, line.values, strict=True) if value is not None]
    if not points:
        return f"{line.label}: no finite value."
    (first, start), (last, end) = points[0], points[-1]
    low, high = min(points, key=lambda p: p[1]), max(points, key=lambda p: p[1])
    return (
        f"{line.label}: {start:.4g} at step {first}, {end:.4g} at step {last}; "
        f"lowest {low[1]:.4g} at step {low[0]}, highest {high[1]:.4g} at step {high[0]}."
    )
