"""The figures of a run as a whole: steps, time, speed, tokens. What is missing is said to be missing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from tunebook.report.records import Fact

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tunebook.runlog import RunLog
    from tunebook.runlog.records import Sourced

_NO_SOURCE = "not written down by this run"


def facts_of(run: RunLog) -> tuple[Fact, ...]:
    """The facts that a reader asks of every run, in a fixed order."""
    return (
        _steps(run),
        _epochs(run),
        _result(run, "Training time", "train_runtime", "s"),
        _sourced("Wall time", run.wall_seconds, "s"),
        _gpus(run),
        _sourced("GPU hours", run.gpu_hours, "h"),
        _result(run, "Speed", "train_samples_per_second", "samples/s"),
        _tokens_per_second(run),
        _tokens(run),
        _result(run, "Mean training loss", "train_loss", "nats/token"),
        _evaluating(run),
        _fact(run, "Trained parameters", "trained_parameters"),
        _peak(run),
    )


def fact(facts: Sequence[Fact], label: str) -> Fact:
    """The fact of that label; a missing one where a report has none."""
    found = next((one for one in facts if one.label == label), None)
    return found or Fact(label=label, value=None, unit="", source=_NO_SOURCE)


def _steps(run: RunLog) -> Fact:
    trainer = run.trainer
    last = max((int(s.steps[-1]) for s in run.series.values() if len(s.steps)), default=None)
    step = trainer.global_step if trainer and trainer.global_step is not None else last
    step = max(step, last) if step is not None and last is not None else step
    planned = f" of {trainer.max_steps:,}" if trainer and trainer.max_steps else ""
    source = trainer.source if trainer else next((s.source for s in run.series.values()), _NO_SOURCE)
    return Fact(
        label="Optimizer steps",
        value=None if step is None else f"{step:,}{planned}",
        unit="",
        source=source if step is not None else _NO_SOURCE,
    )


def _epochs(run: RunLog) -> Fact:
    series = run.series.get("epoch")
    if series is None or not len(series.values):
        return Fact(label="Epochs", value=None, unit="", source=_NO_SOURCE)
    return Fact(label="Epochs", value=float(np.nanmax(series.values)), unit="", source=series.source)


def _result(run: RunLog, label: str, key: str, unit: str) -> Fact:
    value = run.results.get(key)
    source = run.results_source or _NO_SOURCE
    return Fact(label=label, value=value, unit=unit, source=source if value is not None else _NO_SOURCE)


def _tokens(run: RunLog) -> Fact:
    # The first is transformers', the second Axolotl's.
    for name in ("num_input_tokens_seen", "tokens/total"):
        series = run.series.get(name)
        if series is not None and (seen := float(np.nanmax(series.values, initial=0.0))) > 0:
            return Fact(label="Input tokens seen", value=seen, unit="", source=f"{series.source} ({name})")
    hint = f"{_NO_SOURCE}; set include_num_input_tokens_seen: true"
    return Fact(label="Input tokens seen", value=None, unit="", source=hint)


def _tokens_per_second(run: RunLog) -> Fact:
    """Over the whole training: tokens by the time that training took."""
    label, unit = "Tokens per second", "tokens/s"
    seconds = run.results.get("train_runtime")
    for name in ("num_input_tokens_seen", "tokens/total"):
        series = run.series.get(name)
        if seconds and series is not None and (seen := float(np.nanmax(series.values, initial=0.0))) > 0:
            source = f"{series.source} ({name}) over {run.results_source} (train_runtime)"
            return Fact(label=label, value=seen / seconds, unit=unit, source=source)
    hint = f"{_NO_SOURCE}; set include_num_input_tokens_seen: true"
    return Fact(label=label, value=None, unit=unit, source=hint)


def _sourced(label: str, found: Sourced | None, unit: str) -> Fact:
    if found is None:
        return Fact(label=label, value=None, unit=unit, source=_NO_SOURCE)
    return Fact(label=label, value=found.value, unit=unit, source=found.source)


def _gpus(run: RunLog) -> Fact:
    if run.gpu_count is None:
        return Fact(label="GPUs", value=None, unit="", source=_NO_SOURCE)
    count = int(run.gpu_count.value)
    return Fact(label="GPUs", value=count or "none", unit="", source=run.gpu_count.source)


def _peak(run: RunLog) -> Fact:
    fact = run.facts.get("peak_gpu_memory_mib")
    if fact is None or fact.value <= 0:
        return Fact(label="Peak GPU memory", value=None, unit="GiB", source="not measured")
    return Fact(label="Peak GPU memory", value=fact.value / 1024, unit="GiB", source=fact.source)


def _evaluating(run: RunLog) -> Fact:
    seconds = [e.seconds for e in run.evaluations if e.seconds is not None and not e.after_training]
    if not seconds:
        return Fact(label="Time in evaluation", value=None, unit="s", source=_NO_SOURCE)
    source = next(e.source for e in run.evaluations if e.seconds is not None)
    return Fact(label="Time in evaluation", value=sum(seconds), unit="s", source=source)


def _fact(run: RunLog, label: str, key: str) -> Fact:
    fact = run.facts.get(key)
    if fact is None:
        return Fact(label=label, value=None, unit="", source=_NO_SOURCE)
    return Fact(label=label, value=fact.value, unit="", source=fact.source)
