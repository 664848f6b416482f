"""Collects (step, value) pairs by name in little memory, and merges sources of the same series."""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from tunebook.runlog.records import Series
from tunebook.runlog.tolerant_json import as_float

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any


class Columns:
    """Growing columns: 16 bytes a point, where a list of dictionaries takes some 200."""

    def __init__(self, source: str) -> None:
        self.source = source
        self._steps: dict[str, array[int]] = {}
        self._values: dict[str, array[float]] = {}

    def add(self, step: int, entry: Mapping[str, Any]) -> None:
        """Take every number of a log entry; texts that read as a number are numbers too.

        transformers 5 prints `{'loss': '1.23'}`; a value that is no number is passed over.
        """
        for name, value in entry.items():
            number = value if type(value) is float else as_float(value)
            if number is None:
                continue
            if name not in self._steps:
                self._steps[name] = array("q")
                self._values[name] = array("d")
            self._steps[name].append(step)
            self._values[name].append(number)

    def series(self) -> dict[str, Series]:
        """The columns as series: sorted by step, of equal steps the one that was logged later."""
        made = {}
        for name, steps in self._steps.items():
            points = _later_wins(np.array(steps, dtype=np.int64), np.array(self._values[name]))
            made[name] = Series(name=name, steps=points.steps, values=points.values, source=self.source)
        return made


class _Points(NamedTuple):
    steps: np.ndarray[Any, np.dtype[np.int64]]
    values: np.ndarray[Any, np.dtype[np.float64]]


def _later_wins(
    steps: np.ndarray[Any, np.dtype[np.int64]], values: np.ndarray[Any, np.dtype[np.float64]]
) -> _Points:
    order = np.argsort(steps, kind="stable")
    steps, values = steps[order], values[order]
    last = np.append(steps[1:] != steps[:-1], True) if len(steps) else np.zeros(0, dtype=bool)
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


def _outside(
    have: np.ndarray[Any, np.dtype[np.int64]], steps: np.ndarray[Any, np.dtype[np.int64]]
) -> np.ndarray[Any, np.dtype[np.bool_]]:
    spacing = float(np.median(np.diff(have))) if len(have) > 1 else 1.0
    outside: np.ndarray[Any, np.dtype[np.bool_]] = (steps > have[-1] + spacing / 2) | (
        steps < have[0] - spacing / 2
    )
    return outside
