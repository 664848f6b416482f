"""Requirements on a comparison, as `gsm8k/exact_match >= base - 0.01`, decided by intervals and tests."""

from __future__ import annotations

import difflib
import operator
import re
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tunebook.comparison.figures import SIGNIFICANT
from tunebook.comparison.records import Outcome
from tunebook.errors import TunebookError, join_errors
from tunebook.text import number, p_value, signed, unsigned

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from tunebook.comparison.records import Decision, FigureDifference, SetComparison

_NUMBER = r"(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?"
_REQUIREMENT = re.compile(
    rf"(?P<name>[^<>=\s](?:[^<>=]*[^<>=\s])?)(?:\s+better|\s*(?P<sign>[<>]=?)\s*"
    rf"(?:base(?:\s*(?P<way>[+-])\s*(?P<margin>{_NUMBER}))?|(?P<value>[+-]?{_NUMBER})))"
)
_HOW = (
    "write FIGURE better, FIGURE >= base - 0.01 or FIGURE >= 0.8 (also >, <= and <): base is the value of A, "
    "numbers are in the figure's own unit, FIGURE may be DATASET/FIGURE or METRIC/FIGURE"
)
_EXIT: dict[Decision, int] = {"met": 0, "not met": 1, "not distinguishable": 3}


@dataclass(frozen=True, slots=True)
class Requirement:
    """What the second model has to reach."""

    text: str
    """As it was given."""
    name: str
    """Of the figure, with dataset or metric before it where one was given."""
    sign: str | None
    """`>=`, `>`, `<=` or `<`; None for `better`."""
    of_base: bool
    """The limit is measured from the first model's value."""
    limit: float
    """Of the second's value; of the difference where it is measured from the first's."""


def parse_requirements(texts: Iterable[str]) -> tuple[Requirement, ...]:
    """Read requirements.

    Raises:
        TunebookError: One is none; several are named together.
    """
    found, errors = [], []
    for text in texts:
        match = _REQUIREMENT.fullmatch(text.strip())
        if match is None:
            errors.append(TunebookError(f"--require {text!r} is no requirement", fix=_HOW))
            continue
        size = float(match["value"] or match["margin"] or 0)
        limit = -size if match["way"] == "-" else size
        found.append(Requirement(text.strip(), match["name"], match["sign"], match["value"] is None, limit))
    if errors:
        raise join_errors(errors)
    return tuple(found)


def decide(requirements: Sequence[Requirement], sets: Sequence[SetComparison]) -> tuple[Outcome, ...]:
    """Decide each requirement.

    Each is decided at 5 % by itself: all have to be met, so their number makes none of them easier to meet.

    Raises:
        TunebookError: A requirement names no figure, or several, or demands that a figure gets worse.
    """
    outcomes, errors = [], []
    for one in requirements:
        try:
            outcomes.append(_decide(one, *_find(one, sets)))
        except TunebookError as error:
            errors.append(error)
    if errors:
        raise join_errors(errors)
    return tuple(outcomes)


def exit_status(verdicts: Iterable[Decision]) -> int:
    """0 where all are met, 1 where one is not, else 3: one cannot be told."""
    found = {_EXIT[verdict] for verdict in verdicts}
    return 1 if 1 in found else max(found, default=0)


def _find(one: Requirement, sets: Sequence[SetComparison]) -> tuple[SetComparison, FigureDifference]:
    found = [(part, figure) for part, figure in _all(sets) if one.name in _names(part, figure)]
    if len(found) == 1:
        return found[0]
    if found:
        raise TunebookError(
            f"--require {one.text!r}: {one.name} is a figure of {len(found)} sets",
            fix=f"name one: {', '.join(_whole_names(found))}",
        )
    every = list(_all(sets))
    names = [name for part, figure in every for name in _names(part, figure)]
    near = difflib.get_close_matches(one.name, names, n=1, cutoff=0.75)
    raise TunebookError(
        f"--require {one.text!r}: {one.name} is no figure of this comparison"
        + (f"; did you mean {near[0]}?" if near else ""),
        fix=f"name one of {', '.join(_whole_names(every))}",
    )


def _all(sets: Sequence[SetComparison]) -> Iterator[tuple[SetComparison, FigureDifference]]:
    return ((part, figure) for part in sets for figure in part.figures)


def _names(part: SetComparison, figure: FigureDifference) -> list[str]:
    """What a figure may be called, the shortest first."""
    short = part.metric.partition("{")[0].rpartition(":")[2]
    metrics = [short] if short == part.metric else [short, part.metric]
    owners = [part.dataset, *metrics, *(f"{part.dataset}/{metric}" for metric in metrics if part.dataset)]
    return [figure.name, *(f"{owner}/{figure.name}" for owner in owners if owner)]


def _whole_names(found: Sequence[tuple[SetComparison, FigureDifference]]) -> list[str]:
    """Of each figure the shortest name, with its dataset or metric, that no other has."""
    counts = Counter(name for part, figure in found for name in _names(part, figure))
    return [
        next((name for name in names[1:] if counts[name] == 1), names[-1])
        for names in (_names(part, figure) for part, figure in found)
    ]


def _decide(one: Requirement, part: SetComparison, figure: FigureDifference) -> Outcome:
    if one.sign is not None and (">" in one.sign) != figure.larger_is_better:
        better = "larger" if figure.larger_is_better else "smaller"
        raise TunebookError(
            f"--require {one.text!r}: {figure.name} is better when {better}",
            fix=f"write {'>=' if figure.larger_is_better else '<='}, or name another figure",
        )
    if one.of_base:
        low, high = figure.low, figure.high
    else:
        low, high = figure.second_low, figure.second_high
    if one.sign is None:
        verdict: Decision = (
            "not distinguishable"
            if figure.p_value >= SIGNIFICANT
            else "met"
            if (figure.difference > 0) == figure.larger_is_better
            else "not met"
        )
    elif low is None or high is None:
        verdict = "not distinguishable"
    else:
        holds = {">=": operator.ge, ">": operator.gt, "<=": operator.le, "<": operator.lt}[one.sign]
        ends = [holds(end, one.limit) for end in (low, high)]
        verdict = "met" if all(ends) else "not distinguishable" if any(ends) else "not met"
    return Outcome(
        requirement=one.text,
        dataset=part.dataset,
        metric=part.metric,
        figure=figure.name,
        n=figure.n,
        first=figure.first,
        second=figure.second,
        difference=figure.difference,
        low=low,
        high=high,
        interval_of="difference" if one.of_base else "second",
        p_value=figure.p_value if one.sign is None else None,
        verdict=verdict,
        measured=_measured(one, figure, verdict, low, high),
    )


def _measured(
    one: Requirement, figure: FigureDifference, verdict: Decision, low: float | None, high: float | None
) -> str:
    said = f"{number(figure.second)} on {figure.n:,} rows"
    show = number
    if one.of_base:
        said += f", base {number(figure.first)}, difference {signed(figure.difference)}"
        show = signed
    known = None if low is None or high is None else f"95 % interval {show(low)} to {show(high)}"
    said += f", {known or 'no interval'}"
    if one.sign is None:
        return f"{said}, p {p_value(figure.p_value)}"
    if not known:
        return f"{said}: no resample of the rows moves it, which proves nothing"
    if verdict == "not distinguishable":
        said += f", with the limit {show(one.limit)} inside it"
        if one.of_base and figure.detectable:
            said += f"; these rows show {unsigned(figure.detectable)} or more"
    return said
