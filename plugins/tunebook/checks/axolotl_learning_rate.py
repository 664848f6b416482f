"""The learning rate of every step as Axolotl has it: its own schedulers, and transformers' for the rest.

After axolotl/core/trainers/mixins/scheduler.py and axolotl/utils/schedulers.py.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from tunebook.checks.learning_rate import schedule
from tunebook.checks.number_like import as_number

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


def axolotl_schedule(
    values: Mapping[str, Any], *, peak: float, steps: int, warmup: int = 0
) -> Callable[[int], float]:
    """Return the learning rate as a function of the optimizer steps already taken, 0 to `steps`.

    Args:
        values: The recipe.
        peak: Its learning rate.
        steps: Optimizer steps of the run.
        warmup: Those of them that warm up.

    Raises:
        ValueError: The scheduler has no formula here, or an option it needs is missing.
    """
    name = str(values.get("lr_scheduler") or "cosine")
    floor = as_number(values.get("cosine_min_lr_ratio")) or 0.0
    held = as_number(values.get("cosine_constant_lr_ratio"))
    if values.get("jagged_restart_steps"):
        raise ValueError("no formula for a rate with restarts (jagged_restart_steps)")
    if name == "rex":
        return _rex(peak, steps, warmup, floor)
    if name == "cosine" and values.get("lr_quadratic_warmup") is True:
        after = schedule("cosine", peak=peak, steps=steps, warmup=warmup)
        return lambda step: peak * (step / max(1, warmup)) ** 2 if step < warmup else after(step)
    if name == "cosine" and floor:
        return _cosine(peak, steps if not held else int(steps * held), warmup, floor)
    return schedule(
        name, peak=peak, steps=steps, warmup=warmup, options=values.get("lr_scheduler_kwargs") or {}
    )


def axolotl_warmup(values: Mapping[str, Any], steps: int) -> int:
    """Return the warmup steps of a run of `steps`: 3 %, at most 100, where the recipe says nothing."""
    told, share = as_number(values.get("warmup_steps")), as_number(values.get("warmup_ratio"))
    if told is not None:
        warmup = int(told)
    elif share is not None:
        warmup = int(share * steps)
    else:
        warmup = min(int(0.03 * steps), 100)
    return 2 if warmup == 1 else warmup


def _cosine(peak: float, end: int, warmup: int, floor: float) -> Callable[[int], float]:
    """A cosine from `peak` to `floor * peak` at step `end`, and `floor * peak` from there on."""

    def rate(step: int) -> float:
        if step < warmup:
            return peak * step / max(1, warmup)
        progress = (min(step, end) - warmup) / max(1, end - warmup)
        return peak * ((1 - floor) * 0.5 * (1 + math.cos(math.pi * progress)) + floor)

    return rate


def _rex(peak: float, steps: int, warmup: int, floor: float) -> Callable[[int], float]:
    """REX (arXiv:2107.04197), as Axolotl steps it: one step ahead of the optimizer."""
    rest = steps - warmup

    def rate(step: int) -> float:
        ahead = step + 1
        if ahead <= warmup:
            return peak * ahead / warmup
        if ahead - warmup >= rest:
            return peak * floor
        left = (rest - (ahead - warmup)) / rest
        return peak * (floor + (1 - floor) * left / (0.1 + 0.9 * left))

    return rate
