"""Makes series out of logged entries, and joins what several files or several starts say of the same one."""

from __future__ import annotations

from array import array
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from tunebook.runlog.records import Series, SeriesPart
from tunebook.runlog.tolerant_json import as_float

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from numpy.typing import NDArray

_CLOCK = "elapsed_seconds"
_SAME = 1e-3
"""Relative: console logs of transformers 5 have four digits, event files seven."""


class Points(NamedTuple):
    """Steps and their values, of one length."""

    steps: NDArray[np.int64]
    values: NDArray[np.float64]


class SeriesBuilder:
    """Collects the numbers of log entries by name, in 16 bytes each."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._points: dict[str, tuple[array[int], array[float]]] = {}

    def add(self, step: int, entry: Mapping[str, Any]) -> None:
        """Take every number of an entry; texts that read as a number are numbers too.

        transformers 5 prints `{'loss': '1.23'}`; a value that is no number is passed over.
        """
        for name, value in entry.items():
            number = value if type(value) is float else as_float(value)
            if number is not None:
                if name not in self._points:
                    self._points[name] = array("q"), array("d")
                steps, values = self._points[name]
                steps.append(step)
                values.append(number)

    def series(self) -> dict[str, Series]:
        """Each name's numbers sorted by step; of equal steps the one that was logged later counts."""
        found = {}
        for name, columns in self._points.items():
            steps, values = (np.array(column) for column in columns)
            points = later_wins(steps, values)
            found[name] = Series(name=name, steps=points.steps, values=points.values, source=self._source)
        return found


def later_wins(steps: NDArray[np.int64], values: NDArray[np.float64]) -> Points:
    """The points sorted by step; of those of one step the last."""
    if len(steps) < 2 or (steps[1:] > steps[:-1]).all():
        return Points(steps, values)
    order = np.argsort(steps, kind="stable")
    steps, values = steps[order], values[order]
    last = np.append(steps[1:] != steps[:-1], True)
    return Points(steps[last], values[last])


class WentBack(NamedTuple):
    """A place where training was started again, as the steps of a log show."""

    last_before: int
    """The last step that the starts before had logged."""
    first_again: int
    """The first step that this start logged."""
    source: str


class Joined(NamedTuple):
    """The series of all starts, and where training was started again."""

    series: dict[str, Series]
    went_back: list[WentBack]


def merge_series(sources: Iterable[Mapping[str, Series]]) -> dict[str, Series]:
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
            if new.any():
                said = f"{have.source}; {int(new.sum())} steps from {series.source}"
                joined[name] = _combined(have, None, series, new, said)
    return joined


def join_starts(starts: Sequence[Mapping[str, Series]]) -> Joined:
    """Join the logs of a run's starts, the earliest first: where two took the same steps, the later counts.

    A log that only repeats what is there, e.g. a copy, is no start of its own.
    """
    joined: dict[str, Series] = {}
    went_back: list[WentBack] = []
    for later in starts:
        if not joined or not any(len(one.steps) for one in later.values()):
            joined = joined or dict(later)
            continue
        if _is_copy(joined, later):
            joined = merge_series([joined, later])
            continue
        if joined.keys().isdisjoint(later.keys() - {"epoch", _CLOCK}):
            joined = merge_series([joined, later])  # as of the evaluation after training
            continue
        # An evaluation before the first step of a resumed training is no step taken again.
        told_by = {"loss"} if "loss" in joined and "loss" in later else later.keys()
        said = [later[name] for name in told_by if len(later[name].steps)]
        before = max(
            (int(one.steps[-1]) for name, one in joined.items() if name in told_by and len(one.steps)),
            default=0,
        )
        went_back.append(WentBack(before, min(int(one.steps[0]) for one in said), said[0].source))
        for name, series in later.items():
            have = joined.get(name)
            if have is None or not len(have.steps) or not len(series.steps):
                joined[name] = have if have is not None and len(have.steps) else series
                continue
            if name == _CLOCK:  # begins at zero in each start
                series = replace(series, values=series.values + float(have.values[-1]))
            kept = (have.steps < series.steps[0]) | (have.steps > series.steps[-1])
            sources = dict.fromkeys([*have.source.split(", "), series.source])
            joined[name] = _combined(have, kept, series, None, ", ".join(sources))
    return Joined(joined, went_back)


def agree(one: Series, other: Series) -> bool | None:
    """Whether two series have the same values at the steps they share; None where they share none."""
    shared, mine, theirs = np.intersect1d(one.steps, other.steps, return_indices=True)
    if not len(shared):
        return None
    return bool(np.allclose(one.values[mine], other.values[theirs], rtol=_SAME, equal_nan=True))


def _is_copy(joined: Mapping[str, Series], later: Mapping[str, Series]) -> bool:
    """Whether a log only repeats: with the same numbers, and not from a later step on to a later one.

    A training that is resumed may take its steps again with the very same numbers.
    """
    shared = joined.keys() & later.keys() & {"loss"}
    if any(
        later[name].steps[0] > joined[name].steps[0] and later[name].steps[-1] > joined[name].steps[-1]
        for name in shared
    ):
        return False
    verdicts = [
        agree(joined[name], series)
        for name, series in later.items()
        if name in joined and name not in ("epoch", "learning_rate", _CLOCK)
    ]
    return bool(verdicts) and all(verdict is not False for verdict in verdicts) and True in verdicts


def _combined(
    have: Series,
    kept: NDArray[np.bool_] | None,
    series: Series,
    new: NDArray[np.bool_] | None,
    source: str,
) -> Series:
    """The chosen points of both, by step, and which stretch is from which file."""
    names: dict[str, int] = {}
    origins = [_origins(have, names), _origins(series, names)]
    steps, values = [have.steps, series.steps], [have.values, series.values]
    for place, chosen in enumerate((kept, new)):
        if chosen is not None:
            steps[place], values[place] = steps[place][chosen], values[place][chosen]
            origins[place] = origins[place][chosen]
    all_steps = np.concatenate(steps)
    order = np.argsort(all_steps, kind="stable")
    all_steps = all_steps[order]
    return Series(
        name=have.name,
        steps=all_steps,
        values=np.concatenate(values)[order],
        source=source,
        parts=_parts(all_steps, np.concatenate(origins)[order], list(names)),
    )


def _origins(series: Series, names: dict[str, int]) -> NDArray[np.int64]:
    """For each point the number of its file in `names`, which grows by the files that are new."""
    parts = [(part.source, part.points) for part in series.parts] or [(series.source, len(series.steps))]
    numbers = [names.setdefault(source, len(names)) for source, _ in parts]
    return np.repeat(np.array(numbers, dtype=np.int64), [points for _, points in parts])


def _parts(steps: NDArray[np.int64], origins: NDArray[np.int64], names: list[str]) -> tuple[SeriesPart, ...]:
    if not len(steps):
        return ()
    starts = np.flatnonzero(np.append(True, origins[1:] != origins[:-1]))
    ends = np.append(starts[1:], len(steps))
    return tuple(
        SeriesPart(
            source=names[int(origins[first])],
            first_step=int(steps[first]),
            last_step=int(steps[after - 1]),
            points=int(after - first),
        )
        for first, after in zip(starts.tolist(), ends.tolist(), strict=True)
    )


def _outside(have: NDArray[np.int64], steps: NDArray[np.int64]) -> NDArray[np.bool_]:
    spacing = float(np.median(np.diff(have))) if len(have) > 1 else 1.0
    outside: NDArray[np.bool_] = (steps > have[-1] + spacing / 2) | (steps < have[0] - spacing / 2)
    return outside
