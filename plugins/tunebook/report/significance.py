"""Says which of several runs can be told apart: paired tests, Holm's correction, letters for groups."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations
from typing import TYPE_CHECKING, NamedTuple

from tunebook.comparison.figures import adjust
from tunebook.report.paired import Pairing

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from tunebook.comparison.records import FigureDifference
    from tunebook.report.paired import Answers, Outcome

MOST_IN_ALL_PAIRS = 10
"""More runs are tested against the best alone: over all their pairs Holm's correction would ask for smaller
p-values than a bootstrap of 2,000 resamples can give."""


class Ranking(NamedTuple):
    """What the tests say of runs that are ranked by one figure."""

    against_best: Mapping[int, FigureDifference]
    """By place in the ranking: the run against the first, p-values adjusted."""
    letters: Mapping[int, str]
    """By place: runs that share a letter are not told apart. Empty above `MOST_IN_ALL_PAIRS` runs."""
    not_tested: Mapping[int, str]
    """By place: why a run could not be tested against the first."""
    tests: int
    outcomes: Mapping[int, Outcome]
    """By place: the test against the first with its rows."""


def rank(answers: Sequence[Answers], pairing: Pairing) -> Ranking:
    """Test runs, ranked best first, in pairs.

    Args:
        answers: Of one figure on one dataset, the best run first; at least two.
        pairing: Reads the records.
    """
    outcomes = {place: pairing.test(answers[0], answers[place]) for place in range(1, len(answers))}
    tested = [place for place, outcome in outcomes.items() if outcome.difference is not None]
    found: dict[tuple[int, int], FigureDifference] = {}
    for place in tested:
        difference = outcomes[place].difference
        assert difference is not None
        found[0, place] = difference
    all_pairs = len(tested) + 1 <= MOST_IN_ALL_PAIRS
    if all_pairs:
        for first, second in combinations(tested, 2):
            difference = pairing.test(answers[first], answers[second]).difference
            if difference is not None:
                found[first, second] = difference
    adjusted = dict(zip(found, adjust(list(found.values())), strict=True))
    apart = {places for places, one in adjusted.items() if one.verdict != "not distinguishable"}
    return Ranking(
        against_best={place: adjusted[0, place] for place in tested},
        letters=letters([0, *tested], apart) if all_pairs and tested else {},
        not_tested={place: one.reason for place, one in outcomes.items() if one.difference is None},
        tests=len(found),
        outcomes={
            place: one._replace(difference=replace(adjusted[0, place]))
            for place, one in outcomes.items()
            if place in tested
        },
    )


def letters(places: Sequence[int], apart: Collection[tuple[int, int]]) -> dict[int, str]:
    """The compact letter display: two places share a letter exactly when they are not in `apart`.

    Source: insert and absorb, Piepho (2004), https://doi.org/10.1198/1061860043515.

    >>> letters([0, 1, 2], {(0, 2)})
    {0: 'a', 1: 'ab', 2: 'b'}
    """
    groups: list[frozenset[int]] = [frozenset(places)]
    for first, second in sorted(apart):
        split: list[frozenset[int]] = []
        for group in groups:
            parts = [group - {first}, group - {second}] if {first, second} <= group else [group]
            split += [part for part in parts if part not in split]
        groups = [group for group in split if not any(group < other for other in split)]
    groups.sort(key=lambda group: sorted(places.index(place) for place in group))
    return {
        place: "".join(_letter(number) for number, group in enumerate(groups) if place in group)
        for place in places
    }


def _letter(number: int) -> str:
    return chr(ord("a") + number) if number < 26 else f"({number + 1})"
