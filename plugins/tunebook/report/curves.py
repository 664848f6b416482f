"""Turns the series and evaluations of the runs into charts, as data."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from tunebook.report import figures
from tunebook.report.charts import FEWEST_PANELS, run_by_run
from tunebook.report.lines import TRAINING, Curves, about, evaluated, key_of, line_of
from tunebook.report.objective import objective_of
from tunebook.report.records import Chart, Line, Mark, Reference, StepRule
from tunebook.runlog import Series

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from tunebook.report.lines import Curves
    from tunebook.runlog.records import TimeSeries, WatchedGpu


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
        "memory", "GPU memory", "GiB", "~s", True, ("memory/max_active (GiB)", "memory/max_allocated (GiB)")
    ),
)


def charts(runs: Sequence[Curves]) -> tuple[Chart, ...]:
    """Every chart that the runs have data for; the chosen metrics first, then loss, then the rest."""
    several = len(runs) > 1
    metrics = _metric_charts(runs, several=several)
    chosen = {_id(best.figure.name) for run in runs for best in run.best if best.figure.name != "loss"}
    chosen_metrics = [replace(chart, secondary=False) for chart in metrics if chart.id in chosen]
    # A policy's loss says nothing of success: its reward comes first.
    chosen_metrics += [
        chart for chart in metrics if chart.id == "metric_reward" and chart not in chosen_metrics
    ]
    found = list(chosen_metrics)
    metrics = [chart for chart in metrics if chart.id not in {one.id for one in found}]
    loss = _loss_chart(runs, several=several)
    found += [loss] if loss.lines else []
    found += [chart for chart in metrics if chart not in found and not chart.secondary]
    for plan in _TRAINING_CHARTS:
        lines = [line for run in runs for line in _training_line(run, plan, len(runs), several=several)]
        if lines:
            found.append(_chart(plan, lines))
    found += length_charts(runs, several=several)
    if len(runs) >= FEWEST_PANELS:
        main = [chart for chart in found if chart.id == loss.id or chart in chosen_metrics]
        found += run_by_run(main[:2])
    found += [chart for chart in metrics if chart not in found]
    last = max((line.steps[-1] for chart in found for line in chart.lines if line.steps), default=1)
    restarts = _restarts(runs, several=several)
    over_steps = [replace(chart, last_step=last, rules=restarts) for chart in found]
    return (*over_steps, *gpu_charts(runs, several=several))


def _restarts(runs: Sequence[Curves], *, several: bool) -> tuple[StepRule, ...]:
    return tuple(
        StepRule(
            key=key_of(run, TRAINING, several=several),
            label=f"{run.name} resumed" if several else "resumed",
            step=restart.resumed_at_step,
        )
        for run in runs
        for restart in run.run.restarts
        if restart.resumed_at_step is not None
    )


def _training_line(run: Curves, plan: _Plan, share: int, *, several: bool) -> Iterable[Line]:
    for name in plan.series:
        # A run on the CPU logs zeros of GPU memory, which measure nothing.
        if name in run.run.series and (plan.id != "memory" or np.nanmax(run.run.series[name].values) > 0):
            yield line_of(run, run.run.series[name], TRAINING, share, several=several)
            return


def _chart(plan: _Plan, lines: Sequence[Line]) -> Chart:
    return Chart(
        id=plan.id,
        title=plan.title,
        y_label=plan.y_label,
        y_format=plan.number_format,
        y_zero=plan.y_zero,
        about=about(plan.title, lines),
        last_step=0,
        lines=tuple(lines),
    )


def _loss_chart(runs: Sequence[Curves], *, several: bool) -> Chart:
    lines: list[Line] = []
    for run in runs:
        if "loss" in run.run.series:
            lines.append(line_of(run, run.run.series["loss"], TRAINING, 2 * len(runs), several=several))
        lines += evaluated(run, "loss", 2 * len(runs), several=several)
    return Chart(
        id="loss",
        title="Loss",
        y_label=_what_the_loss_is(runs),
        y_format="~g",
        y_zero=False,
        about=about("Loss", lines),
        last_step=0,
        lines=tuple(lines),
        log_scale=_spans_decades(lines),
    )


def _what_the_loss_is(runs: Sequence[Curves]) -> str:
    """The losses of the runs, each called what it is."""
    said = dict.fromkeys(objective_of(run.run).loss for run in runs)
    return "; ".join(said)


_SIGNALS = re.compile(
    r"reward|reward_std|rewards/.+|kl|objective/(kl|entropy|rlhf_reward|scores)|entropy|completion_length"
    r"|completions/(mean_length|clipped_ratio)|clip_ratio(/region_mean)?|frac_reward_zero_std|logps/.+|logits/.+"
    r"|log_odds_ratio|nll_loss|sft_loss|margin|mean_reward|accuracy|mean_token_accuracy|response_length"
)
"""What trainers of preferences and rewards log in training beside the loss."""
_MAIN_SIGNALS = (
    "reward",
    "rewards/accuracies",
    "rewards/margins",
    "kl",
    "completions/mean_length",
    "completion_length",
)


def _spans_decades(lines: Sequence[Line]) -> bool:
    values = [value for line in lines for value in line.values if value is not None]
    return bool(values) and min(values) > 0 and max(values) / min(values) >= 20


def _metric_charts(runs: Sequence[Curves], *, several: bool) -> list[Chart]:
    evaluations = [one.evaluation for run in runs for measured in run.measured.values() for one in measured]
    names = {name for one in evaluations for name in one.values if not length_bucket(name)}
    signals = {name for run in runs for name in run.run.series if _SIGNALS.fullmatch(name)}
    names = (names | signals) - {"loss", figures.BASELINE, *figures.NOT_FIGURES}
    measured_by = tuple(dict.fromkeys(name for one in evaluations for name in one.metrics))
    found = []
    for name in figures.order(names, None, measured_by):
        declared = figures.figure(name, measured_by)
        lines = [
            line_of(run, run.run.series[name], TRAINING, 2 * len(runs), several=several)
            for run in runs
            if name in signals and name in run.run.series
        ]
        lines += [line for run in runs for line in evaluated(run, name, len(runs), several=several)]
        if not lines or _is_flat(lines):
            continue
        found.append(
            Chart(
                id=_id(name),
                title=declared.label[0].upper() + declared.label[1:],
                y_label="",
                y_format="~g",
                y_zero=declared.from_zero,
                about=about(declared.label, lines),
                last_step=0,
                lines=tuple(lines),
                references=_references(runs, name, several=several),
                marks=_marks(runs, name, several=several),
                secondary=declared.detail or (name in signals and name not in _MAIN_SIGNALS),
            )
        )
    return found


def _id(name: str) -> str:
    """The chart's name, which is a file name too."""
    return "metric_" + re.sub(r"[^\w.-]", "_", name)


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
                key = key_of(run, dataset or "evaluation", several=several)
                found.setdefault(value, Reference(key=key, label="majority baseline", value=value))
    return tuple(found.values())


def _marks(runs: Sequence[Curves], name: str, *, several: bool) -> tuple[Mark, ...]:
    return tuple(
        Mark(
            key=key_of(run, best.figure.dataset or "evaluation", several=several),
            label=f"best: step {best.figure.step}",
            step=best.figure.step,
            value=best.figure.value,
        )
        for run in runs
        for best in run.best
        if best.figure.name == name
    )


# Charts of a figure by the length of the reference: a curve for each range of lengths.

_NAME = re.compile(r"(?P<figure>.+)_ref_(?P<low>\d+)_(?P<high>\d+|up)")


class LengthBucket(NamedTuple):
    """A figure over the rows whose references have so many words or tokens."""

    figure: str
    low: int
    label: str


def length_bucket(name: str) -> LengthBucket | None:
    """What a figure's name says of lengths; None where it says nothing.

    >>> length_bucket("rougeL_ref_128_511")
    LengthBucket(figure='rougeL', low=128, label='128 to 511')
    >>> length_bucket("rougeL_ref_8192_up").label
    '8,192 and more'
    """
    match = _NAME.fullmatch(name)
    if match is None:
        return None
    low, high = int(match["low"]), match["high"]
    label = f"{low:,} and more" if high == "up" else f"{low:,} to {int(high):,}"
    return LengthBucket(match["figure"], low, label)


def length_charts(runs: Sequence[Curves], *, several: bool) -> Iterator[Chart]:
    """One chart for each figure that some evaluation has by length."""
    names = {
        name
        for run in runs
        for measured in run.measured.values()
        for m in measured
        for name in m.evaluation.values
    }
    buckets = sorted(
        (bucket, name) for name in names if (bucket := length_bucket(name)) and bucket.figure != "n"
    )
    for figure in dict.fromkeys(bucket.figure for bucket, _ in buckets):
        lines = []
        for bucket, name in buckets:
            if bucket.figure != figure:
                continue
            for run in runs:
                for line in evaluated(run, name, len(runs) * len(buckets), several=several):
                    kind = f"{bucket.label} words"
                    where = f"{line.label}, {kind}" if several or len(run.measured) > 1 else kind
                    lines.append(replace(line, key=line.key if several else where, label=where, dataset=kind))
        if not lines:
            continue
        declared = figures.figure(figure)
        label = declared.label
        yield Chart(
            id="by_length_" + re.sub(r"[^\w.-]", "_", figure),
            title=f"{label[0].upper()}{label[1:]} by length of the reference",
            y_label="",
            y_format="~g",
            y_zero=declared.from_zero,
            about=about(f"{label} by length of the reference", lines),
            last_step=0,
            lines=tuple(lines),
        )


# Charts of what was seen of the cards, by the clock: memory in use, utilisation, power.

SECONDS = "seconds since the first sample"


class _GpuPlan(NamedTuple):
    id: str
    title: str
    y_label: str
    attribute: str
    scale: float


_PLANS = (
    _GpuPlan("gpu_memory", "Memory in use on the cards", "GiB, of all processes", "memory_mib", 1 / 1024),
    _GpuPlan("gpu_utilization", "GPU utilisation", "per cent", "utilization_percent", 1.0),
    _GpuPlan("gpu_power", "GPU power", "W", "power_w", 1.0),
)


def gpu_charts(runs: Sequence[Curves], *, several: bool) -> Iterator[Chart]:
    """The charts that the watched cards have samples for."""
    for plan in _PLANS:
        watched = [
            (run, gpu, series)
            for run in runs
            for gpu in run.run.gpus
            if (series := getattr(gpu, plan.attribute)) is not None and len(series.values)
        ]
        lines = [
            line_of(run, _series(series, plan.scale), _card(gpu), len(watched), several=several)
            for run, gpu, series in watched
        ]
        if lines:
            yield Chart(
                id=plan.id,
                title=plan.title,
                y_label=plan.y_label,
                y_format="~s",
                y_zero=True,
                about=about(plan.title, lines, over=SECONDS),
                last_step=max(line.steps[-1] for line in lines),
                lines=tuple(lines),
                x_label=SECONDS,
                secondary=plan.id == "gpu_power",
            )


def _card(gpu: WatchedGpu) -> str:
    return " ".join(part for part in ("GPU", gpu.host, gpu.index) if part)


def _series(sampled: TimeSeries, scale: float) -> Series:
    seconds = np.round(sampled.seconds).astype(np.int64)
    return Series(name="", steps=seconds, values=sampled.values * scale, source=sampled.source)
