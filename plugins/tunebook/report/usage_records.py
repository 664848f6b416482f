"""The part of `report.json` that tells of time, GPUs and memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class PhaseTime:
    """Time that a run spent in one phase."""

    name: str
    seconds: float | None
    """None: there was such a phase, and how long it took is not known."""
    share: float | None
    """Of the time of all phases that is known."""
    stretches: int | None
    """How often the run was in it; None where no file tells."""
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuUse:
    """One card that was watched."""

    name: str | None
    host: str | None
    index: str
    memory_total_gib: float | None
    peak_gib: float | None
    """The largest sample of memory in use, of all processes."""
    mean_utilization_percent: float | None
    mean_power_w: float | None
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimated:
    """An estimate made from the recorded recipe, beside what was measured."""

    label: str
    unit: str
    estimate: float | None
    low: float | None
    high: float | None
    """Where published measurements mostly fall; None where the estimate is a count."""
    estimate_missing: str | None
    """Why there is no estimate."""
    measured: float | None
    source: str
    """Of what was measured, or why nothing was."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Time, GPUs and memory of a run."""

    phases: tuple[PhaseTime, ...]
    phases_missing: str | None
    """Why there are none."""
    restarts: tuple[dict[str, Any], ...]
    """`step` and `repeated` steps, both null where not known, `message`, `source`."""
    gpus: tuple[GpuUse, ...]
    estimates: tuple[Estimated, ...]
