"""What the measured numbers say, in sentences that claim no more than these support."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tunebook.comparison.figures import SIGNIFICANT
from tunebook.report.study_results import (
    comparable,
    distinct,
    excludes_zero,
    gap,
    judged,
    names,
    same_name_other_file,
)
from tunebook.report.study_words import capital, figure_text, gap_text, interval_text, listed, signed
from tunebook.text import number

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tunebook.report.records import RunReport
    from tunebook.report.study_results import Result


def against_baselines(results: Sequence[Result]) -> list[str]:
    """Each result against always giving the commoner answer, and against the model before training."""
    found, without = [], []
    for result in results:
        said = [*_majority(result), *_before(result)]
        found += said
        if not said:
            without.append(f"{result.run.name} on {result.set_name}")
    if without:
        found.append(
            "Neither the model before training nor always giving the commoner answer was measured for "
            f"{listed(without)}, so that nothing says how much of the figure training brought."
        )
    return found


def _majority(result: Result) -> Iterator[str]:
    accuracy, majority = result.accuracy, result.majority
    if accuracy is None or majority is None:
        return
    subject = f"{result.run.name} on {result.set_name}: accuracy {number(accuracy.value)}"
    baseline = f"the {number(majority.value)} of always giving the commoner answer"
    if accuracy.interval is None:
        yield f"{subject} beside {baseline}; without an interval the difference cannot be judged."
        return
    subject += f" ({interval_text(accuracy.interval)})"
    if accuracy.interval.low > majority.value:
        yield f"{subject} lies above {baseline}."
    elif accuracy.interval.high < majority.value:
        yield f"{subject} lies below {baseline}."
    else:
        yield f"{subject} is not distinguishable from {baseline}."


def _before(result: Result) -> Iterator[str]:
    if result.base is None or result.base.figure is None:
        return
    figure, base = result.figure, result.base.figure
    value = figure.value - base.value
    text = (
        f"{result.run.name} on {result.set_name}: {figure.label} was {number(base.value)} before "
        f"training and is {number(figure.value)} at step {figure.step:,}"
    )
    change = gap(figure, base)
    if result.base.p_value is not None:
        apart: bool | None = result.base.p_value < SIGNIFICANT
        words = f"{signed(value)} ({result.base.test})"
    else:
        apart = None if change is None else excludes_zero(change)
        words = signed(value) if change is None else gap_text(value, change)
    if apart is None:
        yield f"{text}; without a test or an interval the change of {words} cannot be judged."
    elif apart:
        better = (value > 0) is figure.larger_is_better
        yield f"{text}, {'an improvement' if better else 'a decline'}: {words}."
    else:
        yield f"{text}; the change of {words} may be chance."


def between_runs(results: Sequence[Result]) -> list[str]:
    """Which runs can be told apart, by each set and figure."""
    found: list[str] = []
    for group in comparable(results):
        if len(group) > 1:
            found += _ranked(group)
    by_set: dict[str, list[Result]] = {}
    for result in results:
        by_set.setdefault(result.figure.dataset, []).append(result)
    for dataset, same in by_set.items():
        labels = distinct(result.figure.label for result in same)
        if dataset and len(labels) > 1:
            found.append(
                f"On {dataset} the runs were judged by different figures ({listed(labels)}), which are not "
                "put beside each other."
            )
        if dataset and same_name_other_file(same, dataset):
            found.append(
                f"The files behind {dataset} were not the same in all runs (see Data): only runs on the same "
                "file are put beside each other."
            )
    return found


def _ranked(group: Sequence[Result]) -> Iterator[str]:
    top, rest = group[0], group[1:]
    figure = top.figure
    if all(one.figure.value == figure.value for one in rest):
        all_ = "both" if len(group) == 2 else f"all {len(group)}"
        same = f"{figure.label}, {number(figure.value)}"
        yield f"On {top.set_name} {all_} runs have the same {same}: {listed(names(group))}."
        return
    extreme = "highest" if figure.larger_is_better else "lowest"
    yield f"On {top.set_name} the {extreme} {figure.label} is that of {top.run.name}: {figure_text(figure)}."
    verdicts = [(one, judged(top, one)) for one in rest]
    below = [f"{one.run.name} ({said.words})" for one, said in verdicts if said.apart and said.better is top]
    above = [f"{one.run.name} ({said.words})" for one, said in verdicts if said.apart and said.better is one]
    near = [f"{one.run.name} ({said.words})" for one, said in verdicts if said.apart is False]
    unknown = [one.run.name for one, said in verdicts if said.apart is None]
    if below:
        yield f"{top.run.name} is better there than {listed(below)}."
    if above:
        yield f"On the rows that both answered, better than {top.run.name}: {listed(above)}."
    if near:
        yield f"{top.run.name} is not distinguishable there from {listed(near)}."
    if unknown:
        yield (
            f"Whether {top.run.name} differs from {listed(unknown)} cannot be said: no paired test could be "
            "made, and at least one of the figures has no interval."
        )


def warnings(runs: Sequence[RunReport]) -> list[str]:
    """The problems and warnings that were found in the runs, with their evidence."""
    several = len(runs) > 1
    return [
        f"{run.name + ': ' if several else ''}{capital(finding.title)}: {finding.evidence}."
        for run in runs
        for finding in run.findings
        if finding.level != "note"
    ]
