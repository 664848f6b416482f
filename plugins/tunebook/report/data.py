"""Gathers runs into one `Report`: reads, measures, compares; lays nothing out."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np

from tunebook import __version__
from tunebook.errors import TunebookError, join_errors
from tunebook.report import curves, figures
from tunebook.report import facts as setup
from tunebook.report.best import (
    MeasuredEvaluation,
    against_base,
    best_of,
    by_dataset,
    judge_claims,
    with_intervals,
)
from tunebook.report.compare import compare_runs
from tunebook.report.eval_results import read_results, with_results
from tunebook.report.examples import examples_of, figures_by_length
from tunebook.report.facts import facts_of
from tunebook.report.findings import findings_of, nothing_trained
from tunebook.report.lines import Curves
from tunebook.report.objective import objective_of
from tunebook.report.records import FORMAT, AnswerExamples, Best, EvaluationRow, Report, RunReport
from tunebook.report.significance import Pairing
from tunebook.report.usage import usage_of
from tunebook.runlog import read_run
from tunebook.text import number, p_value

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from tunebook.report.records import Best, Expected, MeasuredFigure, RunComparison, RunReport
    from tunebook.runlog import Note, RunLog


def gather(folders: Sequence[Path], *, evals: Sequence[Path] = (), now: datetime | None = None) -> Report:
    """Read the runs and make the report's data of them.

    Args:
        folders: Run folders, in the order in which they are to be shown.
        evals: Folders of results of `tunebook eval`, beside those that are found with the runs.
        now: The time to write into the report; None for the clock's.

    Raises:
        TunebookError: A folder holds no run or cannot be read; of several faults all are named.
    """
    runs, errors = [], []
    for folder in folders:
        try:
            runs.append(read_run(folder))
        except TunebookError as error:
            errors.append(error)
    try:
        results = read_results(evals)
    except TunebookError as error:
        errors.append(error)
        results = []
    if errors:
        raise join_errors(errors)
    return report_of([with_results(run, results) for run in runs], now)


def report_of(runs: Sequence[RunLog], now: datetime | None = None) -> Report:
    """The report of runs that have been read, in the order in which they are to be shown."""
    names = _distinct_names(runs)
    gathered = [
        _gather_run(f"r{place}", name, run)
        for place, (name, run) in enumerate(zip(names, runs, strict=True), 1)
    ]
    reports = tuple(report for report, _ in gathered)
    drawn = [curve for _, curve in gathered]
    comparison = compare_runs(reports, drawn) if len(reports) > 1 else None
    made_at = (now or datetime.now(UTC)).astimezone(UTC).isoformat(timespec="seconds")
    return Report(
        format=FORMAT,
        made_by=f"tunebook {__version__}",
        made_at=made_at,
        title=names[0] if len(names) == 1 else f"{len(names)} runs compared",
        headline=report_headline(reports, comparison),
        runs=reports,
        charts=curves.charts(drawn),
        comparison=comparison,
    )


def _distinct_names(runs: Sequence[RunLog]) -> list[str]:
    """The folders' names, with as many of their parents as it takes to tell them apart."""
    for depth in range(1, 6):
        names = ["/".join(run.path.parts[-depth:]).lstrip("/") for run in runs]
        if len(set(names)) == len(names):
            return names
    return [f"{name} ({place})" for place, name in enumerate(names, 1)]


def _gather_run(run_id: str, name: str, run: RunLog) -> tuple[RunReport, Curves]:
    measured = {
        dataset: [with_intervals(run, evaluation) for evaluation in evaluations]
        for dataset, evaluations in by_dataset(run.evaluations).items()
    }
    pairing = Pairing()
    # Sets with a metric first: of several under preferences some may have the engine's loss only.
    by_metric = sorted(measured.values(), key=lambda one: not any(m.evaluation.metrics for m in one))
    chosen = (best_of(run, one) for one in by_metric)
    best = tuple(
        replace(one, base=against_base(run, measured, one, pairing)) for one in chosen if one is not None
    )
    recipe = run.provenance.get("recipe")
    header = recipe.get("header") if isinstance(recipe, dict) else None
    claim = header.get("expected") if isinstance(header, dict) else None
    expected = judge_claims(claim if isinstance(claim, str) else None, best)
    examples, notes = _examples(run, best)
    report = RunReport(
        id=run_id,
        name=name,
        path=str(run.path),
        engine=run.engine,
        model=setup.model_name(run.settings),
        method=setup.method_name(run.settings),
        trained_on=setup.trained_on(run.settings),
        headline=run_headline(run, best, expected),
        best=best,
        expected=expected,
        facts=facts_of(run),
        usage=usage_of(run),
        settings=setup.grouped_settings(run.settings),
        settings_source=run.settings_source,
        figure_names=_figure_names(measured, best),
        evaluations=tuple(_rows(measured, best)),
        by_length=figures_by_length(run, best),
        signatures={name: text for one in run.evaluations for name, text in one.signatures.items()},
        examples=tuple(examples),
        examples_missing=None if examples else _why_no_examples(run, best),
        findings=findings_of(run, measured, best, expected, pairing),
        recipe_text=run.recipe_text,
        provenance=provenance(run.provenance),
        sources=_sources(run),
        notes=tuple({"kind": n.kind, "file": n.file, "message": n.message} for n in (*run.notes, *notes)),
    )
    return report, Curves(run_id, name, run, measured, best)


def _figure_names(
    measured: Mapping[str, Sequence[MeasuredEvaluation]], best: Sequence[Best]
) -> tuple[str, ...]:
    names = {name for one in measured.values() for m in one for name in m.evaluation.values}
    names -= figures.NOT_FIGURES
    measured_by = tuple(
        dict.fromkeys(name for one in measured.values() for m in one for name in m.evaluation.metrics)
    )
    return tuple(figures.order(names, best[0].figure.name if best else None, measured_by))


def _rows(measured: Mapping[str, Sequence[MeasuredEvaluation]], best: Sequence[Best]) -> list[EvaluationRow]:
    best_steps = {(one.figure.dataset, one.figure.step) for one in best}
    return [
        EvaluationRow(
            dataset=dataset,
            step=one.evaluation.step,
            epoch=one.evaluation.epoch,
            n=one.evaluation.n,
            n_unparsed=one.evaluation.n_unparsed,
            answers_cut=one.evaluation.answers_cut,
            values=dict(one.evaluation.values),
            intervals=one.intervals,
            mode=one.evaluation.mode,
            metrics=one.evaluation.metrics,
            after_training=one.evaluation.after_training,
            is_best=(dataset, one.evaluation.step) in best_steps and not one.evaluation.after_training,
            source=one.evaluation.source,
        )
        for dataset, evaluations in measured.items()
        for one in evaluations
    ]


def _examples(run: RunLog, best: Sequence[Best]) -> tuple[list[AnswerExamples], list[Note]]:
    found: list[AnswerExamples] = []
    notes: list[Note] = []
    for one in best:
        examples, lost = examples_of(run, one.figure.dataset, one.figure.step)
        found += examples
        notes += lost
    return found, notes


def _why_no_examples(run: RunLog, best: Sequence[Best]) -> str:
    if not run.record_files:
        return (
            "This run left no per-example records: the engine itself writes none. "
            "Name a metric for the evaluation set in dataset_info.json and train with tunebook installed."
        )
    steps = ", ".join(str(one.figure.step) for one in best) or "any step"
    return f"There are no per-example records of the best evaluation (step {steps})."


def _sources(run: RunLog) -> tuple[str, ...]:
    found: list[Any] = [series.source for series in run.series.values()]
    found += [evaluation.source for evaluation in run.evaluations]
    found += [run.results_source, run.settings_source]
    found += ["tunebook/run.json"] if run.provenance else []
    return tuple(sorted({source for source in found if source}))


# Brings `run.json` into one shape, whatever of it is there.


def provenance(run_json: Mapping[str, Any]) -> dict[str, Any] | None:
    """The facts of `run.json` with every key present; None for what the run did not write down.

    Returns:
        None where the run left no `run.json`.
    """
    if not run_json:
        return None
    recipe, git, gpus = run_json.get("recipe"), run_json.get("git"), run_json.get("gpus")
    return {
        "recipe": {
            "name": _text(recipe, "name"),
            "overlays": [str(one) for one in _list(recipe.get("overlays"))],
            "header": {str(k): str(v) for k, v in _mapping(recipe.get("header")).items()},
            "sha256": _text(recipe, "sha256"),
        }
        if isinstance(recipe, dict)
        else None,
        "command": [str(part) for part in _list(run_json.get("command"))] or None,
        "started": _text(run_json, "started"),
        "host": _text(run_json, "host"),
        "gpus": [_gpu(gpu) for gpu in gpus] if isinstance(gpus, list) else None,
        "versions": {str(k): str(v) for k, v in _mapping(run_json.get("versions")).items()},
        "git": {"commit": _text(git, "commit"), "dirty": git.get("dirty") is True}
        if isinstance(git, dict)
        else None,
        "resumed_from": _text(run_json, "resumed_from"),
        "datasets": {
            str(name): {key: _mapping(facts).get(key) for key in ("rows", "bytes", "sha256")}
            for name, facts in _mapping(run_json.get("datasets")).items()
        },
    }


def _gpu(gpu: object) -> str:
    """Name, memory and driver in a line, e.g. `NVIDIA A100, 81920 MiB, 550.54`."""
    return ", ".join(str(value) for value in gpu.values()) if isinstance(gpu, dict) else str(gpu)


def _text(mapping: Mapping[str, Any], key: str) -> str | None:
    value = mapping.get(key)
    return value if isinstance(value, str) and value else None


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _mapping(value: object) -> dict[Any, Any]:
    return value if isinstance(value, dict) else {}


# Says the outcome of a run, and of several, in one sentence.


def run_headline(run: RunLog, best: Sequence[Best], expected: Sequence[Expected]) -> str:
    """What was trained on what, the best figure with its interval, the baseline, and the promise."""
    if run.gpus and not (run.trained or run.evaluations or run.settings or run.ending):
        cards = "1 GPU was" if len(run.gpus) == 1 else f"{len(run.gpus)} GPUs were"
        return f"{cards} watched; no file says for what, and none shows a training."
    subject = _subject(run)
    if (why := nothing_trained(run)) is not None:
        return f"{subject.replace(', trained on', ', to be trained on')}, was not trained: {why}."
    if not best and run.evaluations:
        said = f"was evaluated {len(run.evaluations)} times without a finite result"
        return _with_ending(run, subject, said)
    if not best:
        return _with_ending(run, subject, _unmeasured(run))
    where = "log entry" if run.counts_entries else "step"
    if not run.trained and run.ending is None:
        return _only_evaluated(run, best)
    first = best[0]
    said = f"reached {_figure(first.figure, where)}"
    if first.figure.name == "loss":
        told = _told_beside(first)
        said = f"came down to {_figure(first.figure, where)}; {told}"
    sentence = _with_ending(run, subject, said).removesuffix(".")
    baseline = _beside(first, figures.BASELINE)
    accuracy = first.figure if first.figure.name == "accuracy" else _beside(first, "accuracy")
    if baseline and accuracy:
        share = "" if accuracy is first.figure else f"accuracy {number(accuracy.value)} "
        sentence += f"; {share}against {number(baseline.value)} for always giving the more common answer"
    base = first.base.figure
    if base is not None:
        chance = f" (p {p_value(first.base.p_value)})" if first.base.p_value is not None else ""
        sentence += f"; before training it was {number(base.value)}{chance}"
    return f"{sentence}.{_promise(expected)}"


def _with_ending(run: RunLog, subject: str, said: str) -> str:
    """What broke the run off comes first: it is what people open such a report for."""
    ending = run.ending
    if ending is None or ending.after_training:
        return f"{subject}, {said}."
    where = "before its first logged step" if ending.step is None else f"at step {ending.step:,}"
    where += f" of {ending.total:,}" if ending.total and ending.step is not None else ""
    until = "" if said.startswith("was never") else f" Until then it {said}."
    return f"{subject}, broke off {where}: {ending.title}.{until}"


def _unmeasured(run: RunLog) -> str:
    """What is said of a run without a figure of an evaluation."""
    reward = run.series.get("reward")
    if reward is not None and objective_of(run).by_reward and len(reward.values) > 1:
        part = max(1, len(reward.values) // 10)
        start, end = float(np.nanmean(reward.values[:part])), float(np.nanmean(reward.values[-part:]))
        way = "rose" if end > start else "fell" if end < start else "stayed"
        return (
            f"was never evaluated; the reward in training {way} from {number(start)} to {number(end)} (means "
            f"of the first and the last tenth of {len(reward.values):,} logged values)"
        )
    if run.series or run.results:
        return "was never evaluated"
    return "logged no step" if run.trained or run.settings else "left no log of a training"


def _subject(run: RunLog) -> str:
    """What was trained how on what; what no file says is said to be missing."""
    model = setup.model_name(run.settings)
    method = setup.method_name(run.settings)
    data = setup.trained_on(run.settings)
    parts = [model or "A model", method or "", f"trained on {data}" if data else "trained"]
    known = {"model": model, "method": method, "training data": data}
    missing = [name for name, value in known.items() if value is None]
    text = ", ".join(part for part in parts if part)
    return f"{text} ({' and '.join(missing)} named in no file)" if missing else text


def _beside(best: Best, name: str) -> MeasuredFigure | None:
    return next((figure for figure in best.beside if figure.name == name), None)


def _figure(figure: MeasuredFigure, at: str = "step") -> str:
    where = f" on {figure.dataset}" if figure.dataset else ""
    text = f"{figure.label} {number(figure.value)}"
    if figure.interval:
        text += f" (95 % interval {number(figure.interval.low)} to {number(figure.interval.high)}"
        text += f", n {figure.n})" if figure.n else ")"
    elif figure.n:
        text += f" (n {figure.n}, no interval)"
    return f"{text}{where} at {at} {figure.step:,}"


def _told_beside(best: Best) -> str:
    """The figures beside a loss, with their values, and of which it is not known what is better."""
    others = [one for one in best.beside if one.name not in ("perplexity", "token_accuracy")][:3]
    if not others:
        return "no task metric was measured"
    values = ", ".join(f"{one.label} {number(one.value)}" for one in others)
    unknown = [one.label for one in others if not figures.is_declared(one.name)]
    which = f"; which way {', '.join(unknown)} is better is not known" if unknown else ""
    return f"{values} there{which}"


def _only_evaluated(run: RunLog, best: Sequence[Best]) -> str:
    """What is said where evaluations lie and no training: no step is made up for them."""
    said = []
    for one in best:
        shown = (one.figure, *one.beside)[:4]
        values = ", ".join(f"{figure.label} {number(figure.value)}" for figure in shown)
        counted = f" (n {one.figure.n})" if one.figure.n else ""
        said.append(f"{one.figure.dataset or 'one set'}{counted}: {values}")
    model = setup.model_name(run.settings)
    whose = model or "A model that no file names"
    return f"{whose} was evaluated on {'; '.join(said)}. No training is written down here."


def _promise(expected: Sequence[Expected]) -> str:
    judged = [one for one in expected if one.measured]
    if not judged:
        return ""
    parts = {
        "met": "which meets the recipe's claim",
        "within error": "which is within the error of the recipe's claim",
        "missed": "which is below the recipe's claim",
        "above": "which is above the recipe's claim",
    }
    one = judged[0]
    assert one.measured is not None
    text = f" {one.measured.label} {number(one.measured.value)}, {parts[one.verdict]} of {one.text}."
    return text[0] + text[1].upper() + text[2:]


def report_headline(runs: Sequence[RunReport], comparison: RunComparison | None) -> str:
    """The sentence over the whole report."""
    if comparison is None:
        return runs[0].headline
    ranked = [(run, run.best[0].figure) for run in runs if run.best]
    if not ranked:
        return f"{len(runs)} runs, none of which was ever evaluated."
    places = {
        row["ranked_with"]
        for run, figure in ranked
        for row in comparison.rows
        if (row["run"], row["dataset"]) == (run.id, figure.dataset)
    }
    if len(places) > 1:
        return f"{len(runs)} runs, side by side and not ranked: {comparison.not_ranked[0]}."
    sign = 1 if ranked[0][1].larger_is_better else -1
    run, top = max(ranked, key=lambda pair: sign * pair[1].value)
    left = len(runs) - len(ranked)
    missing = f" {left} of them {'has' if left == 1 else 'have'} no evaluation." if left else ""
    return f"Of {len(runs)} runs, {run.name} is best by {_figure(top)}{_beside_it(comparison, top)}.{missing}"


def _beside_it(comparison: RunComparison, top: MeasuredFigure) -> str:
    """Whether the others are shown to be worse than the best."""
    others = [row for row in comparison.rows if row["dataset"] == top.dataset and row["standing"] != "best"]
    near = [row["name"] for row in others if row["standing"].startswith("not distinguishable")]
    untested = len([row for row in others if row["standing"].startswith("not tested")])
    said = []
    if near:
        said.append(f"not distinguishable from {', '.join(near)}")
    elif others and not untested:
        said.append("shown to be better than every other")
    if untested:
        said.append(f"{untested} could not be tested against it")
    return "; " + "; ".join(said) if said else ""
