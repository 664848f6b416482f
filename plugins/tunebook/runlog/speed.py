"""Derives speed from the clock that a log carries, where the engine logged none."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from tunebook.runlog.records import Series

if TYPE_CHECKING:
    from collections.abc import Mapping

_MIN_SECONDS = 10.0


def steps_per_second(series: Mapping[str, Series]) -> Series | None:
    """Optimizer steps per second over stretches of at least 10 s and of a hundredth of the run.

    The clock is in whole seconds, so that a stretch of 10 s is right to a tenth. It runs on during
    evaluation and saving.

    Returns:
        None where no clock was logged or the run is shorter than three stretches.
    """
    clock = series.get("elapsed_seconds")
    if clock is None or len(clock.steps) < 2:
        return None
    stretch = max(_MIN_SECONDS, float(clock.values[-1] - clock.values[0]) / 100)
    kept = [0]
    for at, seconds in enumerate(clock.values.tolist()):
        if seconds - clock.values[kept[-1]] >= stretch:
            kept.append(at)
    if len(kept) < 4:
        return None
    steps, seconds = clock.steps[kept], clock.values[kept]
    return Series(
        name="steps_per_second",
        steps=steps[1:],
        values=np.diff(steps) / np.diff(seconds),
        source=f"{clock.source} (elapsed_time, over stretches of at least {stretch:.0f} s)",
    )
