"""Whether the learning rate that was logged is the one that the recipe asks for, step by step."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from tunebook.checks.learning_rate import learning_rate
from tunebook.recipes.catalog import ENGINES
from tunebook.report.records import RunFinding
from tunebook.text import number

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from tunebook.runlog import RunLog, Series

_OFF = 0.02
"""Share of the recipe's rate by which a logged one has to be off; logs print four digits."""
_FEWEST_POINTS = 10
_FEWEST_OFF = 3


def schedule_differs(run: RunLog) -> Iterator[RunFinding]:
    """A learning rate that is not the recipe's, at some step or at its peak."""
    series, asked = run.series.get("learning_rate"), _number(run.settings, "learning_rate")
    if series is None or asked is None or asked <= 0 or len(series.values) < _FEWEST_POINTS:
        return
    steps = run.trainer.max_steps if run.trainer else None
    rate = _asked(run, asked, steps) if steps else None
    if rate is None or not steps:
        yield from _peak(series, asked)
        return
    wanted = np.array([_nearest(rate, step, steps) for step in series.steps.tolist()])
    # A log may name the step before or after the rate was set, and a console's steps are worked out.
    away = np.abs(wanted - series.values[:, None]).min(axis=1) / asked
    off = np.flatnonzero(np.isfinite(series.values) & (away > _OFF))
    if len(off) < max(_FEWEST_OFF, len(away) // 20):
        return
    worst = int(off[np.argmax(away[off])])
    name = run.settings.get("lr_scheduler_type" if run.engine == "llamafactory" else "lr_scheduler")
    yield RunFinding(
        level="warning",
        title="the learning rate is not the recipe's",
        evidence=f"at {len(off)} of {len(away)} logged steps, most at step {int(series.steps[worst])}: "
        f"{number(float(series.values[worst]))}, where the recipe ({name or 'the default scheduler'}, peak "
        f"{number(asked)}, {steps:,} steps) gives {number(float(wanted[worst, 1]))}",
        source=series.source,
    )


def _nearest(rate: Callable[[int], float], step: int, steps: int) -> list[float]:
    return [rate(min(max(near, 0), steps)) for near in (step - 2, step - 1, step, step + 1)]


def _asked(run: RunLog, peak: float, steps: int) -> Callable[[int], float] | None:
    """The recipe's rate by steps taken; None where it has no formula."""
    if run.engine not in ENGINES:
        return None
    try:
        return learning_rate(run.engine, run.settings, peak=peak, steps=steps)
    except (ValueError, TypeError):
        return None


def _peak(series: Series, asked: float) -> Iterator[RunFinding]:
    peak = float(np.nanmax(series.values))
    is_warm = float(series.values[-1]) < peak
    if peak / asked > 1 + _OFF or (is_warm and peak / asked < 0.8):
        yield RunFinding(
            level="warning",
            title="the learning rate is not the recipe's",
            evidence=f"its highest logged value is {number(peak)}, the recipe asks for {number(asked)}",
            source=series.source,
        )


def _number(values: Mapping[str, Any], key: str) -> float | None:
    value = values.get(key)
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None
