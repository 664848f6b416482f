"""Compares two models on the rows that both answered, and gathers everything to be said."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from tunebook import __version__
from tunebook.comparison.disagreements import AnswerTexts, disagreements_of, flips_of, kept_of, read_texts
from tunebook.comparison.figures import adjust, compare_figures, is_right_or_wrong, paired_test
from tunebook.comparison.gate import decide, parse_requirements
from tunebook.comparison.pairing import pair_rows
from tunebook.comparison.records import FORMAT, Comparison, Groups, RowGroup, SetComparison, Side
from tunebook.comparison.rows import find_predictions
from tunebook.comparison.tables import UNPARSED, pair
from tunebook.text import signed, unsigned

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from tunebook.comparison.pairing import ComparisonRequest, Paired
    from tunebook.comparison.records import FigureDifference, SetComparison
    from tunebook.comparison.rows import PredictionSource
    from tunebook.comparison.tables import PairedVerdicts
    from tunebook.types import Metric


def compare(request: ComparisonRequest, *, on_bytes: Callable[[int], None] | None = None) -> Comparison:
    """Compare two models on the rows that both answered.

    Args:
        request: What to compare.
        on_bytes: Called with the number of bytes read so far of the first reading of all files.

    Raises:
        TunebookError: A side is not there or cannot be read, the two share no rows, matched rows have other
            references or prompts, or a requirement is none or names no figure.
    """
    requirements = parse_requirements(request.require)
    first, second = find_predictions(request.first), find_predictions(request.second)
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
        headline=headline(sets),
        requirements=decide(requirements, sets),
        prompts_differ=prompts_differ,
        notes=tuple(_notes(sets, prompts_differ)),
        sets=tuple(sets),
    )


def _side(source: PredictionSource) -> Side:
    files = {dataset or "": str(path) for dataset, path in source.files.items()}
    return Side(label=source.label, given=source.given, files=files, chosen=dict(source.chosen))


def _compare_set(
    request: ComparisonRequest, one: Paired, metric: Metric, first: PredictionSource, second: PredictionSource
) -> SetComparison:
    verdicts = pair(metric.name, *one.tables, one.matched)
    figures = compare_figures(metric, verdicts)
    primary = figures[0]
    flips = flips_of(verdicts, primary.name, larger_is_better=primary.larger_is_better)
    kept = kept_of(flips)
    wanted = set(kept)
    texts = [
        AnswerTexts(path, read_texts(path, columns, name, wanted))
        for path, columns, name in (
            (one.part.first, request.first_columns, one.first_name),
            (one.part.second, request.second_columns, one.second_name),
        )
    ]
    right, wrong = _agreements(verdicts, primary)
    alike = verdicts.other_texts & ~np.isin(verdicts.index, np.concatenate(flips))
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
            texts[0],
            texts[1],
            metric,
            primary.name,
            recorded=one.method.recorded,
        ),
        other_texts=int(verdicts.other_texts.sum()),
        other_texts_alike=int(alike.sum()),
        sentence=sentence(primary, first.label, second.label, one.dataset),
        baseline=" ".join(
            part
            for part in (
                against_majority(verdicts, primary, first.label, second.label) if right is not None else "",
                _unread_before(verdicts, flips.better, first.label),
            )
            if part
        ),
    )


def _unread_before(pair: PairedVerdicts, better: NDArray[np.int64], first: str) -> str:
    unread = int(pair.first[UNPARSED][np.isin(pair.index, better)].sum())
    return f"{unread:,} of the {len(better):,} rows gained could not be read in {first}." if unread else ""


def _agreements(verdicts: PairedVerdicts, primary: FigureDifference) -> tuple[int | None, int | None]:
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
            sentence=f"{sentence(primary, first, second, one.dataset)} {one.baseline}".rstrip(),
        )
        for one, primary in zip(sets, primaries, strict=True)
    ]


def _notes(sets: Sequence[SetComparison], prompts_differ: int) -> list[str]:
    notes = []
    for one in sets:
        where = f" of {one.dataset}" if one.dataset else ""
        if one.only_in_first or one.only_in_second:
            notes.append(
                f"{one.only_in_first:,} rows{where} are only in the first and {one.only_in_second:,} "
                f"only in the second; they are left out."
            )
        if len(one.disagreements) < one.better + one.worse:
            kept, found = len(one.disagreements), one.better + one.worse
            notes.append(f"{kept:,} of {found:,} disagreements{where} are kept, the largest differences.")
        notes.append(_of_texts(one, where))
        if not one.recorded:
            notes.append(f"Both were judged by {one.metric} now, from their texts.")
    if prompts_differ:
        notes.append(f"{prompts_differ:,} matched rows had different prompts, which was allowed.")
    if len(sets) > 1:
        notes.append(f"p-values of the {len(sets)} primary figures are adjusted by Holm's method.")
    return list(dict.fromkeys(notes))


def _of_texts(one: SetComparison, where: str) -> str:
    if not one.other_texts:
        return f"The answers{where} are the same texts on each of the {one.n:,} rows."
    alike = f"{one.other_texts_alike:,} of them with the same {one.figure}"
    return f"The answers{where} differ as texts on {one.other_texts:,} of {one.n:,} rows, {alike}."


# The primary figure by length and by class, to show where a difference comes from.

_QUARTERS = (0.25, 0.5, 0.75)
_MOST_CLASSES = 12
_FEWEST_ROWS = 8
"""Fewer rows are not cut into lengths: a quarter of them says nothing."""


def groups_of(pair: PairedVerdicts, figure: str, *, larger_is_better: bool) -> tuple[Groups, ...]:
    """The rows by length, in quarters, and by class where the references are of a few classes."""
    usable = ~(np.isnan(pair.first[figure]) | np.isnan(pair.second[figure]))
    ways = [_by_length(pair, usable), _by_class(pair, usable)]
    return tuple(
        Groups(
            by=way.by,
            groups=tuple(
                _group(label, pair, figure, members, 1 if larger_is_better else -1)
                for label, members in way.members.items()
            ),
        )
        for way in ways
        if len(way.members) > 1
    )


class _Way:
    """One way to cut the rows; groups without a row that has the figure are left out."""

    def __init__(self, by: str, members: dict[str, NDArray[np.bool_]], usable: NDArray[np.bool_]) -> None:
        self.by = by
        self.members = {label: rows & usable for label, rows in members.items() if (rows & usable).any()}


def _by_length(pair: PairedVerdicts, usable: NDArray[np.bool_]) -> _Way:
    lengths = pair.lengths
    if len(lengths) < _FEWEST_ROWS:
        return _Way(pair.lengths_of, {}, usable)
    inner = [int(edge) for edge in np.quantile(lengths, _QUARTERS, method="lower")]
    edges = sorted({int(lengths.min()) - 1, *inner, int(lengths.max())})
    return _Way(
        pair.lengths_of,
        {_range(low + 1, high): (lengths > low) & (lengths <= high) for low, high in pairwise(edges)},
        usable,
    )


def _range(low: int, high: int) -> str:
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def _by_class(pair: PairedVerdicts, usable: NDArray[np.bool_]) -> _Way:
    codes = np.unique(pair.classes)
    if len(codes) > _MOST_CLASSES or not all(int(code) in pair.names for code in codes):
        return _Way("class", {}, usable)
    named = sorted((pair.names[int(code)], code) for code in codes)
    return _Way("class", {name: pair.classes == code for name, code in named}, usable)


def _group(label: str, pair: PairedVerdicts, figure: str, members: NDArray[np.bool_], sign: int) -> RowGroup:
    first, second = pair.first[figure][members], pair.second[figure][members]
    testable = len(first) > 1 or (is_right_or_wrong(first) and is_right_or_wrong(second))
    interval = paired_test(first, second).result.interval if testable else None
    if interval and interval.low == interval.high:
        interval = None
    return RowGroup(
        label=label,
        n=len(first),
        first=float(first.mean()),
        second=float(second.mean()),
        difference=float(second.mean() - first.mean()),
        low=interval.low if interval else None,
        high=interval.high if interval else None,
        better=int(np.sum(sign * (second - first) > 0)),
        worse=int(np.sum(sign * (second - first) < 0)),
    )


# Says in one sentence what a comparison comes to, and how many rows would show more.


def sentence(figure: FigureDifference, first: str, second: str, dataset: str) -> str:
    """What the primary figure says of the second model against the first."""
    rows = f"{figure.n:,} rows" + (f" of {dataset}" if dataset else "")
    if figure.detectable == 0 and figure.difference == 0:
        return f"{first} and {second} have the same {figure.name} on each of the {rows}."
    measured = f"{signed(figure.difference)} ({interval_text(figure)}, {p_text(figure)})"
    if figure.verdict == "not distinguishable":
        return (
            f"{first} and {second} are not distinguishable by {figure.name} on {rows}: {measured}. "
            + _what_would_be_needed(figure)
        )
    return f"{second} is {figure.verdict} than {first} by {figure.name} on {rows}: {measured}."


def against_majority(pair: PairedVerdicts, figure: FigureDifference, first: str, second: str) -> str:
    """How both models stand to always giving the commonest reference; empty where there are many.

    A model that answers nothing but "Yes" beats one that cannot be read, and has learned nothing.
    """
    codes, counts = np.unique(pair.classes, return_counts=True)
    if not 1 < len(codes) <= _MOST_CLASSES or not all(int(code) in pair.names for code in codes):
        return ""
    most = float(counts.max() / counts.sum())
    said = [f"Always {pair.names[int(codes[counts.argmax()])]!r} would reach {most:.3f}"]
    below = [name for name, value in ((first, figure.first), (second, figure.second)) if value <= most]
    if below:
        said[0] += f": {' and '.join(below)} {'do' if len(below) > 1 else 'does'} not beat that"
    for name, parsed, verdicts in (
        (first, pair.first_parsed, pair.first),
        (second, pair.second_parsed, pair.second),
    ):
        answers = np.unique(parsed)
        if len(answers) == 1 and verdicts[figure.name].any():
            said.append(f"{name} gives one answer on all {len(parsed):,} rows")
    return ". ".join(said) + "."


def _what_would_be_needed(figure: FigureDifference) -> str:
    seen = f"These rows show a difference of about {unsigned(figure.detectable)} or more (80 % power)"
    if figure.rows_needed is None:
        return f"{seen}."
    if figure.rows_needed <= figure.n:
        return f"{seen}; as many rows again may decide it."
    size, rows = unsigned(figure.difference), rounded(figure.rows_needed)
    return f"{seen}; one of {size} would need about {rows} rows."


def headline(sets: Sequence[SetComparison]) -> str:
    """The sentences of all sets."""
    return " ".join(one.sentence for one in sets)


def interval_text(figure: FigureDifference) -> str:
    """The interval of a difference, or that there is none."""
    if figure.low is None or figure.high is None:
        return "no interval"
    return f"95 % interval {signed(figure.low)} to {signed(figure.high)}"


def p_text(figure: FigureDifference) -> str:
    """The adjusted p-value as it is printed.

    A bootstrap cannot show values below what its resamples allow, and none is claimed.
    """
    name = "p" if figure.p_adjusted == figure.p_value else "adjusted p"
    value = figure.p_adjusted
    return f"{name} < 0.001" if value < 0.001 else f"{name} {value:.3f}"


def rounded(rows: int) -> str:
    """A number of rows to two digits, since it is an estimate.

    >>> rounded(1234), rounded(87), rounded(45678)
    ('1,200', '87', '46,000')
    """
    digits = max(0, len(str(rows)) - 2)
    return f"{round(rows, -digits):,}"
