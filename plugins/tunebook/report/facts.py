"""The figures of a run as a whole: steps, time, speed, tokens. What is missing is said to be missing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from tunebook.report.records import Fact

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tunebook.runlog import RunLog

_NO_SOURCE = "not written down by this run"


def facts_of(run: RunLog) -> tuple[Fact, ...]:
    """The facts that a reader asks of every run, in a fixed order."""
    return (
        _steps(run),
        _epochs(run),
        _result(run, "Training time", "train_runtime", "s"),
        _result(run, "Speed", "train_samples_per_second", "samples/s"),
        _tokens(run),
        _result(run, "Mean training loss", "train_loss", "nats/token"),
        _evaluating(run),
        _fact(run, "Trained parameters", "trained_parameters"),
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
    series = run.series.get("num_input_tokens_seen")
    if series is not None and len(series.values) and np.nanmax(series.values) > 0:
        return Fact(
            label="Input tokens seen", value=float(np.nanmax(series.values)), unit="", source=series.source
        )
    hint = f"{_NO_SOURCE}; set include_num_input_tokens_seen: true"
    return Fact(label="Input tokens seen", value=None, unit="", source=hint)


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
