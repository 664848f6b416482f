"""Chooses the best evaluation of each dataset and puts intervals to its figures."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from tunebook.comparison.figures import SIGNIFICANT
from tunebook.metrics.figures import PREFERENCE_FIGURES
from tunebook.metrics.statistics import is_share
from tunebook.report import figures, significance
from tunebook.report.objective import objective_of
from tunebook.report.records import (
    Against,
    Best,
    ConfidenceInterval,
    Expected,
    MeasuredFigure,
    RunFinding,
    Verdict,
)
from tunebook.report.significance import answers_of
from tunebook.runlog.evaluations import count_answers
from tunebook.text import number, p_value

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

    from tunebook.report.records import Best
    from tunebook.report.significance import Pairing, Pairs
    from tunebook.runlog import Evaluation, RunLog


class Choice(NamedTuple):
    """The figure to choose by and why it."""

    name: str
    larger_is_better: bool
    by: str


class MeasuredEvaluation(NamedTuple):
    """An evaluation with the intervals of its figures."""

    evaluation: Evaluation
    intervals: dict[str, ConfidenceInterval]


def by_dataset(evaluations: Iterable[Evaluation]) -> dict[str, list[Evaluation]]:
    """The evaluations of each dataset, by step; sets in the order in which they were first evaluated."""
    found: dict[str, list[Evaluation]] = {}
    for evaluation in evaluations:
        found.setdefault(evaluation.dataset, []).append(evaluation)
    return found


def choice(run: RunLog, evaluations: Sequence[Evaluation]) -> Choice | None:
    """The headline figure of `evaluations`; None where nothing was measured.

    What the user chose by comes first, as the recipe or the Trainer's own files say, then the metric's own
    figure. By itself the Trainer chooses by the loss.
    """
    names = {name for evaluation in evaluations for name in evaluation.values}
    asked = _asked(run, evaluations[0].dataset, names)
    own = next((one for one in evaluations if one.select_by in names), None)
    trainers = _trainers_choice(run, evaluations, (asked, None if own is None else own.select_by))
    if asked is not None:
        if trainers is not None and trainers.name == asked:
            return trainers
        return Choice(
            asked, _larger_is_better(run, asked, evaluations), "metric_for_best_model of the recipe"
        )
    if trainers is not None and trainers.name != "loss":
        return trainers
    if own is not None:
        return Choice(str(own.select_by), own.larger_is_better, f"the metric {', '.join(own.metrics)}")
    if trainers is not None:
        return trainers
    if "reward" in names and objective_of(run).by_reward:
        return Choice("reward", True, "the reward, which this training raises")
    if "loss" in names:
        others = names - {"loss", "perplexity", "token_accuracy"} - figures.NOT_FIGURES
        unknown = "which way the others are better is not known" if others else "no task metric was measured"
        return Choice("loss", False, f"the evaluation loss, since {unknown}")
    rest = figures.order(names - figures.NOT_FIGURES, None)
    return Choice(rest[0], True, "the only figures measured") if rest else None


def _asked(run: RunLog, dataset: str, names: Collection[str]) -> str | None:
    """The figure of `dataset` that the recipe's `metric_for_best_model` is; None where it is none of it."""
    asked = run.settings.get("metric_for_best_model")
    if not isinstance(asked, str):
        return None
    name = asked.removeprefix("eval_").removeprefix(f"{dataset}_")
    return name if name in names else None


def _larger_is_better(run: RunLog, name: str, evaluations: Sequence[Evaluation]) -> bool:
    declared = figures.figure(name, evaluations[0].metrics)
    set_to = run.settings.get("greater_is_better")
    # Our evaluation turns `true` round for a figure of which smaller is better.
    return not declared.smaller_is_better if set_to is None else set_to is True


def _trainers_choice(
    run: RunLog, evaluations: Sequence[Evaluation], likely: Sequence[str | None]
) -> Choice | None:
    """The figure by which the Trainer chose its best checkpoint: the one whose value there it wrote down.

    Over the run it is then the largest or the smallest, which says the direction. Of several with this value
    it is the first of `likely`, and the loss last.
    """
    trainer = run.trainer
    if trainer is None or trainer.best_metric is None or trainer.best_step is None:
        return None
    best = trainer.best_metric
    at = [one for one in evaluations if one.step == trainer.best_step and not one.after_training]
    places = {name: place for place, name in reversed(list(enumerate(likely)))}
    for name in sorted(
        {name for one in at for name in one.values},
        key=lambda name: (places.get(name, len(likely)), name == "loss", name),
    ):
        if not any(math.isclose(one.values[name], best, rel_tol=1e-9) for one in at if name in one.values):
            continue
        during = [one.values[name] for one in evaluations if name in one.values and not one.after_training]
        finite = [value for value in during if math.isfinite(value)]
        largest, smallest = best >= max(finite) - 1e-12, best <= min(finite) + 1e-12
        if largest != smallest:
            return Choice(name, largest, "the Trainer, as its best checkpoint")
    return None


def with_intervals(run: RunLog, evaluation: Evaluation) -> MeasuredEvaluation:
    """Put an interval to every figure of `evaluation` that allows one."""
    counted = _pairs(run, evaluation)
    found: dict[str, ConfidenceInterval] = {}
    for name, value in evaluation.values.items():
        interval = _interval(evaluation, name, value, counted)
        if interval is not None:
            found[name] = interval
    return MeasuredEvaluation(evaluation, found)


def _pairs(run: RunLog, evaluation: Evaluation) -> Pairs | None:
    path = run.record_files.get((evaluation.dataset, evaluation.step))
    if path is None or "yes_no" not in evaluation.metrics:
        return None
    return count_answers(path, "yes_no")


def _interval(
    evaluation: Evaluation, name: str, value: float, counted: Pairs | None
) -> ConfidenceInterval | None:
    n, stderr = evaluation.n, evaluation.stderr.get(name)
    if stderr is not None and n:
        if is_share(value, n):
            return significance.wilson_interval(value, n)
        return significance.normal_interval(value, stderr)
    return significance.yes_no_interval(name, value, counted) if counted else None


def best_of(run: RunLog, measured: Sequence[MeasuredEvaluation]) -> Best | None:
    """The best of one dataset's evaluations made during training: at the checkpoint that the Trainer chose.

    Where it chose none, the best by the headline figure, the earlier one of equals. Where a run was evaluated
    only after training, the best of those.
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
    top = next(
        (one for one in candidates if one.evaluation.step == _trainers_step(run)),
        max(candidates, key=lambda one: sign * one.evaluation.values[chosen.name]),
    )
    others = figures.order(
        set(top.evaluation.values) - {chosen.name} - figures.NOT_FIGURES, None, top.evaluation.metrics
    )
    others.sort(key=_place)
    figure = figure_record(top, chosen.name, larger_is_better=chosen.larger_is_better)
    objective = objective_of(run)
    if chosen.name == "loss" and objective.name not in ("", "unknown"):
        figure = replace(figure, label=f"{objective.name} {figure.label}")
    return Best(
        figure=figure,
        beside=tuple(figure_record(top, name) for name in others),
        chosen_by=chosen.by,
        base=Against(figure=None, reason="not looked for", test=None, p_value=None),
    )


def _trainers_step(run: RunLog) -> int | None:
    return None if run.trainer is None or run.trainer.best_checkpoint is None else run.trainer.best_step


def better_elsewhere(
    run: RunLog, measured: Mapping[str, Sequence[MeasuredEvaluation]], best: Sequence[Best]
) -> Iterator[RunFinding]:
    """A step that the Trainer did not choose and that the metric's own figure calls better."""
    for one in best:
        here = one.figure.step
        training = [m.evaluation for m in measured[one.figure.dataset] if not m.evaluation.after_training]
        at = next((e for e in training if e.step == here), None)
        if at is None or here != _trainers_step(run):
            continue
        name, larger = one.figure.name, one.figure.larger_is_better
        if at.select_by is not None and at.select_by in at.values:
            name, larger = at.select_by, at.larger_is_better
        sign = 1 if larger else -1
        values = {
            e.step: sign * e.values[name] for e in training if math.isfinite(e.values.get(name, math.nan))
        }
        if not values or max(values.values()) <= sign * at.values[name]:
            continue
        step = max(values, key=lambda step: (values[step], -step))
        label = figures.figure(name, at.metrics).label
        where = f"on {one.figure.dataset} " if one.figure.dataset else ""
        yield RunFinding(
            level="note",
            title=f"step {step:,} is better by {label} than the checkpoint that was chosen",
            evidence=f"the Trainer chose step {here:,}: {where}{label} {number(at.values[name])}, "
            f"against {number(sign * values[step])} at step {step:,}",
            source=one.figure.source,
        )


def _place(name: str) -> int:
    return figures.BESIDE.index(name) if name in figures.BESIDE else len(figures.BESIDE)


def figure_record(
    measured: MeasuredEvaluation, name: str, *, larger_is_better: bool | None = None
) -> MeasuredFigure:
    """One figure of one evaluation as a record."""
    evaluation = measured.evaluation
    declared = figures.figure(name, evaluation.metrics)
    # `F1 (yes)` is what our metric means by f1; another's may be of many classes.
    label = declared.label if evaluation.metrics else declared.label.split(" (")[0]
    if larger_is_better is None:
        larger_is_better = not declared.smaller_is_better
    return MeasuredFigure(
        name=name,
        label=label,
        dataset=evaluation.dataset,
        step=evaluation.step,
        value=evaluation.values[name],
        interval=measured.intervals.get(name),
        n=None if _is_engines(evaluation, name) else evaluation.n,
        n_unparsed=evaluation.n_unparsed,
        source=evaluation.source,
        larger_is_better=larger_is_better,
    )


def _is_engines(evaluation: Evaluation, name: str) -> bool:
    """Whether a figure is the engine's own, of all rows, beside ours of those with a good answer."""
    engines = {one.name for one in PREFERENCE_FIGURES}
    return name in engines or (name == "loss" and not engines.isdisjoint(evaluation.values))


# Sets the best evaluation beside that of the base model, before any step was taken.

_NONE = (
    "the base model was not evaluated on this set: tunebook eval --base does it, and in LLaMA-Factory "
    "eval_on_start: true"
)


def against_base(
    run: RunLog, measured: Mapping[str, Sequence[MeasuredEvaluation]], best: Best, pairing: Pairing
) -> Against:
    """The figure of the base model on the set of `best`, and the paired test of the two.

    Args:
        run: As read.
        measured: Its evaluations by dataset.
        best: The best evaluation of one dataset.
        pairing: Reads the records.
    """
    name, dataset = best.figure.name, best.figure.dataset
    base = next(
        (
            one
            for one in measured[dataset]
            if one.evaluation.step == 0
            and not one.evaluation.after_training
            and name in one.evaluation.values
        ),
        None,
    )
    if base is None or best.figure.step == 0:
        reason = _NONE if base is None else "no evaluation of this set was better than the base itself"
        return Against(figure=None, reason=reason, test=None, p_value=None)
    top = next(one for one in measured[dataset] if one.evaluation.step == best.figure.step)
    outcome = pairing.test(
        answers_of(run, "the base", base.evaluation, name), answers_of(run, run.name, top.evaluation, name)
    )
    before = figure_record(base, name, larger_is_better=best.figure.larger_is_better)
    if outcome.difference is None:
        return Against(figure=before, reason=outcome.reason, test=None, p_value=None)
    difference = outcome.difference
    words = (
        f"{difference.test} over {difference.n:,} rows: {difference.difference:+.3f}, "
        f"p {p_value(difference.p_value)}"
    )
    return Against(figure=before, reason=None, test=words, p_value=difference.p_value)


def not_better_than_base(best: Sequence[Best]) -> Iterator[RunFinding]:
    """A tuned model that the paired test does not show to be better than the base, or shows to be worse."""
    for one in best:
        base = one.base.figure
        if base is None:
            continue
        sign = 1 if one.figure.larger_is_better else -1
        gain = sign * (one.figure.value - base.value)
        sure = one.base.p_value is not None and one.base.p_value < SIGNIFICANT
        if gain > 0 and (sure or one.base.p_value is None):
            continue
        worse = gain < 0 and sure
        verdict = "worse" if worse else "not shown to be better"
        yield RunFinding(
            level="warning",
            title=f"{verdict} than the base model on {one.figure.dataset}",
            evidence=f"{one.figure.label} {number(one.figure.value)} at step {one.figure.step} against "
            f"{number(base.value)} before training; {one.base.test or one.base.reason}",
            source=one.figure.source,
        )


# Compares what a recipe's header promises with what was measured.

_NUMBER = r"-?\d+(?:\.\d+)?(?:e-?\d+)?"
_CLAIM = re.compile(
    rf"(?:(?P<dataset>[\w.-]+)/)?(?P<figure>[A-Za-z][\w-]*)\s*"
    rf"(?:(?P<least>>=|>|at least|above)\s*(?P<floor>{_NUMBER})"
    rf"|(?:=|:|of|about)?\s*(?P<value>{_NUMBER})(?:\s*(?:\+/-|\+-|±)\s*(?P<tolerance>{_NUMBER}))?)"
)


class Claim(NamedTuple):
    """`dataset/figure value +/- tolerance`, or `figure >= value`."""

    text: str
    dataset: str | None
    figure: str
    low: float
    high: float | None
    """None for a claim with no upper end."""


def claims(text: str) -> list[Claim]:
    """The claims in the `expected:` line of a recipe.

    >>> [claim.figure for claim in claims("demo_test/macro_f1 0.95 +/- 0.03, accuracy >= 0.9, seed 42.")]
    ['macro_f1', 'accuracy']
    """
    found = []
    for match in _CLAIM.finditer(text):
        if match["figure"] in {"seed", "step", "steps", "epoch", "epochs", "in", "n", "of", "about", "or"}:
            continue
        if match["floor"]:
            low, high = float(match["floor"]), None
        else:
            value, tolerance = float(match["value"]), float(match["tolerance"] or 0)
            low, high = value - tolerance, value + tolerance
        found.append(Claim(match[0].strip(), match["dataset"], match["figure"], low, high))
    return found


def judge_claims(text: str | None, best: Sequence[Best]) -> tuple[Expected, ...]:
    """Each claim beside the figure of that name at the best step.

    Args:
        text: The `expected:` line; None where the recipe has none or is not known.
        best: The best evaluation of each dataset.
    """
    if not text:
        return ()
    if text.strip().lower().startswith("not measured"):
        return ()
    found = claims(text)
    if not found:
        reason = "the recipe makes no claim in numbers"
        return (Expected(text=text, measured=None, verdict="not comparable", reason=reason),)
    return tuple(_verdict(claim, best) for claim in found)


def _verdict(claim: Claim, best: Sequence[Best]) -> Expected:
    measured = _measured(claim, best)
    if measured is None:
        where = f"{claim.dataset}/{claim.figure}" if claim.dataset else claim.figure
        reason = f"this run has no figure {where}"
        return Expected(text=claim.text, measured=None, verdict="not measured", reason=reason)
    verdict, reason = _judge(claim, measured)
    return Expected(text=claim.text, measured=measured, verdict=verdict, reason=reason)


def _judge(claim: Claim, measured: MeasuredFigure) -> tuple[Verdict, str]:
    value, interval = measured.value, measured.interval
    ceiling = math.inf if claim.high is None else claim.high
    if claim.low <= value <= ceiling:
        return "met", "the value lies within the claim"
    if interval is not None and interval.low <= ceiling and interval.high >= claim.low:
        side = "below" if value < claim.low else "above"
        return "within error", f"the value is {side} the claim, its 95 % interval reaches it"
    measure = "value" if interval is None else "whole 95 % interval"
    if value < claim.low:
        return "missed", f"the {measure} is below the claim"
    return "above", f"the {measure} is above the claim"


def _measured(claim: Claim, best: Sequence[Best]) -> MeasuredFigure | None:
    for one in best:
        if claim.dataset in (None, one.figure.dataset):
            for figure in (one.figure, *one.beside):
                if claim.figure.lower().replace("-", "_") == figure.name.lower():
                    return figure
    return None
