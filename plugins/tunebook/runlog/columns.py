"""Collects (step, value) pairs by name in little memory, and merges sources of the same series."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from tunebook.runlog.records import Series
from tunebook.runlog.tolerant_json import as_float

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from typing import Any

    from numpy.typing import NDArray

_NUMBERS = frozenset({float, int, str})
"""Types that numpy takes for numbers as `as_float` does; bool is not one of them."""


class Columns:
    """Growing columns: about 16 bytes a point, where a list of dictionaries takes some 200."""

    def __init__(self, source: str) -> None:
        self.source = source
        self._parts: dict[str, list[_Points]] = {}

    def add(self, steps: Sequence[int], entries: Sequence[Mapping[str, Any]]) -> None:
        """Take every number of log entries; texts that read as a number are numbers too.

        transformers 5 prints `{'loss': '1.23'}`; a value that is no number is passed over.

        Args:
            steps: One for each entry.
            entries: In the order in which they were logged.
        """
        alike: dict[tuple[str, ...], list[int]] = {}
        for place, entry in enumerate(entries):
            alike.setdefault(tuple(entry), []).append(place)
        all_steps = np.array(steps, dtype=np.int64)
        added: dict[str, list[tuple[NDArray[np.int64], NDArray[np.float64]]]] = {}
        for names, places in alike.items():
            where = np.array(places)
            for name in names:
                added.setdefault(name, []).append(_numbers(where, [entries[p][name] for p in places]))
        for name, parts in added.items():
            where, values = parts[0]
            if len(parts) > 1:
                where = np.concatenate([part[0] for part in parts])
                order = np.argsort(where)
                where, values = where[order], np.concatenate([part[1] for part in parts])[order]
            # Where every entry has the number, all names share one array of steps.
            at = all_steps if len(where) == len(all_steps) else all_steps[where]
            self._parts.setdefault(name, []).append(_Points(at, values))

    def series(self) -> dict[str, Series]:
        """The columns as series: sorted by step, of equal steps the one that was logged later."""
        made = {}
        # Names that stand in the same entries share one array of steps, here as in the parts.
        shared: dict[tuple[int, ...], NDArray[np.int64]] = {}
        for name, parts in self._parts.items():
            same = tuple(id(part.steps) for part in parts)
            if same not in shared:
                shared[same] = np.concatenate([part.steps for part in parts])
            points = _later_wins(shared[same], np.concatenate([part.values for part in parts]))
            if len(points.steps):
                made[name] = Series(name=name, steps=points.steps, values=points.values, source=self.source)
        return made


def _numbers(where: NDArray[np.int64], values: list[Any]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The values that are numbers, and the places that have them."""
    if _NUMBERS.issuperset(map(type, values)):
        try:
            return where, np.array(values, dtype=np.float64)
        except (ValueError, OverflowError):
            pass
    numbers = [as_float(value) for value in values]
    kept = np.array([number is not None for number in numbers], dtype=bool)
    return where[kept], np.array([number for number in numbers if number is not None], dtype=np.float64)


class _Points(NamedTuple):
    steps: NDArray[np.int64]
    values: NDArray[np.float64]


def _later_wins(steps: NDArray[np.int64], values: NDArray[np.float64]) -> _Points:
    if len(steps) < 2 or (steps[1:] > steps[:-1]).all():
        return _Points(steps, values)
    order = np.argsort(steps, kind="stable")
    steps, values = steps[order], values[order]
    last = np.append(steps[1:] != steps[:-1], True)
    return _Points(steps[last], values[last])


def merge(sources: Iterable[Mapping[str, Series]]) -> dict[str, Series]:
    """Join several sources of the same run, the most trusted first.

    A later source only adds what lies before the first or after the last step of the earlier ones, e.g.
    what was logged after the newest checkpoint of a killed run. In between it would only repeat the same
    points, in a console log with steps that may be off by one.
    """
    joined: dict[str, Series] = {}
    for source in sources:
        for name, series in source.items():
            have = joined.get(name)
            if have is None:
                joined[name] = series
                continue
            new = _outside(have.steps, series.steps)
            if not new.any():
                continue
            points = _later_wins(
                np.concatenate([have.steps, series.steps[new]]),
                np.concatenate([have.values, series.values[new]]),
            )
            joined[name] = Series(
                name=name,
                steps=points.steps,
                values=points.values,
                source=f"{have.source}; {int(new.sum())} steps from {series.source}",
            )
    return joined


def _outside(have: NDArray[np.int64], steps: NDArray[np.int64]) -> NDArray[np.bool_]:
    spacing = float(np.median(np.diff(have))) if len(have) > 1 else 1.0
    outside: NDArray[np.bool_] = (steps > have[-1] + spacing / 2) | (steps < have[0] - spacing / 2)
    return outside
