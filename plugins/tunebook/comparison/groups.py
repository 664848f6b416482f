"""The primary figure by length and by class, to show where a difference comes from."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from tunebook.comparison.figures import is_right_or_wrong, paired_test
from tunebook.comparison.records import Group, Groups

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tunebook.comparison.tables import Pair

_QUARTERS = (0.25, 0.5, 0.75)
_MOST_CLASSES = 12
_FEWEST_ROWS = 8
"""Fewer rows are not cut into lengths: a quarter of them says nothing."""


def groups_of(pair: Pair, figure: str, *, larger_is_better: bool) -> tuple[Groups, ...]:
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


def _by_length(pair: Pair, usable: NDArray[np.bool_]) -> _Way:
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


def _by_class(pair: Pair, usable: NDArray[np.bool_]) -> _Way:
    codes = np.unique(pair.classes)
    if len(codes) > _MOST_CLASSES or not all(int(code) in pair.names for code in codes):
        return _Way("class", {}, usable)
    named = sorted((pair.names[int(code)], code) for code in codes)
    return _Way("class", {name: pair.classes == code for name, code in named}, usable)


def _group(label: str, pair: Pair, figure: str, members: NDArray[np.bool_], sign: int) -> Group:
    first, second = pair.first[figure][members], pair.second[figure][members]
    testable = len(first) > 1 or (is_right_or_wrong(first) and is_right_or_wrong(second))
    interval = paired_test(first, second).result.interval if testable else None
    if interval and interval.low == interval.high:
        interval = None
    return Group(
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
