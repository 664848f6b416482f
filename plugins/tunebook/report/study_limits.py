"""What the numbers of a study cannot tell, and what was not measured at all."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from tunebook.report.study_results import comparable, distinct, names
from tunebook.report.study_setup import UNKNOWN, setting
from tunebook.report.study_words import NOT_MEASURED, counted, listed
from tunebook.text import number

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tunebook.report.records import Report, RunReport
    from tunebook.report.study_results import Result


def limits(report: Report, results: Sequence[Result]) -> list[str]:
    """The reasons for which a reader should trust the figures only so far."""
    return [
        *widths(results),
        *_chosen_on_the_same_rows(results),
        *_unparsed(results),
        *_cut(report.runs),
        *_one_training_each(report.runs),
        *_independent(results),
        *_lost(report.runs),
    ]


def widths(results: Sequence[Result]) -> Iterator[str]:
    """How well the figures on each set are known."""
    for group in comparable(results):
        known = [one for one in group if one.figure.interval is not None]
        halves = [
            (one.figure.interval.high - one.figure.interval.low) / 2 for one in known if one.figure.interval
        ]
        sizes = sorted({one.figure.n for one in known if one.figure.n})
        if halves:
            low, high = number(min(halves)), number(max(halves))
            width = low if low == high else f"{low} to {high}"
            rows = f" with {listed([f'{size:,}' for size in sizes])} rows" if sizes else ""
            yield (
                f"On {group[0].set_name}{rows}, {group[0].figure.label} is known to +/- {width}; differences "
                "below that cannot be seen."
            )
        blind = [one for one in group if one.figure.interval is None]
        if blind:
            yield (
                f"No interval is known for {group[0].figure.label} on {group[0].set_name} "
                f"({listed(names(blind))}): how far it is chance cannot be said."
            )


def _chosen_on_the_same_rows(results: Sequence[Result]) -> Iterator[str]:
    chosen = [one for one in results if one.evaluations > 1]
    if chosen:
        counts = sorted({one.evaluations for one in chosen})
        among = str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
        yield (
            f"The step that is reported is the best of {among} evaluations on the very rows that it is "
            "reported on, so that its figures are a little too good. A set that chose nothing would tell "
            "how much."
        )


def _unparsed(results: Sequence[Result]) -> Iterator[str]:
    read, unknown = [], []
    for one in results:
        figure = one.figure
        if figure.n_unparsed is None:
            unknown.append(one)
        elif figure.n_unparsed and figure.n:
            yield (
                f"{one.run.name} on {one.set_name}: {figure.n_unparsed:,} of {figure.n:,} answers could not "
                "be read; they count as wrong."
            )
        else:
            read.append(one)
    if read:
        yield f"Every answer could be read: {listed(_where(read))}."
    if unknown:
        yield f"How many answers could not be read was not measured: {listed(_where(unknown))}."


def _where(results: Sequence[Result]) -> list[str]:
    return [f"{one.run.name} on {one.set_name}" for one in results]


def _cut(runs: Sequence[RunReport]) -> Iterator[str]:
    whole, unknown = [], []
    for run in runs:
        rows = [row for row in run.evaluations if row.answers_cut is not None]
        worst = max(rows, key=lambda row: row.answers_cut or 0, default=None)
        if worst is None:
            unknown.append(run.name)
        elif worst.answers_cut:
            of = f" of {worst.n:,}" if worst.n else ""
            yield (
                f"{run.name}: {counted(worst.answers_cut, 'reference answer')}{of} on "
                f"{worst.dataset or 'the evaluation set'} lost tokens at the length limit."
            )
        else:
            whole.append(run.name)
    if whole:
        yield f"No reference answer was cut at the length limit: {listed(whole)}."
    if unknown:
        yield f"Whether answers were cut at the length limit was not measured: {listed(unknown)}."


def _one_training_each(runs: Sequence[RunReport]) -> Iterator[str]:
    seeds = [setting(run, "seed") for run in runs]
    known = [seed for seed in seeds if seed != UNKNOWN]
    if len(set(known)) > 1:
        yield (
            f"The runs were made with {len(set(known))} seeds ({listed(sorted(set(known)))}); the intervals "
            "are over the rows of the evaluation set and do not hold the spread between trainings."
        )
    else:
        seed = f" (seed {known[0]})" if known else ""
        yield (
            f"{'Each run is' if len(runs) > 1 else 'This is'} one training{seed}: the spread between "
            "trainings was not measured, and the intervals do not hold it."
        )


def _independent(results: Sequence[Result]) -> Iterator[str]:
    if any(len(group) > 1 for group in comparable(results)):
        yield (
            "Runs are told apart by paired tests on the rows that both answered, at 5 % after Holm's "
            "correction, where both left their answers; else by the interval of the difference, as if each "
            "had been measured on rows of its own."
        )


def _lost(runs: Sequence[RunReport]) -> Iterator[str]:
    for run in runs:
        for note in run.notes:
            if note["kind"] == "lost":
                yield f"{run.name}: {note['file']}: {note['message']}."


def not_measured(report: Report, results: Sequence[Result]) -> list[str]:
    """Figures that a reader would look for and that no run, or not every run, wrote down."""
    missing: dict[str, list[str]] = {}
    for run in report.runs:
        for fact in run.facts:
            if fact.value is None or (isinstance(fact.value, float) and not math.isfinite(fact.value)):
                missing.setdefault(fact.label, []).append(run.name)
        if not run.best:
            missing.setdefault("Any evaluation", []).append(run.name)
    for one in results:
        if one.loss is None:
            missing.setdefault("Evaluation loss", []).append(one.run.name)
        if one.figure.name == "loss":
            missing.setdefault("A task metric", []).append(one.run.name)
        if one.base is None:
            missing.setdefault("The model before training", []).append(one.run.name)
    memory = {line.run for chart in report.charts if chart.id == "memory" for line in chart.lines}
    without = [run.name for run in report.runs if run.id not in memory]
    if without:
        missing["GPU memory"] = without
    return [f"{label}: {_where_not(distinct(named), report)}." for label, named in missing.items()]


def _where_not(named: Sequence[str], report: Report) -> str:
    return NOT_MEASURED if len(named) == len(report.runs) else f"{NOT_MEASURED} in {listed(named)}"
