"""The results that a study tells of: one for each run and evaluated set, and which can be told apart."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tunebook.report.intervals import difference

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from tunebook.report.records import Best, Figure, Interval, Report, Row, RunReport


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """The best evaluation of one run on one set, with what it is to be judged by."""

    run: RunReport
    best: Best
    loss: Figure | None
    perplexity: Figure | None
    accuracy: Figure | None
    majority: Figure | None
    """Accuracy of always giving the commonest reference."""
    before: Row | None
    """The evaluation of the same set before the first step: the base model."""
    evaluations: int
    """How many evaluations the best one was chosen from."""

    @property
    def figure(self) -> Figure:
        """The figure that the best evaluation was chosen by."""
        return self.best.figure

    @property
    def set_name(self) -> str:
        """The evaluated set, also where the engine gave it no name."""
        return self.figure.dataset or f"the evaluation set of {self.run.name}"

    def fact(self, label: str) -> float | None:
        """A number of the run as a whole, None where it was not written down."""
        return number_of(self.run, label)


def results_of(report: Report) -> list[Result]:
    """All results, in the order of the runs."""
    return [_result(run, best) for run in report.runs for best in run.best]


def _result(run: RunReport, best: Best) -> Result:
    figures = {figure.name: figure for figure in (*best.beside, best.figure)}
    chosen = best.figure
    rows = [row for row in run.evaluations if row.dataset == chosen.dataset and chosen.name in row.values]
    return Result(
        run=run,
        best=best,
        loss=figures.get("loss"),
        perplexity=figures.get("perplexity") or figures.get("ppl"),
        accuracy=figures.get("accuracy"),
        majority=figures.get("majority_accuracy"),
        before=next((row for row in rows if row.step == 0 and chosen.step != 0), None),
        evaluations=len({row.step for row in rows if not row.after_training}),
    )


def number_of(run: RunReport, label: str) -> float | None:
    """The run's fact of that label, where it is a number."""
    value = next((fact.value for fact in run.facts if fact.label == label), None)
    return value if isinstance(value, (int, float)) else None


def comparable(results: Sequence[Result]) -> list[list[Result]]:
    """Results that may be put beside each other, of one set and by one figure, the best of each first.

    Sets of one name whose files differ are two sets, and so are sets without a name of two runs, unless
    their recipes name the same one.
    """
    groups: dict[tuple[str, str, str | None], list[Result]] = {}
    for result in results:
        which = _file_hash(result) if same_name_other_file(results, result.figure.dataset) else None
        if not result.figure.dataset:
            which = _set_by_recipe(result.run)
        groups.setdefault((result.figure.dataset, result.figure.name, which), []).append(result)
    return [sorted(group, key=_worst_last) for group in groups.values()]


def same_name_other_file(results: Iterable[Result], dataset: str) -> bool:
    """Whether runs that evaluated on a set of this name had different files behind it."""
    hashes = {_file_hash(result) for result in results if result.figure.dataset == dataset}
    return len(hashes - {None}) > 1


def _file_hash(result: Result) -> str | None:
    facts = ((result.run.provenance or {}).get("datasets") or {}).get(result.figure.dataset) or {}
    found = facts.get("sha256")
    return found if isinstance(found, str) else None


def _set_by_recipe(run: RunReport) -> str:
    """What tells the nameless set of a run from that of another."""
    named = [str(one.value) for one in run.settings if one.key in ("eval_dataset", "test_datasets")]
    return named[0] if named else run.id


def _worst_last(result: Result) -> float:
    return -result.figure.value if result.figure.larger_is_better else result.figure.value


def gap(one: Figure, other: Figure) -> Interval | None:
    """The interval of `one - other`; None where one of them has no interval."""
    if one.interval is None or other.interval is None:
        return None
    return difference(one.interval, one.value, other.interval, other.value)


def excludes_zero(interval: Interval) -> bool:
    """Whether two figures whose difference has this interval can be told apart."""
    return interval.low > 0 or interval.high < 0


def distinct(values: Iterable[str | None]) -> list[str]:
    """The values that are known, each once, in order."""
    return list(dict.fromkeys(value for value in values if value))


def names(results: Sequence[Result]) -> list[str]:
    """The names of the results' runs, each once."""
    return distinct(result.run.name for result in results)
