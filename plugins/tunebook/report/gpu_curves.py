"""Charts of what was seen of the cards, by the clock: memory in use, utilisation, power."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from tunebook.report.chart_records import Chart
from tunebook.report.lines import about, line_of
from tunebook.runlog import Series

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tunebook.report.lines import Curves
    from tunebook.runlog.records import Gpu, TimeSeries

SECONDS = "seconds since the first sample"


class _Plan(NamedTuple):
    id: str
    title: str
    y_label: str
    attribute: str
    scale: float


_PLANS = (
    _Plan("gpu_memory", "Memory in use on the cards", "GiB, of all processes", "memory_mib", 1 / 1024),
    _Plan("gpu_utilization", "GPU utilisation", "per cent", "utilization_percent", 1.0),
    _Plan("gpu_power", "GPU power", "W", "power_w", 1.0),
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


def _card(gpu: Gpu) -> str:
    return " ".join(part for part in ("GPU", gpu.host, gpu.index) if part)


def _series(sampled: TimeSeries, scale: float) -> Series:
    seconds = np.round(sampled.seconds).astype(np.int64)
    return Series(name="", steps=seconds, values=sampled.values * scale, source=sampled.source)
