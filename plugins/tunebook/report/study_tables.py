"""The tables of a study's results: figures, costs, and what the recipes promise."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tunebook.report.render import duration
from tunebook.report.study_records import Table
from tunebook.report.study_results import comparable
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
            optional(one.majority.value if one.majority else None),
            optional(one.loss.value if one.loss else None),
            optional(one.perplexity.value if one.perplexity else None),
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
        facts = {fact.label: fact.value for fact in run.facts}
        seconds = [facts.get(label) for label in ("Training time", "Time in evaluation")]
        times = [duration(value) if isinstance(value, (int, float)) else NOT_MEASURED for value in seconds]
        steps = facts.get("Optimizer steps")
        numbers = [facts.get(label) for label in ("Trained parameters", "Speed")]
        trained, speed = (optional(value if isinstance(value, (int, float)) else None) for value in numbers)
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
