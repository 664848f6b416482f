"""Compares two models on the rows that both answered, and gathers everything to be said."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import numpy as np

from tunebook import __version__
from tunebook.comparison import wording
from tunebook.comparison.disagreements import Told, disagreements_of, flips_of, kept_of, read_texts
from tunebook.comparison.figures import adjust, compare_figures, is_right_or_wrong
from tunebook.comparison.groups import groups_of
from tunebook.comparison.pairing import pair_rows
from tunebook.comparison.records import FORMAT, Comparison, SetComparison, Side
from tunebook.comparison.sources import find_source
from tunebook.comparison.tables import pair

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tunebook.comparison.pairing import Paired, Request
    from tunebook.comparison.records import FigureDifference
    from tunebook.comparison.sources import Source
    from tunebook.comparison.tables import Pair
    from tunebook.types import Metric


def compare(request: Request, *, on_bytes: Callable[[int], None] | None = None) -> Comparison:
    """Compare two models on the rows that both answered.

    Args:
        request: What to compare.
        on_bytes: Called with the number of bytes read so far of the first reading of all files.

    Raises:
        TunebookError: A side is not there or cannot be read, the two share no rows, or matched rows have
            other references or prompts.
    """
    first, second = find_source(request.first), find_source(request.second)
    if first.label == second.label:
        first, second = first._replace(label=first.given), second._replace(label=second.given)
    if first.label == second.label:
        first, second = first._replace(label="first"), second._replace(label="second")
    paired = pair_rows(request, first, second, on_bytes)
    prompts_differ = sum(len(one.matched.other_prompts) for one in paired)
    sets = [
        _compare_set(request, one, metric, first, second) for one in paired for metric in one.method.metrics
    ]
    sets = _adjusted(sets, first.label, second.label)
    return Comparison(
        format=FORMAT,
        made_by=f"tunebook {__version__}",
        made_at=datetime.now(UTC).isoformat(timespec="seconds"),
        first=_side(first),
        second=_side(second),
        headline=wording.headline(sets),
        prompts_differ=prompts_differ,
        notes=tuple(_notes(sets, prompts_differ)),
        sets=tuple(sets),
    )


def _side(source: Source) -> Side:
    files = {dataset or "": str(path) for dataset, path in source.files.items()}
    return Side(label=source.label, given=source.given, files=files, chosen=dict(source.chosen))


def _compare_set(
    request: Request, one: Paired, metric: Metric, first: Source, second: Source
) -> SetComparison:
    verdicts = pair(metric.name, *one.tables, one.matched)
    figures = compare_figures(metric, verdicts)
    primary = figures[0]
    flips = flips_of(verdicts, primary.name, larger_is_better=primary.larger_is_better)
    kept = kept_of(flips)
    wanted = set(kept)
    told = [
        Told(path, read_texts(path, columns, name, wanted))
        for path, columns, name in (
            (one.part.first, request.first_columns, one.first_name),
            (one.part.second, request.second_columns, one.second_name),
        )
    ]
    right, wrong = _agreements(verdicts, primary)
    return SetComparison(
        dataset=one.dataset,
        metric=metric.name,
        figure=primary.name,
        counts_right=right is not None,
        recorded=one.method.recorded,
        n=len(one.matched.index),
        only_in_first=one.matched.only_in_first,
        only_in_second=one.matched.only_in_second,
        figures=tuple(figures),
        better=len(flips.better),
        worse=len(flips.worse),
        equal=len(one.matched.index) - len(flips.better) - len(flips.worse),
        both_right=right,
        both_wrong=wrong,
        groups=groups_of(verdicts, primary.name, larger_is_better=primary.larger_is_better),
        disagreements=disagreements_of(
            kept,
            set(flips.better.tolist()),
            told[0],
            told[1],
            metric,
            primary.name,
            recorded=one.method.recorded,
        ),
        sentence=wording.sentence(primary, first.label, second.label, one.dataset),
    )


def _agreements(verdicts: Pair, primary: FigureDifference) -> tuple[int | None, int | None]:
    first, second = verdicts.first[primary.name], verdicts.second[primary.name]
    if not (is_right_or_wrong(first) and is_right_or_wrong(second)):
        return None, None
    return int(np.sum((first == 1) & (second == 1))), int(np.sum((first == 0) & (second == 0)))


def _adjusted(sets: list[SetComparison], first: str, second: str) -> list[SetComparison]:
    """Holm's correction among the primary figures of all sets, and among all the other figures."""
    primaries = adjust([one.figures[0] for one in sets])
    others = iter(adjust([figure for one in sets for figure in one.figures[1:]]))
    return [
        replace(
            one,
            figures=(primary, *(next(others) for _ in one.figures[1:])),
            sentence=wording.sentence(primary, first, second, one.dataset),
        )
        for one, primary in zip(sets, primaries, strict=True)
    ]


def _notes(sets: Sequence[SetComparison], prompts_differ: int) -> list[str]:
    notes = []
    for one in sets:
        where = f" of {one.dataset}" if one.dataset else ""
        if one.only_in_first or one.only_in_second:
            notes.append(
                f"{one.only_in_first:,} rows{where} are in the first alone and {one.only_in_second:,} in the "
                f"second alone; they are left out."
            )
        if len(one.disagreements) < one.better + one.worse:
            kept, found = len(one.disagreements), one.better + one.worse
            notes.append(f"{kept:,} of {found:,} disagreements{where} are kept, the largest differences.")
        if not one.recorded:
            notes.append(f"Both were judged by {one.metric} now, from their texts.")
    if prompts_differ:
        notes.append(f"{prompts_differ:,} matched rows had different prompts, which was allowed.")
    if len(sets) > 1:
        notes.append(f"p-values of the {len(sets)} primary figures are adjusted by Holm's method.")
    return list(dict.fromkeys(notes))
