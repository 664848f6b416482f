"""Collects (step, value) pairs by name in little memory."""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import numpy as np

from tunebook.runlog.records import Series
from tunebook.runlog.tolerant_json import as_float

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from numpy.typing import NDArray

_T = TypeVar("_T", np.int64, np.float64)
_NUMBERS = frozenset({float, int, str})
"""Types that numpy takes for numbers as `as_float` does; bool is not one of them."""


class Points(NamedTuple):
    """Steps and their values, of one length."""

    steps: NDArray[np.int64]
    values: NDArray[np.float64]


class _Growing:
    """Points of one name that came in tables, one behind the other."""

    def __init__(self, all_steps: array[int]) -> None:
        self.all_steps = all_steps
        """Shared with the other names of the tables."""
        self.first = len(all_steps)
        """Where in them the points begin."""
        self.values = array("d")

    @property
    def points(self) -> Points:
        steps = np.frombuffer(self.all_steps, dtype=np.int64)
        return Points(steps[self.first : self.first + len(self.values)], np.frombuffer(self.values))


class Columns:
    """Growing columns: about 8 bytes a point, where a list of dictionaries takes some 200.

    Tables go into arrays that grow in their places: joining parts at the end would take twice the memory.
    """

    def __init__(self, source: str) -> None:
        self.source = source
        self._parts: dict[str, list[Points | _Growing]] = {}
        self._steps: dict[tuple[str, ...], array[int]] = {}
        """Of all tables, by their names."""

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
        if len(alike) == 1 and all(len(parts[0][0]) == len(entries) for parts in added.values()):
            self.add_table(all_steps, {name: parts[0][1] for name, parts in added.items()})
            return
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
        all_steps = self._steps.setdefault(tuple(table), array("q"))
        for name, values in table.items():
            parts = self._parts.setdefault(name, [])
            part = parts[-1] if parts else None
            # Points that came in between end a part: of equal steps the later counts.
            if not isinstance(part, _Growing) or part.all_steps is not all_steps:
                part = _Growing(all_steps)
                parts.append(part)
            part.values.frombytes(values.tobytes())
        all_steps.frombytes(steps.tobytes())

    def series(self) -> dict[str, Series]:
        """The columns as series: sorted by step, of equal steps the one that was logged later.

        The columns are empty afterwards: both together would take twice the memory.
        """
        made = {}
        parts_by_name, self._parts, self._steps = self._parts, {}, {}
        # Names that stand in the same entries share one array of steps, here as in the parts.
        shared: dict[tuple[object, ...], NDArray[np.int64]] = {}
        while parts_by_name:
            name, parts = parts_by_name.popitem()
            same = tuple(_steps_of(part) for part in parts)
            in_order = [part.points if isinstance(part, _Growing) else part for part in parts]
            if same not in shared:
                shared[same] = _joined([part.steps for part in in_order])
            points = later_wins(shared[same], _joined([part.values for part in in_order]))
            del parts, in_order
            if len(points.steps):
                made[name] = Series(name=name, steps=points.steps, values=points.values, source=self.source)
        return dict(reversed(made.items()))


def _steps_of(part: Points | _Growing) -> tuple[int, int, int]:
    """What tells the steps of a part from those of others."""
    if isinstance(part, _Growing):
        return id(part.all_steps), part.first, len(part.values)
    return id(part.steps), 0, len(part.steps)


def _joined(parts: list[NDArray[_T]]) -> NDArray[_T]:
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


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


def later_wins(steps: NDArray[np.int64], values: NDArray[np.float64]) -> Points:
    """The points sorted by step; of those of one step the last."""
    if len(steps) < 2 or (steps[1:] > steps[:-1]).all():
        return Points(steps, values)
    order = np.argsort(steps, kind="stable")
    steps, values = steps[order], values[order]
    last = np.append(steps[1:] != steps[:-1], True)
    return Points(steps[last], values[last])
