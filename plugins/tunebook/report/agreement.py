"""Findings where loss and metric disagree: over the checkpoints of a run, and over runs."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

from tunebook.comparison.figures import SIGNIFICANT
from tunebook.report import figures
from tunebook.report.records import RunFinding
from tunebook.report.significance import Pairing, answers_of, spearman
from tunebook.text import number, p_value

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from tunebook.comparison.records import FigureDifference
    from tunebook.report.best import MeasuredEvaluation
    from tunebook.report.records import Best
    from tunebook.report.significance import RankCorrelation
    from tunebook.runlog import RunLog


def over_checkpoints(
    run: RunLog, measured: Mapping[str, Sequence[MeasuredEvaluation]], best: Sequence[Best], pairing: Pairing
) -> Iterator[RunFinding]:
    """Where the evaluation of the lowest loss is shown to be worse by the chosen metric than the best one.

    Successive checkpoints are no independent draws, so that a rank correlation over them proves nothing;
    the two evaluations are tested on their rows instead. Without records of both there is no finding.
    """
    for one in best:
        figure = one.figure
        if figure.name in {"loss", "perplexity"}:
            continue
        evaluations = [
            m.evaluation
            for m in measured[figure.dataset]
            if not m.evaluation.after_training
            and math.isfinite(m.evaluation.values.get("loss", math.nan))
            and math.isfinite(m.evaluation.values.get(figure.name, math.nan))
        ]
        if len(evaluations) < 2:
            continue
        lowest = min(evaluations, key=lambda evaluation: evaluation.values["loss"])
        top = next((e for e in evaluations if e.step == figure.step), None)
        if top is None or lowest.step == top.step:
            continue
        tested = pairing.test(
            answers_of(run, f"step {top.step}", top, figure.name),
            answers_of(run, f"step {lowest.step}", lowest, figure.name),
        ).difference
        if tested is None or tested.p_value >= SIGNIFICANT or _is_gain(tested):
            continue
        sign = 1 if figure.larger_is_better else -1
        correlation = spearman(
            [-e.values["loss"] for e in evaluations], [sign * e.values[figure.name] for e in evaluations]
        )
        yield RunFinding(
            level="warning",
            title=f"the lowest loss is not the best {figure.label} on {figure.dataset}",
            evidence=f"by loss one would keep step {lowest.step} (loss {number(lowest.values['loss'])}, "
            f"{figure.label} {number(lowest.values[figure.name])}) in place of step {top.step} "
            f"(loss {number(top.values['loss'])}, {figure.label} {number(figure.value)}); "
            f"{_test(tested)}{_over(correlation, 'checkpoints')}",
            source=figure.source,
        )


def _is_gain(difference: FigureDifference) -> bool:
    return (difference.difference > 0) == difference.larger_is_better


def _test(difference: FigureDifference) -> str:
    return (
        f"{difference.test} over {difference.n:,} rows: {figures.figure(difference.name).label} "
        f"{difference.difference:+.3f}, p {p_value(difference.p_value)}"
    )


def _over(correlation: RankCorrelation | None, things: str) -> str:
    if correlation is None:
        return ""
    return f". Rank correlation of loss and metric over {correlation.n} {things}: {in_words(correlation)}"


def in_words(correlation: RankCorrelation) -> str:
    """The coefficient with its interval and the probability under chance."""
    interval = (
        f", 95 % interval {correlation.low:+.2f} to {correlation.high:+.2f}"
        if correlation.low is not None and correlation.high is not None
        else ""
    )
    return f"{correlation.rho:+.2f} (p {p_value(correlation.p_value)}{interval})"


class RankedRun(NamedTuple):
    """One of several runs that share figure and dataset."""

    name: str
    value: float
    loss: float | None
    """Evaluation loss at the step of the value."""
    against_best: FigureDifference | None
    """None for the best itself, and where it could not be tested."""
    source: str


def over_runs(
    ranked: Sequence[RankedRun], label: str, *, larger_is_better: bool
) -> Iterator[str | RunFinding]:
    """What loss and metric say of the runs together: a remark always, a finding where they disagree.

    Args:
        ranked: The best run first.
        label: The figure's name for readers.
        larger_is_better: Of the figure.
    """
    known = [(one, one.loss) for one in ranked if one.loss is not None and math.isfinite(one.loss)]
    if len(known) < 2:
        return
    sign = 1 if larger_is_better else -1
    correlation = spearman([-loss for _, loss in known], [sign * one.value for one, _ in known])
    if correlation is not None:
        yield _remark(correlation, label)
        if correlation.rho < 0 and correlation.p_value < SIGNIFICANT:
            yield RunFinding(
                level="warning",
                title=f"evaluation loss and {label} disagree on which run is better",
                evidence=f"rank correlation {in_words(correlation)} over {correlation.n} runs: runs of lower "
                f"loss have the worse {label}",
                source=known[0][0].source,
            )
    lowest, loss = min(known, key=lambda pair: pair[1])
    tested = lowest.against_best
    if lowest is ranked[0] or tested is None or tested.p_adjusted >= SIGNIFICANT or _is_gain(tested):
        return
    best_loss = "not known" if ranked[0].loss is None else number(ranked[0].loss)
    yield RunFinding(
        level="warning",
        title=f"the run of the lowest loss is not the best by {label}",
        evidence=f"{lowest.name} has the lowest evaluation loss, {number(loss)}, and {label} "
        f"{number(lowest.value)}; {ranked[0].name} has loss {best_loss} and {label} "
        f"{number(ranked[0].value)}. {tested.test} over {tested.n:,} shared rows: "
        f"p {p_value(tested.p_adjusted)} after Holm",
        source=lowest.source,
    )


def _remark(correlation: RankCorrelation, label: str) -> str:
    sure = correlation.p_value < SIGNIFICANT
    verdict = (
        "too few or too mixed to tell whether they agree"
        if not sure
        else "they agree on which run is better"
        if correlation.rho > 0
        else "they disagree on which run is better"
    )
    return (
        f"Evaluation loss against {label}, rank correlation (+1: the same order) over {correlation.n} runs: "
        f"{in_words(correlation)}; {verdict}."
    )
