"""The tables of a study's results: figures, costs, and what the recipes promise."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tunebook.report.render import duration
from tunebook.report.study_records import Table
from tunebook.report.study_results import comparable, number_of
from tunebook.report.study_words import NOT_MEASURED, figure_text, interval_text, optional

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tunebook.report.records import RunReport
    from tunebook.report.study_results import Result


def results_table(runs: Sequence[RunReport], results: Sequence[Result]) -> Table:
    """The best figure of each run on each set; a run without any has a row that says so."""
    rows: list[tuple[str, ...]] = [
        (
            one.run.name,
            one.set_name,
            one.figure.label,
            optional(one.figure.value),
            interval_text(one.figure.interval) if one.figure.interval else "none",
            optional(one.figure.n),
            optional(one.figure.n_unparsed),
            _beside(one, "majority_accuracy"),
            _beside(one, "loss"),
            _beside(one, "perplexity", "ppl"),
            f"{one.figure.step:,}",
        )
        for group in comparable(results)
        for one in group
    ]
    evaluated = {one.run.id for one in results}
    rows += [
        (run.name, *["never evaluated"] * 2, *[NOT_MEASURED] * 8) for run in runs if run.id not in evaluated
    ]
    columns = (
        "run", "set", "figure", "best", "95 % interval", "n", "unparsed", "commoner answer", "loss",
        "perplexity", "step",
    )  # fmt: skip
    return Table(columns=columns, rows=tuple(rows), numeric=frozenset(columns[3:]))


def _beside(result: Result, *names: str) -> str:
    """The first of these figures that the best evaluation has."""
    figures = {figure.name: figure.value for figure in (*result.best.beside, result.figure)}
    return optional(next((figures[name] for name in names if name in figures), None))


def costs_table(runs: Sequence[RunReport]) -> Table:
    """What each training took."""
    columns = (
        "run",
        "method",
        "trained parameters",
        "optimizer steps",
        "training time",
        "samples/s",
        "evaluating",
    )
    rows = []
    for run in runs:
        seconds = [number_of(run, label) for label in ("Training time", "Time in evaluation")]
        times = [NOT_MEASURED if value is None else duration(value) for value in seconds]
        steps = next((fact.value for fact in run.facts if fact.label == "Optimizer steps"), None)
        trained, speed = (optional(number_of(run, label)) for label in ("Trained parameters", "Speed"))
        rows.append(
            (
                run.name,
                run.method or "not written down",
                trained,
                str(steps or NOT_MEASURED),
                times[0],
                speed,
                times[1],
            )
        )
    return Table(columns=columns, rows=tuple(rows), numeric=frozenset(columns[2:]))


def expected_table(runs: Sequence[RunReport]) -> Table | None:
    """The claims of the recipes beside what was measured; None where no recipe claims anything."""
    rows = [
        (
            run.name,
            one.text,
            figure_text(one.measured) if one.measured else NOT_MEASURED,
            one.verdict,
            one.reason,
        )
        for run in runs
        for one in run.expected
    ]
    columns = ("run", "the recipe says", "measured", "verdict", "why")
    return Table(columns=columns, rows=tuple(rows)) if rows else None
