"""The learning rate of every step, as the engine will have it, without the engine.

By the formulas of transformers/optimization.py; Axolotl's own schedulers after
axolotl/core/trainers/mixins/scheduler.py and axolotl/utils/schedulers.py.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from tunebook.checks.recipe import as_number

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from tunebook.types import EngineName


SCHEDULERS: dict[str, tuple[str, ...]] = {
    "constant": (),
    "constant_with_warmup": (),
    "linear": (),
    "cosine": ("num_cycles",),
    "cosine_with_restarts": ("num_cycles",),
    "polynomial": ("lr_end", "power"),
    "inverse_sqrt": ("timescale",),
    "cosine_with_min_lr": ("num_cycles", "min_lr", "min_lr_rate"),
    "cosine_warmup_with_min_lr": ("num_cycles", "min_lr", "min_lr_rate", "warmup_lr_rate"),
    "warmup_stable_decay": (
        *("num_decay_steps", "num_stable_steps", "warmup_type", "decay_type", "min_lr_ratio", "num_cycles"),
    ),
}
"""Schedulers that are functions of the step, and the `lr_scheduler_kwargs` each one takes."""


def learning_rate(
    engine: EngineName, values: Mapping[str, Any], *, peak: float, steps: int
) -> Callable[[int], float]:
    """Return a recipe's learning rate as a function of the optimizer steps already taken, 0 to `steps`.

    Args:
        engine: Whose recipe it is.
        values: The recipe.
        peak: Its learning rate.
        steps: Optimizer steps of the run.

    Raises:
        ValueError: The scheduler has no formula here, or an option it needs is missing.
        TypeError: An option is no number.
    """
    warmup = warmup_steps(engine, values, steps)
    if engine == "axolotl":
        return axolotl_schedule(values, peak=peak, steps=steps, warmup=warmup)
    options = values.get("lr_scheduler_kwargs")
    name = str(values.get("lr_scheduler_type") or "linear")
    given = options if isinstance(options, dict) else None
    return schedule(name, peak=peak, steps=steps, warmup=warmup, options=given)


def warmup_steps(engine: EngineName, values: Mapping[str, Any], steps: int) -> int:
    """Return how many of the `steps` of a run warm up.

    In LLaMA-Factory as TrainingArguments.get_warmup_steps of transformers 5 has it: a value below 1 is a
    share of the run.
    """
    if engine == "axolotl":
        return axolotl_warmup(values, steps)
    value = as_number(values.get("warmup_ratio")) or as_number(values.get("warmup_steps")) or 0.0
    return int(value) if value >= 1 else math.ceil(steps * value)


def schedule(
    name: str, *, peak: float, steps: int, warmup: int = 0, options: Mapping[str, Any] | None = None
) -> Callable[[int], float]:
    """Return the learning rate as a function of the optimizer steps already taken, 0 to `steps`.

    Args:
        name: One of `SCHEDULERS`.
        peak: The recipe's learning rate.
        steps: Optimizer steps of the run.
        warmup: Those of them that warm up.
        options: `lr_scheduler_kwargs`.

    Raises:
        ValueError: The scheduler is none of these, or an option it needs is missing.

    >>> rate = schedule("linear", peak=1e-4, steps=100, warmup=10)
    >>> [f"{rate(step):.1e}" for step in (0, 10, 55, 100)]
    ['0.0e+00', '1.0e-04', '5.0e-05', '0.0e+00']
    """
    given = dict(options or {})
    if name == "cosine_warmup_with_min_lr":
        return _one_ahead(peak, steps, warmup, given)
    if name not in _AFTER_WARMUP:
        raise ValueError(f"no formula for the scheduler {name!r}")
    after = _AFTER_WARMUP[name](peak, steps, warmup, given)
    floor = given.get("min_lr_ratio", 0.0) if name == "warmup_stable_decay" else 0.0

    def rate(step: int) -> float:
        if name != "constant" and step < warmup:
            share = _warm(given.get("warmup_type", "linear"), step / max(1, warmup))
            return peak * (share * (1 - floor) + floor)
        return peak * after(step)

    return rate


def _warm(kind: str, progress: float) -> float:
    if kind == "cosine":
        return 0.5 * (1 - math.cos(math.pi * progress))
    return 1 - math.sqrt(1 - progress) if kind == "1-sqrt" else progress


def _constant(*_: Any) -> Callable[[int], float]:
    return lambda step: 1.0  # noqa: ARG005


def _linear(peak: float, steps: int, warmup: int, options: Mapping[str, Any]) -> Callable[[int], float]:  # noqa: ARG001
    return lambda step: max(0.0, (steps - step) / max(1, steps - warmup))


def _cosine(peak: float, steps: int, warmup: int, options: Mapping[str, Any]) -> Callable[[int], float]:
    floor = float(options.get("min_lr_rate") or float(options.get("min_lr") or 0.0) / peak)
    cycles = options.get("num_cycles", 0.5)

    def factor(step: int) -> float:
        progress = (step - warmup) / max(1, steps - warmup)
        share = max(0.0, 0.5 * (1 + math.cos(math.pi * cycles * 2 * progress)))
        return max(0.0, share * (1 - floor) + floor)

    return factor


def _cosine_with_min(
    peak: float, steps: int, warmup: int, options: Mapping[str, Any]
) -> Callable[[int], float]:
    if (options.get("min_lr") is None) == (options.get("min_lr_rate") is None):
        raise ValueError("cosine_with_min_lr needs either min_lr or min_lr_rate")
    return _cosine(peak, steps, warmup, options)


def _one_ahead(peak: float, steps: int, warmup: int, options: Mapping[str, Any]) -> Callable[[int], float]:
    """`cosine_warmup_with_min_lr`, which begins above 0 and is a step ahead of `cosine_with_min_lr`."""
    after = _cosine_with_min(peak, steps, warmup, options)
    first: float | None = options.get("warmup_lr_rate")

    def rate(step: int) -> float:
        if step >= warmup:
            return peak * after(step + 1)
        if first is None:
            return peak * (step + 1) / max(1, warmup)
        return peak * (first + (1 - first) * step / max(1, warmup - 1))

    return rate


def _restarts(peak: float, steps: int, warmup: int, options: Mapping[str, Any]) -> Callable[[int], float]:  # noqa: ARG001
    cycles = options.get("num_cycles", 1)

    def factor(step: int) -> float:
        progress = (step - warmup) / max(1, steps - warmup)
        if progress >= 1:
            return 0.0
        return max(0.0, 0.5 * (1 + math.cos(math.pi * ((cycles * progress) % 1.0))))

    return factor


def _polynomial(peak: float, steps: int, warmup: int, options: Mapping[str, Any]) -> Callable[[int], float]:
    end, power = options.get("lr_end", 1e-7), options.get("power", 1.0)

    def factor(step: int) -> float:
        if step > steps:
            return float(end / peak)
        remaining = 1 - (step - warmup) / (steps - warmup)
        return float(((peak - end) * remaining**power + end) / peak)

    return factor


def _inverse_sqrt(peak: float, steps: int, warmup: int, options: Mapping[str, Any]) -> Callable[[int], float]:  # noqa: ARG001
    timescale = options.get("timescale") or warmup or 10_000
    return lambda step: 1 / math.sqrt((step + timescale - warmup) / timescale)


def _stable_decay(peak: float, steps: int, warmup: int, options: Mapping[str, Any]) -> Callable[[int], float]:  # noqa: ARG001
    decay = options.get("num_decay_steps")
    if decay is None:
        raise ValueError("warmup_stable_decay needs num_decay_steps")
    stable = options.get("num_stable_steps")
    stable = steps - warmup - decay if stable is None else stable
    floor, cycles = options.get("min_lr_ratio", 0.0), options.get("num_cycles", 0.5)
    kind = options.get("decay_type", "cosine")

    def factor(step: int) -> float:
        if step < warmup + stable:
            return 1.0
        if step >= warmup + stable + decay:
            return float(floor)
        progress = (step - warmup - stable) / max(1, decay)
        share = 0.5 * (1 + math.cos(math.pi * cycles * 2 * progress))
        if kind != "cosine":
            share = 1 - (math.sqrt(progress) if kind == "1-sqrt" else progress)
        return float(max(0.0, share * (1 - floor) + floor))

    return factor


_AFTER_WARMUP: dict[str, Callable[..., Callable[[int], float]]] = {
    "constant": _constant,
    "constant_with_warmup": _constant,
    "linear": _linear,
    "cosine": _cosine,
    "cosine_with_restarts": _restarts,
    "polynomial": _polynomial,
    "inverse_sqrt": _inverse_sqrt,
    "cosine_with_min_lr": _cosine_with_min,
    "warmup_stable_decay": _stable_decay,
}


def axolotl_schedule(
    values: Mapping[str, Any], *, peak: float, steps: int, warmup: int = 0
) -> Callable[[int], float]:
    """Return the learning rate of an Axolotl recipe: its own schedulers', else transformers'.

    Args:
        values: The recipe.
        peak: Its learning rate.
        steps: Optimizer steps of the run.
        warmup: Those of them that warm up.

    Raises:
        ValueError: As for `learning_rate`.
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
        return _cosine_to_floor(peak, steps if not held else int(steps * held), warmup, floor)
    return schedule(
        name, peak=peak, steps=steps, warmup=warmup, options=values.get("lr_scheduler_kwargs") or {}
    )


def axolotl_warmup(values: Mapping[str, Any], steps: int) -> int:
    """Return the warmup steps of a run of `steps`: 3 %, at most 100, where the recipe says nothing."""
    count, share = as_number(values.get("warmup_steps")), as_number(values.get("warmup_ratio"))
    if count is not None:
        warmup = int(count)
    elif share is not None:
        warmup = int(share * steps)
    else:
        warmup = min(int(0.03 * steps), 100)
    return 2 if warmup == 1 else warmup


def _cosine_to_floor(peak: float, end: int, warmup: int, floor: float) -> Callable[[int], float]:
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
