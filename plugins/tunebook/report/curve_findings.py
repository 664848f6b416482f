"""Findings that the curves give: what broke, what never moved, what turned the wrong way."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from tunebook.report.records import Finding
from tunebook.text import number

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from typing import Any

    from numpy.typing import NDArray

    from tunebook.report.best import Measured
    from tunebook.report.records import Best
    from tunebook.runlog import Evaluation, RunLog, Series

_SPIKE = 5.0
_WINDOW = 25
_FLAT_EVALUATIONS = 4


def not_finite(run: RunLog) -> Iterator[Finding]:
    """Loss or gradient norm that is nan or infinite."""
    for name in ("loss", "grad_norm"):
        series = run.series.get(name)
        if series is None:
            continue
        bad = ~np.isfinite(series.values)
        if bad.any():
            yield Finding(
                level="problem",
                title=f"{name} is not finite",
                evidence=f"{int(bad.sum())} of {len(bad)} logged values are nan or infinite, "
                f"the first at step {int(series.steps[bad][0])}",
                source=series.source,
            )


def zero_loss(run: RunLog) -> Iterator[Finding]:
    """A loss of exactly zero, which the Trainer logs in place of nan, and no model reaches."""
    series = run.series.get("loss")
    if series is None or len(series.values) < 2:
        return
    zero = series.values == 0.0
    if zero.any():
        yield Finding(
            level="problem",
            title="the training loss is exactly zero",
            evidence=f"at {int(zero.sum())} of {len(zero)} logged steps, first at step "
            f"{int(series.steps[zero][0])}: the Trainer leaves nan and infinite losses out of its mean, "
            "or no token carries loss",
            source=series.source,
        )


def spikes(run: RunLog) -> Iterator[Finding]:
    """Training losses far above the ones before them."""
    series = run.series.get("loss")
    if series is None:
        return
    places = spike_places(series.values)
    if len(places):
        worst = places[np.argmax(series.values[places])]
        yield Finding(
            level="warning",
            title=f"the training loss jumps up {len(places)} time{'s' if len(places) > 1 else ''}",
            evidence=f"highest at step {int(series.steps[worst])}: {number(float(series.values[worst]))}, "
            f"where the {_WINDOW} values before have a median of "
            f"{number(float(np.median(series.values[max(0, worst - _WINDOW) : worst])))}",
            source=series.source,
        )


def spike_places(losses: NDArray[np.float64]) -> NDArray[np.int64]:
    """Indices of values more than five times as far above the running median as values usually scatter.

    The first window of a run is left out, where the loss falls steeply.
    """
    if len(losses) <= 2 * _WINDOW:
        return np.zeros(0, dtype=np.int64)
    windows = np.lib.stride_tricks.sliding_window_view(losses, _WINDOW)[:-1]
    middle = np.median(windows, axis=1)
    spread = np.median(np.abs(windows - middle[:, None]), axis=1) * 1.4826
    above = losses[_WINDOW:] - middle
    found = np.flatnonzero((above > _SPIKE * spread) & (above > 0.5 * np.abs(middle))) + _WINDOW
    # Neighbours belong to one spike.
    apart: NDArray[Any] = np.append(True, np.diff(found) > 3) if len(found) else np.zeros(0, dtype=bool)
    kept: NDArray[np.int64] = found[apart]
    return kept


def overfitting(run: RunLog) -> Iterator[Finding]:
    """Evaluation loss that rises while the training loss falls."""
    for dataset, evaluations in _with_loss(run).items():
        where = f" on {dataset}" if dataset else ""
        losses = np.array([one.values["loss"] for one in evaluations])
        if len(losses) < 3 or not np.isfinite(losses).all():
            continue
        lowest = int(np.argmin(losses))
        rise = losses[-1] / losses[lowest] - 1
        training = run.series.get("loss")
        if training is None or lowest == len(losses) - 1 or rise < 0.05:
            continue
        before = _mean_around(training, evaluations[lowest].step)
        after = _mean_around(training, evaluations[-1].step)
        if before is not None and after is not None and after < before:
            yield Finding(
                level="warning",
                title=f"the evaluation loss rises while the training loss falls{where}",
                evidence=f"lowest {number(float(losses[lowest]))} at step {evaluations[lowest].step}, "
                f"{number(float(losses[-1]))} at step {evaluations[-1].step} ({rise:+.0%}); "
                f"the training loss went from {number(before)} to {number(after)}",
                source=evaluations[-1].source,
            )


def plateau(run: RunLog) -> Iterator[Finding]:
    """A chosen figure that never moved, as of a model that always gives the same answer."""
    groups: dict[str, list[Evaluation]] = {}
    for one in run.evaluations:
        if not one.after_training and one.select_by and one.select_by in one.values:
            groups.setdefault(one.dataset, []).append(one)
    for dataset, evaluations in groups.items():
        name = evaluations[0].select_by or ""
        values = {one.values.get(name) for one in evaluations}
        if len(evaluations) >= _FLAT_EVALUATIONS and len(values) == 1:
            yield Finding(
                level="warning",
                title=f"{name} on {dataset} never moved",
                evidence=f"{number(evaluations[0].values[name])} at all {len(evaluations)} evaluations",
                source=evaluations[-1].source,
            )


def no_gain(measured: Mapping[str, Sequence[Measured]], best: Sequence[Best]) -> Iterator[Finding]:
    """Many evaluations after the best one, none of which leaves its interval."""
    for one in best:
        figure = one.figure
        later = [
            m.evaluation
            for m in measured[figure.dataset]
            if m.evaluation.step > figure.step
            and not m.evaluation.after_training
            and np.isfinite(m.evaluation.values.get(figure.name, np.nan))
        ]
        if figure.interval is None or len(later) < _FLAT_EVALUATIONS:
            continue
        values = [evaluation.values[figure.name] for evaluation in later]
        if min(values) < figure.interval.low or max(values) > figure.interval.high:
            continue
        last = later[-1].step
        yield Finding(
            level="note",
            title=f"no gain in {figure.label} after step {figure.step:,} on {figure.dataset}",
            evidence=f"{len(later)} later evaluations lie between {number(min(values))} and "
            f"{number(max(values))}, within the 95 % interval of {number(figure.value)} at step "
            f"{figure.step:,}; {last - figure.step:,} of {last:,} steps came after it",
            source=figure.source,
        )


def _with_loss(run: RunLog) -> dict[str, list[Evaluation]]:
    found: dict[str, list[Evaluation]] = {}
    for one in run.evaluations:
        if "loss" in one.values and not one.after_training:
            found.setdefault(one.dataset, []).append(one)
    return found


def _mean_around(series: Series, step: int) -> float | None:
    near = series.values[np.abs(series.steps - step) <= max(1, int(series.steps[-1]) // 10)]
    near = near[np.isfinite(near)]
    return float(near.mean()) if len(near) else None


def missing_evaluations(run: RunLog, best: Sequence[Best]) -> Iterator[Finding]:
    """Evaluations of a dataset in which the chosen figure is missing or not finite."""
    chosen = {one.figure.dataset: one.figure.name for one in best}
    by_dataset: dict[str, list[Evaluation]] = {}
    for one in run.evaluations:
        if not one.after_training:
            by_dataset.setdefault(one.dataset, []).append(one)
    for dataset, evaluations in by_dataset.items():
        asked = next((one.select_by for one in evaluations if one.select_by), chosen.get(dataset))
        without = [
            one.step for one in evaluations if asked and not np.isfinite(one.values.get(asked, np.nan))
        ]
        if without:
            yield Finding(
                level="warning",
                title=f"{asked} is missing at some evaluations{f' of {dataset}' if dataset else ''}",
                evidence=f"at step {_list(without)}: {len(without)} of {len(evaluations)} evaluations",
                source=evaluations[0].source,
            )


def _list(steps: Sequence[int]) -> str:
    shown = ", ".join(str(step) for step in steps[:8])
    return f"{shown} and {len(steps) - 8} more" if len(steps) > 8 else shown
