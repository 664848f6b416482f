"""Rows on which the best run and another one disagree, as examples."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tunebook.comparison.disagreements import Told, disagreements_of, flips_of, read_texts
from tunebook.comparison.rows import Columns
from tunebook.report.records import RunDisagreements

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tunebook.report.paired import Answers
    from tunebook.report.records import Figure
    from tunebook.report.significance import Ranking

PAIRS = 3
"""Runs that are shown against the best, those nearest to it."""
EACH_WAY = 4
"""Examples of either direction."""


def disagreements(answers: Sequence[Answers], figure: Figure, ranking: Ranking) -> Iterator[RunDisagreements]:
    """The rows that the best run and those next to it answered differently well.

    Args:
        answers: Ranked, the best first.
        figure: What they are ranked by.
        ranking: The tests against the best.
    """
    for place, outcome in list(ranking.outcomes.items())[:PAIRS]:
        assert outcome.difference is not None
        assert outcome.verdicts is not None
        assert outcome.metric is not None
        by = outcome.difference.name
        if by not in outcome.verdicts.first:  # macro-F1 and its like: rows are right or wrong
            by = next((name for name in outcome.metric.figures if name in outcome.verdicts.first), "")
        if not by:
            continue
        larger = by not in outcome.metric.smaller_is_better
        flips = flips_of(outcome.verdicts, by, larger_is_better=larger)
        shown = [*flips.worse[:EACH_WAY].tolist(), *flips.better[:EACH_WAY].tolist()]
        first, second = (_told(answers[at], set(shown)) for at in (0, place))
        yield RunDisagreements(
            first=answers[0].name,
            second=answers[place].name,
            dataset=figure.dataset,
            figure=by,
            n=len(outcome.verdicts.index),
            only_first=len(flips.worse),
            only_second=len(flips.better),
            examples=disagreements_of(
                shown, set(flips.better.tolist()), first, second, outcome.metric, by, recorded=True
            ),
        )


def _told(answers: Answers, wanted: set[int]) -> Told:
    assert answers.path is not None
    return Told(answers.path, read_texts(answers.path, Columns(), None, wanted))
