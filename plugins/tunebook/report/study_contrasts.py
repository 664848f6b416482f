"""Pairs of runs that differ in one thing, such as the method, and what the numbers say of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from tunebook.report.study_results import comparable, judged, method_of
from tunebook.report.study_setup import different_settings, same_training_data, training_data
from tunebook.report.study_words import listed
from tunebook.text import number

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tunebook.report.records import RunReport
    from tunebook.report.study_results import Result

_AXES = ("method", "training data", "engine", "model")
_MOST = 6
"""Pairs of one kind that are told of; of more the table of results tells."""
_MOST_SETTINGS = 5


class Contrast(NamedTuple):
    """One kind of difference and a sentence for each pair that shows it."""

    axis: str
    sentences: list[str]


def contrasts(results: Sequence[Result]) -> list[Contrast]:
    """Pairs on one set and by one figure that differ in one of method, training data, engine and model."""
    found = []
    for axis in _AXES:
        pairs = [pair for group in comparable(results) for pair in _pairs(group, axis)]
        sentences = [_sentence(pair, axis) for pair in pairs[:_MOST]]
        if len(pairs) > _MOST:
            sentences.append(f"{len(pairs) - _MOST:,} more such pairs stand in the table of results.")
        if sentences:
            found.append(Contrast(axis, sentences))
    return found


class _Pair(NamedTuple):
    first: Result
    second: Result


def _pairs(group: Sequence[Result], axis: str) -> Iterator[_Pair]:
    """Of runs that are alike but for `axis`, the best of each kind beside the best of every other kind."""
    seen: set[tuple[object, ...]] = set()
    for place, one in enumerate(group):
        for other in group[place + 1 :]:
            if not _differ_only_in(axis, one.run, other.run):
                continue
            # `group` has the best first, so that the first pair of two kinds is that of their best runs.
            key = (frozenset({_value(one.run, axis), _value(other.run, axis)}), *_rest(one.run, axis))
            if key not in seen:
                seen.add(key)
                yield _Pair(one, other)


def _differ_only_in(axis: str, one: RunReport, other: RunReport) -> bool:
    return all(
        (_same(one, other, each) is False) if each == axis else (_same(one, other, each) is True)
        for each in _AXES
    )


def _same(one: RunReport, other: RunReport, axis: str) -> bool | None:
    """None where one of the two does not say."""
    if axis == "training data":
        return same_training_data(one, other)
    values = _value(one, axis), _value(other, axis)
    return None if None in values else values[0] == values[1]


def _value(run: RunReport, axis: str) -> str | None:
    known = {"method": method_of(run), "training data": training_data(run), "engine": run.engine}
    return known.get(axis, run.model)


def _rest(run: RunReport, axis: str) -> list[str | None]:
    return [_value(run, each) for each in _AXES if each not in (axis, "training data")]


def _sentence(pair: _Pair, axis: str) -> str:
    one, other = pair
    names = [f"{_value(result.run, axis)} ({result.run.name})" for result in pair]
    figure = one.figure
    text = (
        f"{names[0]} against {names[1]} on {one.set_name}: {figure.label} {number(figure.value)} against "
        f"{number(other.figure.value)}"
    )
    said = judged(one, other)
    if figure.value == other.figure.value:
        text += ", the same value."
    elif said.apart is None:
        text += f" ({said.words}), so that the difference cannot be judged."
    elif said.apart:
        which = "The first" if said.better is one else "On the rows that both answered, the second"
        text += f" ({said.words}). {which} is better."
    else:
        text += f" ({said.words}), which are not distinguishable."
    text += _cost(pair)
    settings = different_settings(one.run, other.run)
    if settings:
        text += (
            f" The two also differ in {listed(settings, limit=_MOST_SETTINGS)}, so that the {axis} alone "
            "does not explain it."
        )
    return text


def _cost(pair: _Pair) -> str:
    """Trained parameters and speed of both, where both wrote them down."""
    parts = []
    for label, noun, unit in (
        ("Trained parameters", "trained parameters", ""),
        ("Speed", "training speed", " samples/s"),
    ):
        first, second = (result.fact(label) for result in pair)
        if first and second:
            same = first == second
            shown = f"{noun} {number(first)}{'' if same else f' against {number(second)}'}{unit}"
            parts.append(f"{shown} {'in both' if same else f'({first / second:.3g} times)'}")
    return f" {'; '.join(parts)[:1].upper()}{'; '.join(parts)[1:]}." if parts else ""
