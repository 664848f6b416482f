"""Collects (step, value) pairs by name in little memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from tunebook.runlog.records import Series
from tunebook.runlog.tolerant_json import as_float

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from numpy.typing import NDArray

_NUMBERS = frozenset({float, int, str})
"""Types that numpy takes for numbers as `as_float` does; bool is not one of them."""


class Columns:
    """Growing columns: about 16 bytes a point, where a list of dictionaries takes some 200."""

    def __init__(self, source: str) -> None:
        self.source = source
        self._parts: dict[str, list[Points]] = {}

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
            self._parts.setdefault(name, []).append(Points(at, values))

    def add_table(self, steps: NDArray[np.int64], table: Mapping[str, NDArray[np.float64]]) -> None:
        """Take entries that all have the same numbers, each a column as long as `steps`."""
        for name, values in table.items():
            self._parts.setdefault(name, []).append(Points(steps, values))

    def series(self) -> dict[str, Series]:
        """The columns as series: sorted by step, of equal steps the one that was logged later.

        The columns are empty afterwards: both together would take twice the memory.
        """
        made = {}
        parts_by_name, self._parts = self._parts, {}
        # Names that stand in the same entries share one array of steps, here as in the parts.
        shared: dict[tuple[int, ...], NDArray[np.int64]] = {}
        while parts_by_name:
            name, parts = parts_by_name.popitem()
            same = tuple(id(part.steps) for part in parts)
            if same not in shared:
                shared[same] = np.concatenate([part.steps for part in parts])
            points = later_wins(shared[same], np.concatenate([part.values for part in parts]))
            del parts
            if len(points.steps):
                made[name] = Series(name=name, steps=points.steps, values=points.values, source=self.source)
        return dict(reversed(made.items()))


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


class Points(NamedTuple):
    """Steps and their values, of one length."""

    steps: NDArray[np.int64]
    values: NDArray[np.float64]


def later_wins(steps: NDArray[np.int64], values: NDArray[np.float64]) -> Points:
    """The points sorted by step; of those of one step the last."""
    if len(steps) < 2 or (steps[1:] > steps[:-1]).all():
        return Points(steps, values)
    order = np.argsort(steps, kind="stable")
    steps, values = steps[order], values[order]
    last = np.append(steps[1:] != steps[:-1], True)
    return Points(steps[last], values[last])
