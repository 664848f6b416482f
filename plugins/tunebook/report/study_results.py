"""The results that a study tells of: one for each run and evaluated set, and which can be told apart."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from tunebook.report.significance import difference
from tunebook.report.study_words import signed
from tunebook.text import p_value

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from tunebook.report.records import Against, Best, Figure, Interval, Report, RunReport


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """The best evaluation of one run on one set, with what it is to be judged by."""

    run: RunReport
    best: Best
    loss: Figure | None
    accuracy: Figure | None
    majority: Figure | None
    """Accuracy of always giving the commonest reference."""
    base: Against | None
    """The model before training on the same set, and the test against it; None where it was not evaluated."""
    evaluations: int
    """How many evaluations the best one was chosen from."""
    leads: bool
    """Whether the tests of the comparison are against this one."""
    p_value: float | None
    """Of the paired test against the one that leads; None where there was none."""
    difference: float | None
    """This one minus the one that leads, on the rows that both answered."""
    verdict: str | None
    """What that test says of this one: `better`, `worse`, `not distinguishable`."""
    letters: str | None
    """Results that share a letter are not told apart by paired tests."""

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
    rows = report.comparison.rows if report.comparison else ()
    standings = {(row["run"], row["dataset"], row["figure"]): row for row in rows}
    first = {(row["dataset"], row["figure"]): row["run"] for row in reversed(rows)}
    return [_result(run, best, standings, first) for run in report.runs for best in run.best]


def _result(
    run: RunReport,
    best: Best,
    standings: Mapping[tuple[str, str, str], Mapping[str, Any]],
    first: Mapping[tuple[str, str], str],
) -> Result:
    figures = {figure.name: figure for figure in (*best.beside, best.figure) if math.isfinite(figure.value)}
    chosen = best.figure
    rows = [row for row in run.evaluations if row.dataset == chosen.dataset and chosen.name in row.values]
    standing = standings.get((run.id, chosen.dataset, chosen.label), {})
    return Result(
        run=run,
        best=best,
        loss=figures.get("loss"),
        accuracy=figures.get("accuracy"),
        majority=figures.get("majority_accuracy"),
        base=best.base if best.base and best.base.figure else None,
        evaluations=len({row.step for row in rows if not row.after_training}),
        leads=first.get((chosen.dataset, chosen.label)) == run.id,
        p_value=standing.get("p_value"),
        difference=standing.get("difference"),
        verdict=standing.get("verdict"),
        letters=standing.get("group"),
    )


def number_of(run: RunReport, label: str) -> float | None:
    """The run's fact of that label, where it is a finite number."""
    value = next((fact.value for fact in run.facts if fact.label == label), None)
    return value if isinstance(value, (int, float)) and math.isfinite(value) else None


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


class Verdict(NamedTuple):
    """Whether two results can be told apart, and by what."""

    apart: bool | None
    """None where nothing tells."""
    better: Result
    """The one with the better figure; by a paired test the better one on the rows that both answered."""
    words: str
    """The difference of the figures, and what was tested."""


def judged(one: Result, other: Result) -> Verdict:
    """Tell two comparable results apart: by the paired tests of the comparison, else by their intervals."""
    value = one.figure.value - other.figure.value
    better = one if (value > 0) is one.figure.larger_is_better else other
    lead, rest = (one, other) if one.leads else (other, one)
    if lead.leads and rest.p_value is not None and rest.difference is not None:
        paired = rest.difference if one is rest else -rest.difference
        apart = rest.verdict != "not distinguishable"
        if apart:
            better = rest if rest.verdict == "better" else lead
        return Verdict(apart, better, f"{signed(paired)} on the rows of both, p {p_value(rest.p_value)}")
    if one.letters and other.letters:
        apart = not set(one.letters) & set(other.letters)
        return Verdict(apart, better, f"{signed(value)}, by paired tests of all pairs")
    interval = gap(one.figure, other.figure)
    if interval is None:
        return Verdict(None, better, f"{signed(value)}, without an interval")
    words = f"{signed(value)}, 95 % interval {signed(interval.low)} to {signed(interval.high)}"
    return Verdict(excludes_zero(interval), better, words)


def gap(one: Figure, other: Figure) -> Interval | None:
    """The interval of `one - other`, as if they were of rows of their own; None where one has no interval."""
    if one.interval is None or other.interval is None:
        return None
    return difference(one.interval, one.value, other.interval, other.value)


def excludes_zero(interval: Interval) -> bool:
    """Whether two figures whose difference has this interval can be told apart."""
    return interval.low > 0 or interval.high < 0


def method_of(run: RunReport) -> str | None:
    """The method without its stage where that is SFT: LLaMA-Factory names it, Axolotl does not."""
    return run.method.removesuffix(" SFT") if run.method else None


def distinct(values: Iterable[str | None]) -> list[str]:
    """The values that are known, each once, in order."""
    return list(dict.fromkeys(value for value in values if value))


def names(results: Sequence[Result]) -> list[str]:
    """The names of the results' runs, each once."""
    return distinct(result.run.name for result in results)
