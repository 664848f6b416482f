"""Whether the evaluation loss tells which model, or which checkpoint, answers better."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tunebook.comparison.figures import SIGNIFICANT
from tunebook.report.agreement import in_words
from tunebook.report.significance import spearman
from tunebook.report.study_results import comparable, judged
from tunebook.text import number

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tunebook.report.records import RunReport
    from tunebook.report.significance import RankCorrelation
    from tunebook.report.study_results import Result


_MOST = 6
"""Runs whose evaluations are told of one by one."""


def loss_and_metric(results: Sequence[Result], runs: Sequence[RunReport]) -> list[str]:
    """Whether evaluation loss and task metric put the runs, and the checkpoints of a run, in one order."""
    found: list[str] = []
    for group in comparable(results):
        # A loss per token of one tokenizer says nothing beside that of another.
        for model in dict.fromkeys(one.run.model for one in group if one.run.model):
            same = [one for one in group if one.run.model == model and one.loss is not None]
            if len(same) > 1 and group[0].figure.name != "loss":
                found += _over_runs(same)
    over = [
        sentence
        for result in results
        if result.figure.name != "loss"
        for sentence in _over_checkpoints(result, several=len(runs) > 1)
    ]
    found += over[:_MOST]
    if len(over) > _MOST:
        found.append(f"The evaluations of {len(over) - _MOST} more runs stand in report.md.")
    return found


def _over_runs(group: Sequence[Result]) -> Iterator[str]:
    figure = group[0].figure
    lowest = min(group, key=lambda one: one.loss.value if one.loss else 0.0)
    assert lowest.loss is not None
    best = group[0]
    assert best.loss is not None
    if lowest.figure.value != best.figure.value:
        words = {True: "told apart by it", False: "not distinguishable by it", None: "not to be judged by it"}
        told = words[judged(best, lowest).apart]
        yield (
            f"On {best.set_name} the lowest evaluation loss is that of {lowest.run.name} "
            f"({number(lowest.loss.value)}, with {figure.label} {number(lowest.figure.value)}), the best "
            f"{figure.label} that of {best.run.name} ({number(best.figure.value)}, with a loss of "
            f"{number(best.loss.value)}); the two are {told}."
        )
    else:
        yield (
            f"On {best.set_name} {lowest.run.name} has the lowest evaluation loss "
            f"({number(lowest.loss.value)}) and no run a better {figure.label}."
        )
    sign = 1 if figure.larger_is_better else -1
    found = spearman(
        [-one.loss.value for one in group if one.loss], [sign * one.figure.value for one in group]
    )
    if found is not None:
        yield (
            f"Over {found.n} runs on {best.set_name} {_agreement(found, figure.label)}: rank correlation "
            f"{in_words(found)}."
        )


def _over_checkpoints(result: Result, *, several: bool) -> Iterator[str]:
    figure = result.figure
    rows = [
        row
        for row in result.run.evaluations
        if row.dataset == figure.dataset
        and not row.after_training
        and {"loss", figure.name} <= row.values.keys()
    ]
    if len(rows) < 4:
        return
    sign = 1 if figure.larger_is_better else -1
    found = spearman([-row.values["loss"] for row in rows], [sign * row.values[figure.name] for row in rows])
    if found is None:
        return
    lowest = min(rows, key=lambda row: row.values["loss"])
    where = f" of {result.run.name}" if several else ""
    steps = (
        f"both are best at step {lowest.step:,}"
        if lowest.step == figure.step
        else f"the loss is lowest at step {lowest.step:,}, {figure.label} best at step {figure.step:,}"
    )
    # Successive checkpoints are no independent draws: the coefficient describes them and proves nothing.
    yield (
        f"Over the {found.n} evaluations{where} on {result.set_name} the rank correlation of evaluation loss "
        f"and {figure.label} is {found.rho:+.2f} (+1: the same order); {steps}."
    )


def _agreement(found: RankCorrelation, label: str) -> str:
    """What a rank correlation, signed so that 1 is full agreement, says of loss and metric."""
    if found.p_value >= SIGNIFICANT:
        return f"it is too little to tell whether evaluation loss and {label} agree"
    if found.rho > 0:
        return f"evaluation loss and {label} agree on the order"
    return f"evaluation loss and {label} put them in opposite orders"
