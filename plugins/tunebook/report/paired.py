"""Tests two evaluations against each other on the rows that both answered, from their records."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from tunebook import metrics
from tunebook.comparison.figures import compare_figure
from tunebook.comparison.rows import Columns
from tunebook.comparison.tables import match, pair, read_tables
from tunebook.errors import TunebookError

if TYPE_CHECKING:
    from pathlib import Path

    from tunebook.comparison.records import FigureDifference
    from tunebook.comparison.tables import Pair, Table
    from tunebook.runlog import Evaluation, RunLog
    from tunebook.types import Metric


class Answers(NamedTuple):
    """Where the answers behind one figure are."""

    name: str
    """Of the run, for readers."""
    path: Path | None
    """File of records; None where the run left none."""
    figure: str
    """As the run reports it."""
    metrics: tuple[str, ...]
    """Those of the evaluation."""


class Outcome(NamedTuple):
    """A paired test, or why there is none."""

    difference: FigureDifference | None
    reason: str
    """Empty where there is a test."""
    verdicts: Pair | None
    metric: Metric | None


class Pairing:
    """Tests pairs of answers; each file is read once."""

    def __init__(self) -> None:
        self._tables: dict[tuple[Path, str], Table | str] = {}

    def test(self, first: Answers, second: Answers) -> Outcome:
        """Test `second` against `first`; the p-value is not adjusted."""
        named = _metric_of(first)
        if isinstance(named, str):
            return _not_tested(named)
        metric, figure = named
        sides = []
        for answers in (first, second):
            if answers.path is None:
                return _not_tested(f"{answers.name} left no records of single answers")
            table = self._table(answers.path, metric)
            if isinstance(table, str):
                return _not_tested(f"the records of {answers.name} cannot be used: {table}")
            sides.append(table)
        one, other = sides
        matched = match(one, other)
        if len(matched.index) < 2:
            return _not_tested(f"{first.name} and {second.name} answered no rows in common")
        if len(matched.other_references):
            return _not_tested(
                f"{first.name} and {second.name} were not evaluated on the same rows: "
                f"{len(matched.other_references):,} of {len(matched.index):,} have another reference"
            )
        verdicts = pair(metric.name, one, other, matched)
        try:
            return Outcome(compare_figure(metric, verdicts, figure), "", verdicts, metric)
        except TunebookError as err:
            return _not_tested(err.problem)

    def _table(self, path: Path, metric: Metric) -> Table | str:
        key = path, metric.name
        if key not in self._tables:
            self._tables[key] = _read(path, metric)
        return self._tables[key]


def _not_tested(reason: str) -> Outcome:
    return Outcome(None, reason, None, None)


def _read(path: Path, metric: Metric) -> Table | str:
    try:
        tables = read_tables(path, Columns(), [metric], recorded=True)
    except TunebookError as err:
        return err.problem
    return next(iter(tables.values())) if len(tables) == 1 else "they are of several datasets"


def _metric_of(answers: Answers) -> tuple[Metric, str] | str:
    """The metric that made a figure, and the metric's own name for it; else why there is none."""
    for name in answers.metrics:
        try:
            metric = metrics.load(name)
        except TunebookError as err:
            return err.problem
        if answers.figure in metric.figures or not metric.figures_complete:
            return metric, answers.figure
        own = answers.figure.removeprefix(f"{name.rpartition(':')[2]}_")
        if own in metric.figures:
            return metric, own
    if not answers.metrics:
        return "no metric was at work, so that no single answers were written down"
    return f"no metric of {answers.name} gives single answers a {answers.figure}"


def answers_of(run: RunLog, name: str, evaluation: Evaluation | None, figure: str) -> Answers:
    """Where the answers of one evaluation are."""
    if evaluation is None:
        return Answers(name, None, figure, ())
    path = run.record_files.get((evaluation.dataset, evaluation.step))
    return Answers(name, path, figure, evaluation.metrics)
