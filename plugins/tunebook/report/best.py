"""Chooses the best evaluation of each dataset and puts intervals to its figures."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

from tunebook.report import figures, intervals
from tunebook.report.records import Against, Best, Figure, Interval
from tunebook.runlog.evaluations import read_examples

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from tunebook.report.intervals import Pairs
    from tunebook.runlog import Evaluation, RunLog


class Choice(NamedTuple):
    """The figure to choose by and why it."""

    name: str
    larger_is_better: bool
    by: str


class Measured(NamedTuple):
    """An evaluation with the intervals of its figures."""

    evaluation: Evaluation
    intervals: dict[str, Interval]


def by_dataset(evaluations: Iterable[Evaluation]) -> dict[str, list[Evaluation]]:
    """The evaluations of each dataset, by step; sets in the order in which they were first evaluated."""
    found: dict[str, list[Evaluation]] = {}
    for evaluation in evaluations:
        found.setdefault(evaluation.dataset, []).append(evaluation)
    return found


def choice(run: RunLog, evaluations: Sequence[Evaluation]) -> Choice | None:
    """The figure to choose the best of `evaluations` by; None where nothing was measured."""
    for evaluation in evaluations:
        name = evaluation.select_by
        if name and any(name in e.values for e in evaluations):
            return Choice(name, evaluation.larger_is_better, f"the metric {', '.join(evaluation.metrics)}")
    asked = run.settings.get("metric_for_best_model")
    names = {name for evaluation in evaluations for name in evaluation.values}
    if isinstance(asked, str):
        dataset = evaluations[0].dataset
        name = asked.removeprefix("eval_").removeprefix(f"{dataset}_")
        if name in names:
            larger = run.settings.get("greater_is_better", not name.endswith("loss"))
            return Choice(name, larger is True, f"metric_for_best_model of the recipe ({asked})")
    if "loss" in names:
        return Choice("loss", False, "the evaluation loss, since no task metric was measured")
    rest = figures.order(names - figures.NOT_FIGURES, None)
    return Choice(rest[0], True, "the only figures measured") if rest else None


def measure(run: RunLog, evaluation: Evaluation) -> Measured:
    """Put an interval to every figure of `evaluation` that allows one."""
    counted = _pairs(run, evaluation)
    found: dict[str, Interval] = {}
    for name, value in evaluation.values.items():
        interval = _interval(evaluation, name, value, counted)
        if interval is not None:
            found[name] = interval
    return Measured(evaluation, found)


def _pairs(run: RunLog, evaluation: Evaluation) -> Pairs | None:
    path = run.record_files.get((evaluation.dataset, evaluation.step))
    if path is None or "yes_no" not in evaluation.metrics:
        return None
    return intervals.pairs(read_examples(path, path.name).examples, "yes_no")


def _interval(evaluation: Evaluation, name: str, value: float, counted: Pairs | None) -> Interval | None:
    n, stderr = evaluation.n, evaluation.stderr.get(name)
    if stderr is not None and n:
        # A mean of zeros and ones is a proportion, whose interval has a width even at 0 and at 1.
        if 0 <= value <= 1 and abs(value * n - round(value * n)) < 1e-6:
            return intervals.wilson(value, n)
        return intervals.normal(value, stderr)
    return intervals.yes_no_interval(name, value, counted) if counted else None


def best_of(run: RunLog, measured: Sequence[Measured]) -> Best | None:
    """The best of one dataset's evaluations made during training; the earlier one of equals.

    Where a run was evaluated only after training, the best of those.
    """
    training = [one for one in measured if not one.evaluation.after_training] or list(measured)
    chosen = choice(run, [one.evaluation for one in training])
    if chosen is None:
        return None
    sign = 1 if chosen.larger_is_better else -1
    candidates = [
        one
        for one in training
        if chosen.name in one.evaluation.values and math.isfinite(one.evaluation.values[chosen.name])
    ]
    if not candidates:
        return None
    top = max(candidates, key=lambda one: sign * one.evaluation.values[chosen.name])
    others = figures.order(set(top.evaluation.values) - {chosen.name} - figures.NOT_FIGURES, None)
    others.sort(key=_place)
    return Best(
        figure=figure(top, chosen.name, larger_is_better=chosen.larger_is_better),
        beside=tuple(figure(top, name) for name in others),
        chosen_by=chosen.by,
        base=Against(figure=None, reason="not looked for", test=None, p_value=None),
    )


def _place(name: str) -> int:
    return figures.BESIDE.index(name) if name in figures.BESIDE else len(figures.BESIDE)


def figure(measured: Measured, name: str, *, larger_is_better: bool | None = None) -> Figure:
    """One figure of one evaluation as a record."""
    evaluation = measured.evaluation
    if larger_is_better is None:
        larger_is_better = not figures.known(name).smaller_is_better
    return Figure(
        name=name,
        label=figures.label(name),
        dataset=evaluation.dataset,
        step=evaluation.step,
        value=evaluation.values[name],
        interval=measured.intervals.get(name),
        n=evaluation.n,
        n_unparsed=evaluation.n_unparsed,
        source=evaluation.source,
        larger_is_better=larger_is_better,
    )
