"""Findings: what a careful reader would notice in a run, each with its evidence."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING

import numpy as np

from tunebook.report.agreement import over_checkpoints
from tunebook.report.best import better_elsewhere, claims, not_better_than_base
from tunebook.report.objective import objective_of
from tunebook.report.records import RunFinding
from tunebook.report.schedule import schedule_differs
from tunebook.report.usage import would_change
from tunebook.text import number

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from typing import Any

    from numpy.typing import NDArray

    from tunebook.report.best import MeasuredEvaluation
    from tunebook.report.records import Best, Expected, MeasuredFigure
    from tunebook.report.significance import Pairing
    from tunebook.runlog import Evaluation, RunLog, Series


# Findings that the curves give: what broke, what never moved, what turned the wrong way.

_SPIKE = 3.0
_WINDOW = 25
_BEFORE = 50
_FEWEST = 3
_NEARLY_ZERO = 0.01
"""From here on a loss may be rounded to zero, of which the Trainer logs four digits."""
_FLAT_EVALUATIONS = 4


def not_finite(run: RunLog) -> Iterator[RunFinding]:
    """Loss or gradient norm that is nan or infinite."""
    for name in ("loss", "grad_norm"):
        series = run.series.get(name)
        if series is None:
            continue
        bad = ~np.isfinite(series.values)
        if bad.any():
            yield RunFinding(
                level="problem",
                title=f"{name} is not finite",
                evidence=f"{int(bad.sum())} of {len(bad)} logged values are nan or infinite, "
                f"the first at step {int(series.steps[bad][0])}",
                source=series.source,
            )


def zero_loss(run: RunLog) -> Iterator[RunFinding]:
    """A loss of exactly zero, which the Trainer logs in place of nan, and no model reaches.

    A reward's loss is zero by construction, and a loss that has come near zero is rounded to it.
    """
    series = run.series.get("loss")
    if series is None or len(series.values) < 2 or objective_of(run).by_reward:
        return
    zero = series.values == 0.0
    if not zero.any():
        return
    first = int(np.argmax(zero))
    before = series.values[max(0, first - _WINDOW) : first]
    if len(before) and float(np.nanmin(np.abs(before[-3:]), initial=np.inf)) < _NEARLY_ZERO:
        return
    yield RunFinding(
        level="problem",
        title="the training loss is exactly zero",
        evidence=f"at {int(zero.sum())} of {len(zero)} logged steps, first at step "
        f"{int(series.steps[first])}: the Trainer leaves nan and infinite losses out of its mean, "
        "or no token carries loss",
        source=series.source,
    )


def nothing_moves(run: RunLog) -> Iterator[RunFinding]:
    """A gradient or a learning rate of exactly zero at all steps: nothing is learned."""
    for name, title in (
        ("grad_norm", "the gradient is zero"),
        ("learning_rate", "the learning rate is zero"),
    ):
        series = run.series.get(name)
        if series is not None and len(series.values) >= _FEWEST and not np.any(series.values != 0.0):
            yield RunFinding(
                level="problem",
                title=f"{title} at all steps",
                evidence=f"at all {len(series.values)} logged steps: no weight has changed",
                source=series.source,
            )


def spikes(run: RunLog) -> Iterator[RunFinding]:
    """Training losses far above what the losses before them scatter by."""
    series = run.series.get("loss")
    if series is None or objective_of(run).by_reward:
        return
    places = spike_places(series.values)
    if len(places):
        worst = places[np.argmax(series.values[places])]
        before = series.values[max(0, worst - _BEFORE) : worst]
        yield RunFinding(
            level="warning",
            title=f"the training loss jumps up {len(places)} time{'s' if len(places) > 1 else ''}",
            evidence=f"highest at step {int(series.steps[worst])}: {number(float(series.values[worst]))}, "
            f"where the {len(before)} values before have a median of {number(float(np.median(before)))} and "
            f"19 of 20 of them lie below {number(float(np.quantile(before, 0.95)))}",
            source=series.source,
        )


def spike_places(losses: NDArray[np.float64]) -> NDArray[np.int64]:
    """Indices of values that lie far outside what the series itself scatters by, on a scale of ratios.

    A jump is at least half as high again as the median of the 50 values before it, more than three times as
    far from it as 95 % of them, higher than each of them, and more than ten units of the last printed digit.
    """
    found: list[int] = []
    digit = _last_digit(losses)
    for at in _candidates(losses):
        before = losses[max(0, at - _BEFORE) : at]
        if not np.isfinite(before).all() or (before <= 0).any():
            continue
        middle = float(np.median(before))
        rise = math.log(losses[at] / middle)
        scatter = float(np.quantile(np.abs(np.log(before / middle)), 0.95))
        if (
            rise > math.log(1.5)
            and rise > _SPIKE * scatter
            and losses[at] > before.max()
            and losses[at] - middle > 10 * digit
        ):
            found.append(at)
    places = np.array(found, dtype=np.int64)
    # Neighbours belong to one spike.
    apart: NDArray[Any] = np.append(True, np.diff(places) > 3) if len(places) else np.zeros(0, dtype=bool)
    kept: NDArray[np.int64] = places[apart]
    return kept


def _candidates(losses: NDArray[np.float64]) -> list[int]:
    """Indices with enough values before them that stand half above the one before, which few do."""
    if len(losses) <= 2 * _WINDOW:
        return []
    windows = np.lib.stride_tricks.sliding_window_view(losses, _WINDOW)[:-1]
    with np.errstate(invalid="ignore"):
        high = losses[_WINDOW:] > 1.3 * windows.mean(axis=1)
    return (np.flatnonzero(high & np.isfinite(losses[_WINDOW:])) + _WINDOW).tolist()


def _last_digit(values: NDArray[np.float64]) -> float:
    """The unit that the values are rounded to; 0 where there is none down to a hundred-millionth."""
    finite = values[np.isfinite(values)]
    for digits in range(1, 9):
        if np.allclose(finite, np.round(finite, digits), rtol=0, atol=10.0 ** -(digits + 3)):
            return float(10.0**-digits)
    return 0.0


def overfitting(run: RunLog) -> Iterator[RunFinding]:
    """Evaluation loss that rises while the training loss falls."""
    for dataset, evaluations in _with_loss(run).items():
        where = f" on {dataset}" if dataset else ""
        losses = np.array([one.values["loss"] for one in evaluations])
        if len(losses) < 3 or not np.isfinite(losses).all():
            continue
        lowest = int(np.argmin(losses))
        rise = losses[-1] / losses[lowest] - 1
        training = run.series.get("loss")
        if training is None or lowest == len(losses) - 1 or rise < 0.05:
            continue
        before = _mean_around(training, evaluations[lowest].step)
        after = _mean_around(training, evaluations[-1].step)
        if before is not None and after is not None and after < before:
            yield RunFinding(
                level="warning",
                title=f"the evaluation loss rises while the training loss falls{where}",
                evidence=f"lowest {number(float(losses[lowest]))} at step {evaluations[lowest].step}, "
                f"{number(float(losses[-1]))} at step {evaluations[-1].step} ({rise:+.0%}); "
                f"the training loss went from {number(before)} to {number(after)}",
                source=evaluations[-1].source,
            )


def plateau(run: RunLog) -> Iterator[RunFinding]:
    """A chosen figure that never moved, as of a model that always gives the same answer."""
    groups: dict[str, list[Evaluation]] = {}
    for one in run.evaluations:
        if not one.after_training and one.select_by and one.select_by in one.values:
            groups.setdefault(one.dataset, []).append(one)
    for dataset, evaluations in groups.items():
        name = evaluations[0].select_by or ""
        values = {one.values.get(name) for one in evaluations}
        if len(evaluations) >= _FLAT_EVALUATIONS and len(values) == 1:
            yield RunFinding(
                level="warning",
                title=f"{name} on {dataset} never moved",
                evidence=f"{number(evaluations[0].values[name])} at all {len(evaluations)} evaluations",
                source=evaluations[-1].source,
            )


def no_gain(
    measured: Mapping[str, Sequence[MeasuredEvaluation]], best: Sequence[Best]
) -> Iterator[RunFinding]:
    """Many evaluations after the best one, none of which leaves its interval."""
    for one in best:
        figure = one.figure
        later = [
            m.evaluation
            for m in measured[figure.dataset]
            if m.evaluation.step > figure.step
            and not m.evaluation.after_training
            and np.isfinite(m.evaluation.values.get(figure.name, np.nan))
        ]
        if figure.interval is None or len(later) < _FLAT_EVALUATIONS:
            continue
        values = [evaluation.values[figure.name] for evaluation in later]
        if min(values) < figure.interval.low or max(values) > figure.interval.high:
            continue
        last = later[-1].step
        yield RunFinding(
            level="note",
            title=f"no gain in {figure.label} after step {figure.step:,} on {figure.dataset}",
            evidence=f"{len(later)} later evaluations lie between {number(min(values))} and "
            f"{number(max(values))}, within the 95 % interval of {number(figure.value)} at step "
            f"{figure.step:,}; {last - figure.step:,} of {last:,} steps came after it",
            source=figure.source,
        )


def _with_loss(run: RunLog) -> dict[str, list[Evaluation]]:
    found: dict[str, list[Evaluation]] = {}
    for one in run.evaluations:
        if "loss" in one.values and not one.after_training:
            found.setdefault(one.dataset, []).append(one)
    return found


def _mean_around(series: Series, step: int) -> float | None:
    near = series.values[np.abs(series.steps - step) <= max(1, int(series.steps[-1]) // 10)]
    near = near[np.isfinite(near)]
    return float(near.mean()) if len(near) else None


def missing_evaluations(run: RunLog, best: Sequence[Best]) -> Iterator[RunFinding]:
    """Evaluations of a dataset in which the chosen figure is missing or not finite."""
    chosen = {one.figure.dataset: one.figure.name for one in best}
    by_dataset: dict[str, list[Evaluation]] = {}
    for one in run.evaluations:
        if not one.after_training:
            by_dataset.setdefault(one.dataset, []).append(one)
    for dataset, evaluations in by_dataset.items():
        asked = next((one.select_by for one in evaluations if one.select_by), chosen.get(dataset))
        without = [
            one.step for one in evaluations if asked and not np.isfinite(one.values.get(asked, np.nan))
        ]
        if without:
            yield RunFinding(
                level="warning",
                title=f"{asked} is missing at some evaluations{f' of {dataset}' if dataset else ''}",
                evidence=f"at step {_list(without)}: {len(without)} of {len(evaluations)} evaluations",
                source=evaluations[0].source,
            )


def _list(steps: Sequence[int]) -> str:
    shown = ", ".join(str(step) for step in steps[:8])
    return f"{shown} and {len(steps) - 8} more" if len(steps) > 8 else shown


_OF_CURVES = (
    not_finite,
    zero_loss,
    nothing_moves,
    spikes,
    overfitting,
    plateau,
    schedule_differs,
)
_WIDE = 0.05
"""Half the width of a 95 % interval from which on a set is called small."""
_RANK = {"problem": 0, "warning": 1, "note": 2}


def findings_of(
    run: RunLog,
    measured: Mapping[str, Sequence[MeasuredEvaluation]],
    best: Sequence[Best],
    expected: Sequence[Expected],
    pairing: Pairing,
) -> tuple[RunFinding, ...]:
    """All findings of one run, problems first."""
    found = [
        *_ended_by(run),
        *_nothing_trained(run),
        *(finding for rule in _OF_CURVES for finding in rule(run)),
        *missing_evaluations(run, best),
        *no_gain(measured, best),
        *_unfinished(run),
        *_baseline(best),
        *not_better_than_base(best),
        *_wide(best, expected),
        *_unparsed(run, best),
        *_cut(run),
        *_generation_cut(run, best),
        *_token_accuracy(run),
        *_expected(expected),
        *better_elsewhere(run, measured, best),
        *_best_of_another(run),
        *_trained_on_its_test(run),
        *over_checkpoints(run, measured, best, pairing),
        *_lost(run),
    ]
    return tuple(sorted(_folded(found), key=lambda finding: _RANK[finding.level]))


def _folded(found: Sequence[RunFinding]) -> list[RunFinding]:
    """Findings of one kind as one line with a count, where there are more than three of them."""
    kinds: dict[tuple[str, str], list[RunFinding]] = {}
    for finding in found:
        kinds.setdefault((finding.level, _kind(finding)), []).append(finding)
    folded: list[RunFinding] = []
    for (level, _), alike in kinds.items():
        if len(alike) <= _ALIKE:
            folded += alike
            continue
        names = list(dict.fromkeys(one.title for one in alike))
        shown = "; ".join(
            f"{one.title}: {one.evidence}" if len(names) > 1 else one.evidence for one in alike[:2]
        )
        title = names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"
        folded.append(
            RunFinding(
                level=alike[0].level,
                title=f"{title} ({len(alike)} times)",
                evidence=f"{shown}; {len(alike) - 2} more of this kind",
                source=alike[0].source,
            )
        )
        assert level == alike[0].level
    return folded


def _kind(finding: RunFinding) -> str:
    """What findings of different files or sets have in common."""
    return "damaged" if finding.title.endswith("is damaged") else finding.title.split(" on ")[0]


_ALIKE = 3


def _ended_by(run: RunLog) -> Iterator[RunFinding]:
    ending = run.ending
    if ending is None:
        return
    when = "after training" if ending.after_training else "broken off"
    where = "" if ending.step is None or ending.after_training else f" at step {ending.step:,}"
    where += f" of {ending.total:,}" if where and ending.total else ""
    yield RunFinding(
        level="warning" if ending.after_training or ending.kind == "cancelled" else "problem",
        title=f"{when}{where}: {ending.title}",
        evidence=f"{ending.evidence}; {would_change(run)}" if ending.kind == "memory" else ending.evidence,
        source=ending.source,
    )


def nothing_trained(run: RunLog) -> str | None:
    """Why the last start trained nothing; None where it did."""
    trainer = run.trainer
    if trainer and trainer.max_steps and (trainer.global_step or 0) > trainer.max_steps:
        return (
            f"it went on from step {trainer.global_step:,}, beyond the {trainer.max_steps:,} steps that were "
            "asked for: the weights and all logged figures are those of the run before"
        )
    loss = run.series.get("loss")
    if run.results.get("train_loss") == 0.0 and loss is not None and np.any(loss.values[-3:] > _NEARLY_ZERO):
        return (
            "its closing summary has a mean training loss of 0, while the log before has others: the "
            "checkpoint that it went on from was at its end"
        )
    return None


def _nothing_trained(run: RunLog) -> Iterator[RunFinding]:
    why = nothing_trained(run)
    if why is not None:
        source = run.trainer.source if run.trainer else run.results_source
        yield RunFinding(level="problem", title="nothing was trained", evidence=why, source=source or "")


def _best_of_another(run: RunLog) -> Iterator[RunFinding]:
    """A best checkpoint that lies in another output folder, as after a resume from another run."""
    trainer, place = run.trainer, run.settings.get("output_dir")
    if trainer is None or trainer.best_folder is None or not isinstance(place, str):
        return
    own = [part for part in re.split(r"[/\\]", place) if part][-1:]
    if own and own[0] not in (".", "..") and own[0] != trainer.best_folder:
        yield RunFinding(
            level="warning",
            title="the best checkpoint is of another run",
            evidence=f"{trainer.best_checkpoint} lies in {trainer.best_folder}, this run wrote into {own[0]}",
            source=trainer.source,
        )


def _trained_on_its_test(run: RunLog) -> Iterator[RunFinding]:
    """A set that was trained on and evaluated, by its name or by the hash of its file."""
    trained, measured = (
        {name.strip() for name in str(run.settings.get(key) or "").split(",") if name.strip()}
        for key in ("dataset", "eval_dataset")
    )
    facts = run.provenance.get("datasets")
    hashes = {
        name: one.get("sha256")
        for name, one in (facts.items() if isinstance(facts, dict) else ())
        if isinstance(one, dict)
    }
    for name in sorted(measured):
        same = [
            one
            for one in sorted(trained)
            if one == name or (hashes.get(one) and hashes.get(one) == hashes.get(name))
        ]
        if same:
            yield RunFinding(
                level="problem",
                title=f"{name} was trained on too",
                evidence=f"it is the training set {same[0]}: its figures say nothing of other rows",
                source=run.settings_source or "",
            )


def _of_checkpoint(run: RunLog) -> bool:
    """Whether the folder is a checkpoint itself: the Trainer writes its optimizer only there."""
    patterns = ("optimizer.*", "scheduler.pt", "rng_state*.pth")
    return run.path.is_dir() and any(any(run.path.glob(pattern)) for pattern in patterns)


def _unfinished(run: RunLog) -> Iterator[RunFinding]:
    trainer = run.trainer
    if not trainer or not trainer.max_steps:
        return
    last = max([trainer.global_step or 0, *(int(s.steps[-1]) for s in run.series.values() if len(s.steps))])
    if not trainer.source.endswith("trainer_state.json") and trainer.max_steps - last < _interval(run):
        return  # A log has every so many steps; only a state file has the last one.
    if trainer.patience and (trainer.without_improvement or 0) >= trainer.patience:
        yield RunFinding(
            level="note",
            title="early stopping ended the run"
            if last < trainer.max_steps
            else "early stopping was due at the end",
            evidence=f"{trainer.without_improvement} evaluations without improvement{_since(run)}, patience "
            f"{trainer.patience}; step {last:,} of {trainer.max_steps:,}",
            source=trainer.source,
        )
    elif last < trainer.max_steps and (run.ending is None or run.ending.after_training):
        ended, best = "train_runtime" in run.results, trainer.best_step == trainer.global_step
        if _of_checkpoint(run) or (best and trainer.source == "trainer_state.json" and not ended):
            title = "this folder is a checkpoint of a run: what came after it is not here"
        else:
            title = "the run ended early" if ended else "the run ended early, or is still going"
        yield RunFinding(
            level="note" if title.startswith("this") else "warning",
            title=title,
            evidence=f"the last step logged is {last:,} of {trainer.max_steps:,} planned",
            source=trainer.source,
        )


def _interval(run: RunLog) -> float:
    loss = run.series.get("loss")
    return float(np.median(np.diff(loss.steps))) if loss is not None and len(loss.steps) > 1 else 1.0


def _since(run: RunLog) -> str:
    """Of which figure, on which value and step, as far as the engine says."""
    asked, trainer = run.settings.get("metric_for_best_model"), run.trainer
    if trainer is None or trainer.best_metric is None:
        return ""
    figure = asked if isinstance(asked, str) else "the engine's figure"
    where = "" if trainer.best_step is None else f" of step {trainer.best_step:,}"
    return f" of {figure} on {number(trainer.best_metric)}{where}"


def _baseline(best: Sequence[Best]) -> Iterator[RunFinding]:
    for one in best:
        named = {figure.name: figure for figure in (one.figure, *one.beside)}
        accuracy, baseline = named.get("accuracy"), named.get("majority_accuracy")
        if accuracy is None or baseline is None:
            continue
        low = accuracy.interval.low if accuracy.interval else accuracy.value
        if low <= baseline.value:
            shown = f" (low end of the 95 % interval {number(low)})" if accuracy.interval else ""
            yield RunFinding(
                level="warning",
                title="not shown to be better than always giving the more common answer on "
                f"{one.figure.dataset}",
                evidence=f"accuracy {number(accuracy.value)}{shown} against {number(baseline.value)} "
                f"at step {one.figure.step}",
                source=one.figure.source,
            )


def _wide(best: Sequence[Best], expected: Sequence[Expected]) -> Iterator[RunFinding]:
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
            yield RunFinding(
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
        yield RunFinding(
            level="note",
            title=f"{figure.dataset} is too small for close results",
            evidence=f"{figure.label} is known to +/- {number(half)} with {figure.n} examples; "
            f"+/- 0.020 takes about {_examples(figure.n, half, 0.02):,}",
            source=figure.source,
        )


def _half(figure: MeasuredFigure) -> float | None:
    return None if figure.interval is None else (figure.interval.high - figure.interval.low) / 2


def _examples(n: int, half: float, wanted: float) -> int:
    """Examples for an interval of that half width, to the next hundred; it shrinks with the root of n."""
    return math.ceil(n * (half / wanted) ** 2 / 100) * 100


def _unparsed(run: RunLog, best: Sequence[Best]) -> Iterator[RunFinding]:
    steps = {(one.figure.dataset, one.figure.step) for one in best}
    for evaluation in run.evaluations:
        if (evaluation.dataset, evaluation.step) not in steps or evaluation.after_training:
            continue
        if evaluation.n_unparsed and evaluation.n and evaluation.n_unparsed / evaluation.n >= 0.01:
            reasons = ", ".join(f"{count} {reason}" for reason, count in evaluation.unparsed_reasons.items())
            yield RunFinding(
                level="warning",
                title=f"answers that could not be read on {evaluation.dataset}",
                evidence=f"{evaluation.n_unparsed} of {evaluation.n} at step {evaluation.step}: "
                f"{reasons or 'no reasons given'}",
                source=evaluation.source,
            )


def _cut(run: RunLog) -> Iterator[RunFinding]:
    worst = max(run.evaluations, key=lambda evaluation: evaluation.answers_cut or 0, default=None)
    if worst is not None and worst.answers_cut:
        yield RunFinding(
            level="warning",
            title=f"answers cut off by the length limit on {worst.dataset}",
            evidence=f"{worst.answers_cut} of {worst.n} rows lost their answer or its opening; "
            "raise the limit or shorten the prompts",
            source=worst.source,
        )


def _generation_cut(run: RunLog, best: Sequence[Best]) -> Iterator[RunFinding]:
    """Generated answers that ended at max_new_tokens and not at a stop token."""
    steps = {(one.figure.dataset, one.figure.step) for one in best}
    for evaluation in run.evaluations:
        rate = evaluation.values.get("generation_cut_rate", 0.0)
        if (evaluation.dataset, evaluation.step) not in steps or evaluation.after_training or not rate > 0.01:
            continue
        count = f"{round(rate * evaluation.n):,} of {evaluation.n:,}" if evaluation.n else f"{rate:.1%}"
        yield RunFinding(
            level="warning",
            title=f"answers cut off by max_new_tokens on {evaluation.dataset}",
            evidence=f"{count} generated answers at step {evaluation.step} had not ended; raise "
            "max_new_tokens of the metric, or see whether the model has learned to stop",
            source=evaluation.source,
        )


def _token_accuracy(run: RunLog) -> Iterator[RunFinding]:
    own = [e for e in run.evaluations if not e.metrics and "token_accuracy" in e.values]
    if own:
        yield RunFinding(
            level="warning",
            title="the engine's eval_accuracy counts tokens, not answers",
            evidence="compute_accuracy averages over all label tokens, the end mark included; "
            "a model that always gives the same answer can score above 0.8. Shown here as token accuracy",
            source=own[0].source,
        )


def _expected(expected: Sequence[Expected]) -> Iterator[RunFinding]:
    for one in expected:
        if one.verdict in {"missed", "above"} and one.measured:
            missed = one.verdict == "missed"
            yield RunFinding(
                level="problem" if missed else "note",
                title=f"the recipe's claim is {'missed' if missed else 'surpassed'}: {one.text}",
                evidence=f"measured {number(one.measured.value)} at step {one.measured.step}; {one.reason}",
                source=one.measured.source,
            )


def _lost(run: RunLog) -> Iterator[RunFinding]:
    for note in run.notes:
        if note.kind == "lost":
            title = "files are missing" if "Git LFS" in note.message else f"{note.file} is damaged"
            yield RunFinding(level="warning", title=title, evidence=note.message, source=note.file)
        if note.kind == "open":
            title = "its end is not written down in W&B's file"
            yield RunFinding(level="note", title=title, evidence=note.message, source=note.file)
        if note.kind == "left out":
            title = "files of another run lie here"
            evidence = f"{note.file} {note.message}"
            yield RunFinding(level="warning", title=title, evidence=evidence, source=note.file)
        if note.kind == "read" and "two processes" in note.message:
            yield RunFinding(
                level="warning", title=note.message.split(":")[0], evidence=note.message, source=note.file
            )
        if note.kind == "resumed" and not run.restarts:
            yield RunFinding(
                level="note", title="the run was resumed", evidence=note.message, source=note.file
            )
    for restart in run.restarts:
        yield RunFinding(
            level="note", title="the run was started again", evidence=restart.message, source=restart.source
        )
    resumed = run.provenance.get("resumed_from")
    if isinstance(resumed, str) and resumed:
        yield RunFinding(
            level="note",
            title=f"resumed from {resumed}",
            evidence="run.json says so",
            source="tunebook/run.json",
        )
