"""What a run took: time by phase, restarts, GPUs; and estimates of memory and sizes beside measurements."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from tunebook import memory
from tunebook.errors import TunebookError
from tunebook.memory.from_recipe import read_run
from tunebook.models.checkpoints import checkpoint_folders
from tunebook.report.records import Estimated, GpuSummary, PhaseTime, Usage
from tunebook.text import number
from tunebook.types import Recipe

if TYPE_CHECKING:
    from pathlib import Path

    from tunebook.memory import MemoryEstimate, Setup
    from tunebook.memory.shapes import Shape
    from tunebook.runlog import RunLog
    from tunebook.runlog.records import TimeSeries, WatchedGpu

_GIB, _MIB = 2**30, 2**20
_NO_PHASES = "no file of this run says how long its parts took"
_ALLOCATED = ("memory/max_allocated (GiB)", "memory/max_active (GiB)")
_RESERVED = "memory/device_reserved (GiB)"


def usage_of(run: RunLog) -> Usage:
    """Everything that a run says of its time and memory."""
    known = sum(phase.seconds or 0.0 for phase in run.phases)
    return Usage(
        phases=tuple(
            PhaseTime(
                name=phase.name,
                seconds=phase.seconds,
                share=phase.seconds / known if phase.seconds is not None and known else None,
                stretches=phase.stretches,
                source=phase.source,
            )
            for phase in run.phases
        ),
        phases_missing=None if run.phases else _NO_PHASES,
        restarts=tuple(
            {
                "step": one.resumed_at_step,
                "repeated": one.steps_repeated,
                "message": one.message,
                "source": one.source,
            }
            for one in run.restarts
        ),
        gpus=tuple(_gpu(gpu) for gpu in run.gpus),
        estimates=_estimates(run),
    )


def _gpu(gpu: WatchedGpu) -> GpuSummary:
    watched = gpu.memory_mib or gpu.utilization_percent or gpu.power_w
    return GpuSummary(
        name=gpu.name,
        host=gpu.host,
        index=gpu.index,
        memory_total_gib=None if gpu.memory_total_mib is None else gpu.memory_total_mib / 1024,
        peak_gib=None if gpu.peak_memory_mib is None else gpu.peak_memory_mib.value / 1024,
        mean_utilization_percent=_mean(gpu.utilization_percent),
        mean_power_w=_mean(gpu.power_w),
        source=watched.source if watched else gpu.peak_memory_mib.source if gpu.peak_memory_mib else "",
    )


def _mean(series: TimeSeries | None) -> float | None:
    return float(np.mean(series.values)) if series is not None and len(series.values) else None


class _Told(NamedTuple):
    """A measured number, or why there is none."""

    value: float | None
    source: str


def _estimates(run: RunLog) -> tuple[Estimated, ...]:
    found = _estimate(run)
    estimate, reason = (None, found) if isinstance(found, str) else (found, "")
    trained = _exactly(estimate.trainable if estimate else None)
    rows = [
        _row("Peak GPU memory", "GiB", _whole(estimate), _card_peak(run), reason),
        _row("Peak of torch's tensors", "GiB", _tensors(estimate), _allocated(run), reason),
        _row("Trained parameters", "", trained, _trained(run), reason),
        _row("Optimizer file", "MiB", _size(estimate, "optimizer_file"), _optimizer_file(run.path), reason),
    ]
    adapter = _adapter_file(run.path)
    if adapter.value is not None or (estimate and estimate.adapter_file):
        rows.insert(3, _row("Adapter file", "MiB", _size(estimate, "adapter_file"), adapter, reason))
    return tuple(rows)


class _Range(NamedTuple):
    value: float | None
    low: float | None
    high: float | None


def _row(label: str, unit: str, estimated: _Range, measured: _Told, reason: str) -> Estimated:
    return Estimated(
        label=label,
        unit=unit,
        estimate=estimated.value,
        low=estimated.low,
        high=estimated.high,
        estimate_missing=None if estimated.value is not None else reason or "no term of the estimate",
        measured=measured.value,
        source=measured.source,
    )


def would_change(run: RunLog) -> str:
    """What `tunebook estimate` says to a run that was out of GPU memory, or why it can say nothing."""
    asked = _asked(run)
    if isinstance(asked, str):
        return f"no estimate beside it: {asked}"
    shape, setup = asked
    found = memory.estimate_setup(shape, setup)
    said = (
        f"`tunebook estimate` gives {number(found.total / _GIB)} GiB a GPU for these settings "
        f"({number(found.low / _GIB)} to {number(found.high / _GIB)})"
    )
    ladder = [
        f"{one.name} (then {number(one.total / _GIB)} GiB)" for one in memory.oom_ladder(shape, setup)[:4]
    ]
    return f"{said}; to change, in this order: {', '.join(ladder)}" if ladder else said


def _estimate(run: RunLog) -> MemoryEstimate | str:
    """The estimate of the recorded set-up, or why there is none."""
    asked = _asked(run)
    return asked if isinstance(asked, str) else memory.estimate_setup(*asked)


def _asked(run: RunLog) -> tuple[Shape, Setup] | str:
    """Model and set-up as they were recorded, or why they cannot be read."""
    if run.engine not in ("llamafactory", "axolotl"):
        return "the engine is not known, so that its settings cannot be read"
    if not run.settings:
        return "no file says how the run was set up"
    recipe = Recipe(
        name=run.name,
        engine="llamafactory" if run.engine == "llamafactory" else "axolotl",
        path=run.path / "tunebook" / "recipe.yaml",
        values=run.settings,
        header={},
    )
    try:
        asked = read_run(recipe)
        own = run.path / "config.json"
        config = memory.find_config(str(own) if own.is_file() else asked.model)
        gpus = int(run.gpu_count.value) if run.gpu_count and run.gpu_count.value >= 1 else 1
        return memory.read_shape(config), memory.read_setup(**asked.arguments, gpus=gpus)
    except TunebookError as err:
        return err.problem
    # Settings out of a model card are texts of any form.
    except (TypeError, ValueError) as err:
        return f"the settings cannot be read as the engine reads them: {err}"


def _whole(estimate: MemoryEstimate | None) -> _Range:
    if estimate is None:
        return _Range(None, None, None)
    return _Range(estimate.total / _GIB, estimate.low / _GIB, estimate.high / _GIB)


def _tensors(estimate: MemoryEstimate | None) -> _Range:
    """Without CUDA's context and the allocator's unused blocks, which torch does not count."""
    if estimate is None:
        return _Range(None, None, None)
    rest = estimate.terms["context"] + estimate.terms["allocator"]
    return _Range(
        *(
            (size - rest * size / estimate.total) / _GIB
            for size in (estimate.total, estimate.low, estimate.high)
        )
    )


def _exactly(value: float | None) -> _Range:
    return _Range(None if value is None else float(value), None, None)


def _size(estimate: MemoryEstimate | None, name: str) -> _Range:
    return _exactly(None if estimate is None else getattr(estimate, name) / _MIB)


def _card_peak(run: RunLog) -> _Told:
    fact = run.facts.get("peak_gpu_memory_mib")
    if fact is not None and fact.value > 0:
        return _Told(fact.value / 1024, fact.source)
    reserved = _series_peak(run, (_RESERVED,))
    if reserved is not None:
        return reserved._replace(source=f"{reserved.source}: reserved by torch, without CUDA's context")
    return _Told(None, _not_measured(run))


def _allocated(run: RunLog) -> _Told:
    return _series_peak(run, _ALLOCATED) or _Told(None, _not_measured(run))


def _not_measured(run: RunLog) -> str:
    if run.gpu_count is not None and run.gpu_count.value == 0:
        return f"not measured: the run had no GPU ({run.gpu_count.source})"
    return "not measured: nobody watched the GPU (Axolotl's memory/*, W&B or a CSV of nvidia-smi shows it)"


def _series_peak(run: RunLog, names: tuple[str, ...]) -> _Told | None:
    """The largest value of the first series that has one. Zeros, logged on the CPU, measure nothing."""
    for name in names:
        series = run.series.get(name)
        if series is not None and (peak := float(np.nanmax(series.values, initial=0.0))) > 0:
            return _Told(peak, f"{series.source} ({name})")
    return None


def _trained(run: RunLog) -> _Told:
    fact = run.facts.get("trained_parameters")
    return _Told(fact.value, fact.source) if fact else _Told(None, "no weights of this run are here")


def _optimizer_file(folder: Path) -> _Told:
    for checkpoint in reversed(checkpoint_folders(folder)):
        path = checkpoint / "optimizer.pt"
        if path.is_file():
            return _Told(path.stat().st_size / _MIB, f"{checkpoint.name}/{path.name}")
    return _Told(None, "no checkpoint with an optimizer.pt is here")


def _adapter_file(folder: Path) -> _Told:
    for place in (folder, *reversed(checkpoint_folders(folder))):
        path = place / "adapter_model.safetensors"
        if path.is_file():
            return _Told(path.stat().st_size / _MIB, str(path.relative_to(folder)))
    return _Told(None, "no adapter_model.safetensors is here")
