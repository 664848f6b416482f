"""Findings: what a careful reader would notice in a run, each with its evidence."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from tunebook.report import curve_findings
from tunebook.report.agreement import over_checkpoints
from tunebook.report.base import not_better_than_base
from tunebook.report.expected import claims
from tunebook.report.records import Finding
from tunebook.report.schedule import schedule_differs
from tunebook.text import number

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from tunebook.report.best import Measured
    from tunebook.report.paired import Pairing
    from tunebook.report.records import Best, Expected, Figure
    from tunebook.runlog import RunLog

_OF_CURVES = (
    curve_findings.not_finite,
    curve_findings.zero_loss,
    curve_findings.spikes,
    curve_findings.overfitting,
    curve_findings.plateau,
    schedule_differs,
)
_WIDE = 0.05
"""Half the width of a 95 % interval from which on a set is called small."""
_RANK = {"problem": 0, "warning": 1, "note": 2}


def findings_of(
    run: RunLog,
    measured: Mapping[str, Sequence[Measured]],
    best: Sequence[Best],
    expected: Sequence[Expected],
    pairing: Pairing,
) -> tuple[Finding, ...]:
    """All findings of one run, problems first."""
    found = [
        *(finding for rule in _OF_CURVES for finding in rule(run)),
        *curve_findings.missing_evaluations(run, best),
        *curve_findings.no_gain(measured, best),
        *_unfinished(run),
        *_baseline(best),
        *not_better_than_base(best),
        *_wide(best, expected),
        *_unparsed(run, best),
        *_cut(run),
        *_generation_cut(run, best),
        *_token_accuracy(run),
        *_expected(expected),
        *_other_best(run, best),
        *over_checkpoints(run, measured, best, pairing),
        *_lost(run),
    ]
    return tuple(sorted(found, key=lambda finding: _RANK[finding.level]))


def _unfinished(run: RunLog) -> Iterator[Finding]:
    trainer = run.trainer
    if not trainer or not trainer.max_steps:
        return
    last = max([trainer.global_step or 0, *(int(s.steps[-1]) for s in run.series.values() if len(s.steps))])
    if trainer.patience and (trainer.without_improvement or 0) >= trainer.patience:
        yield Finding(
            level="note",
            title="early stopping ended the run"
            if last < trainer.max_steps
            else "early stopping was due at the end",
            evidence=f"{trainer.without_improvement} evaluations without improvement{_since(run)}, patience "
            f"{trainer.patience}; step {last:,} of {trainer.max_steps:,}",
            source=trainer.source,
        )
    elif last < trainer.max_steps:
        yield Finding(
            level="warning",
            title="the run ended early, or is still going",
            evidence=f"the last step logged is {last:,} of {trainer.max_steps:,} planned",
            source=trainer.source,
        )


def _since(run: RunLog) -> str:
    """Of which figure, on which value and step, as far as the engine says."""
    asked, trainer = run.settings.get("metric_for_best_model"), run.trainer
    if trainer is None or trainer.best_metric is None:
        return ""
    figure = asked if isinstance(asked, str) else "the engine's figure"
    where = "" if trainer.best_step is None else f" of step {trainer.best_step:,}"
    return f" of {figure} on {number(trainer.best_metric)}{where}"


def _baseline(best: Sequence[Best]) -> Iterator[Finding]:
    for one in best:
        named = {figure.name: figure for figure in (one.figure, *one.beside)}
        accuracy, baseline = named.get("accuracy"), named.get("majority_accuracy")
        if accuracy is None or baseline is None:
            continue
        low = accuracy.interval.low if accuracy.interval else accuracy.value
        if low <= baseline.value:
            shown = f" (low end of the 95 % interval {number(low)})" if accuracy.interval else ""
            yield Finding(
                level="warning",
                title="not shown to be better than always giving the commoner answer on "
                f"{one.figure.dataset}",
                evidence=f"accuracy {number(accuracy.value)}{shown} against {number(baseline.value)} "
                f"at step {one.figure.step}",
                source=one.figure.source,
            )


def _wide(best: Sequence[Best], expected: Sequence[Expected]) -> Iterator[Finding]:
    """A set too small for the recipe's claim, or without a claim for close results."""
    claimed = {}
    for one in expected:
        if one.measured is not None and one.measured.interval is not None:
            for claim in claims(one.text):
                if claim.high is not None and claim.high > claim.low:
                    claimed[one.measured.dataset, one.measured.name] = (claim.high - claim.low) / 2, one
    for (dataset, _), (tolerance, one) in claimed.items():
        measured = one.measured
        assert measured is not None
        half = _half(measured)
        if half is not None and measured.n and half > tolerance:
            yield Finding(
                level="warning",
                title=f"{dataset} is too small for the recipe's claim of {one.text}",
                evidence=f"{measured.label} is known to +/- {number(half)} with {measured.n:,} examples; "
                f"+/- {number(tolerance)} takes about {_examples(measured.n, half, tolerance):,}",
                source=measured.source,
            )
    for best_one in best:
        figure = best_one.figure
        half = _half(figure)
        if half is None or not figure.n or half <= _WIDE or (figure.dataset, figure.name) in claimed:
            continue
        yield Finding(
            level="note",
            title=f"{figure.dataset} is too small to tell close results apart",
            evidence=f"{figure.label} is known to +/- {number(half)} with {figure.n} examples; "
            f"+/- 0.020 takes about {_examples(figure.n, half, 0.02):,}",
            source=figure.source,
        )


def _half(figure: Figure) -> float | None:
    return None if figure.interval is None else (figure.interval.high - figure.interval.low) / 2


def _examples(n: int, half: float, wanted: float) -> int:
    """Examples for an interval of that half width, to the next hundred; it shrinks with the root of n."""
    return math.ceil(n * (half / wanted) ** 2 / 100) * 100


def _unparsed(run: RunLog, best: Sequence[Best]) -> Iterator[Finding]:
    steps = {(one.figure.dataset, one.figure.step) for one in best}
    for evaluation in run.evaluations:
        if (evaluation.dataset, evaluation.step) not in steps or evaluation.after_training:
            continue
        if evaluation.n_unparsed and evaluation.n and evaluation.n_unparsed / evaluation.n >= 0.01:
            reasons = ", ".join(f"{count} {reason}" for reason, count in evaluation.unparsed_reasons.items())
            yield Finding(
                level="warning",
                title=f"answers that could not be read on {evaluation.dataset}",
                evidence=f"{evaluation.n_unparsed} of {evaluation.n} at step {evaluation.step}: "
                f"{reasons or 'no reasons given'}",
                source=evaluation.source,
            )


def _cut(run: RunLog) -> Iterator[Finding]:
    worst = max(run.evaluations, key=lambda evaluation: evaluation.answers_cut or 0, default=None)
    if worst is not None and worst.answers_cut:
        yield Finding(
            level="warning",
            title=f"answers cut off by the length limit on {worst.dataset}",
            evidence=f"{worst.answers_cut} of {worst.n} rows lost their answer or its opening; "
            "raise the limit or shorten the prompts",
            source=worst.source,
        )


def _generation_cut(run: RunLog, best: Sequence[Best]) -> Iterator[Finding]:
    """Generated answers that ended at max_new_tokens and not at a stop token."""
    steps = {(one.figure.dataset, one.figure.step) for one in best}
    for evaluation in run.evaluations:
        rate = evaluation.values.get("generation_cut_rate", 0.0)
        if (evaluation.dataset, evaluation.step) not in steps or evaluation.after_training or not rate > 0.01:
            continue
        count = f"{round(rate * evaluation.n):,} of {evaluation.n:,}" if evaluation.n else f"{rate:.1%}"
        yield Finding(
            level="warning",
            title=f"answers cut off by max_new_tokens on {evaluation.dataset}",
            evidence=f"{count} generated answers at step {evaluation.step} had not ended; raise "
            "max_new_tokens of the metric, or see whether the model has learned to stop",
            source=evaluation.source,
        )


def _token_accuracy(run: RunLog) -> Iterator[Finding]:
    own = [e for e in run.evaluations if not e.metrics and "token_accuracy" in e.values]
    if own:
        yield Finding(
            level="warning",
            title="the engine's eval_accuracy counts tokens, not answers",
            evidence="compute_accuracy averages over all label tokens, the end mark included; "
            "a model that always gives the same answer can score above 0.8. Shown here as token accuracy",
            source=own[0].source,
        )


def _expected(expected: Sequence[Expected]) -> Iterator[Finding]:
    for one in expected:
        if one.verdict in {"missed", "above"} and one.measured:
            missed = one.verdict == "missed"
            yield Finding(
                level="problem" if missed else "note",
                title=f"the recipe's claim is {'missed' if missed else 'surpassed'}: {one.text}",
                evidence=f"measured {number(one.measured.value)} at step {one.measured.step}; {one.reason}",
                source=one.measured.source,
            )


def _other_best(run: RunLog, best: Sequence[Best]) -> Iterator[Finding]:
    trainer = run.trainer
    if not trainer or trainer.best_step is None or not best:
        return
    steps = {one.figure.step for one in best}
    if trainer.best_step not in steps:
        one = best[0].figure
        yield Finding(
            level="note",
            title="the engine kept another checkpoint than the best one by the chosen figure",
            evidence=f"it kept {trainer.best_checkpoint or f'step {trainer.best_step}'} (its value "
            f"{'unknown' if trainer.best_metric is None else number(trainer.best_metric)}); by {one.label} "
            f"step {one.step} is best",
            source=trainer.source,
        )


def _lost(run: RunLog) -> Iterator[Finding]:
    for note in run.notes:
        if note.kind == "lost":
            yield Finding(
                level="warning", title=f"{note.file} is damaged", evidence=note.message, source=note.file
            )
        if note.kind == "resumed" and not run.restarts:
            yield Finding(level="note", title="the run was resumed", evidence=note.message, source=note.file)
    for restart in run.restarts:
        yield Finding(
            level="note", title="the run was started again", evidence=restart.message, source=restart.source
        )
    resumed = run.provenance.get("resumed_from")
    if isinstance(resumed, str) and resumed:
        yield Finding(
            level="note",
            title=f"resumed from {resumed}",
            evidence="run.json says so",
            source="tunebook/run.json",
        )
