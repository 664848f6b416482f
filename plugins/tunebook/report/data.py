"""Gathers runs into one `Report`: reads, measures, compares; lays nothing out."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from tunebook import __version__
from tunebook.errors import TunebookError, join_errors
from tunebook.report import curves, figures, setup
from tunebook.report.base import against_base
from tunebook.report.best import Measured, best_of, by_dataset, measure
from tunebook.report.by_length import by_length
from tunebook.report.compare import compare_runs
from tunebook.report.eval_results import read_results, with_results
from tunebook.report.examples import examples_of
from tunebook.report.expected import compare
from tunebook.report.facts import facts_of
from tunebook.report.findings import findings_of
from tunebook.report.headline import report_headline, run_headline
from tunebook.report.lines import Curves
from tunebook.report.paired import Pairing
from tunebook.report.provenance import provenance
from tunebook.report.records import FORMAT, Best, Report, Row, RunReport
from tunebook.report.row_records import Examples
from tunebook.report.usage import usage_of
from tunebook.runlog import read_run

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

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
    runs = [with_results(run, results) for run in runs]
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
        dataset: [measure(run, evaluation) for evaluation in evaluations]
        for dataset, evaluations in by_dataset(run.evaluations).items()
    }
    pairing = Pairing()
    chosen = (best_of(run, one) for one in measured.values())
    best = tuple(
        replace(one, base=against_base(run, measured, one, pairing)) for one in chosen if one is not None
    )
    recipe = run.provenance.get("recipe")
    header = recipe.get("header") if isinstance(recipe, dict) else None
    claim = header.get("expected") if isinstance(header, dict) else None
    expected = compare(claim if isinstance(claim, str) else None, best)
    examples, notes = _examples(run, best)
    report = RunReport(
        id=run_id,
        name=name,
        path=str(run.path),
        engine=run.engine,
        model=setup.model(run.settings),
        method=setup.method(run.settings),
        trained_on=setup.trained_on(run.settings),
        headline=run_headline(run, best, expected),
        best=best,
        expected=expected,
        facts=facts_of(run),
        usage=usage_of(run),
        settings=setup.settings(run.settings),
        settings_source=run.settings_source,
        figure_names=_figure_names(measured, best),
        evaluations=tuple(_rows(measured, best)),
        by_length=by_length(run, best),
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


def _figure_names(measured: Mapping[str, Sequence[Measured]], best: Sequence[Best]) -> tuple[str, ...]:
    names = {name for one in measured.values() for m in one for name in m.evaluation.values}
    names -= figures.NOT_FIGURES
    return tuple(figures.order(names, best[0].figure.name if best else None))


def _rows(measured: Mapping[str, Sequence[Measured]], best: Sequence[Best]) -> list[Row]:
    best_steps = {(one.figure.dataset, one.figure.step) for one in best}
    return [
        Row(
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


def _examples(run: RunLog, best: Sequence[Best]) -> tuple[list[Examples], list[Note]]:
    found: list[Examples] = []
    notes: list[Note] = []
    for one in best:
        examples, lost = examples_of(run, one.figure.dataset, one.figure.step)
        found += examples
        notes += lost
    return found, notes


def _why_no_examples(run: RunLog, best: Sequence[Best]) -> str:
    if not run.record_files:
        return (
            "This run left no per-example records: the engine alone writes none. "
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
