"""Works out how often a run was started again, and where, from all that tells of it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from tunebook.runlog.records import Restart

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from tunebook.runlog.console import Console
    from tunebook.runlog.joining import WentBack
    from tunebook.runlog.records import Series

_CHECKPOINT = re.compile(r"checkpoint-(\d+)/?$")


class _Seen(NamedTuple):
    """A restart as one source shows it; None for what it does not."""

    source: str
    resumed_at: int | None = None
    last_before: int | None = None
    first_again: int | None = None


def restarts_of(
    records: Sequence[tuple[str, Mapping[str, Any]]],
    consoles: Sequence[Console],
    went_back: Sequence[Sequence[WentBack]],
    series: Mapping[str, Series],
    checkpoints: Collection[int],
) -> tuple[Restart, ...]:
    """The restarts of a run, by what tells of most of them, filled up from what tells of as many.

    Args:
        records: File and content of the starts that tunebook wrote down, the earliest first.
        consoles: The earliest first.
        went_back: Of each kind of log, where its steps went back, the most trusted kind first.
        series: The joined series, for the interval of logging.
        checkpoints: Steps of the checkpoints in the folder.
    """
    interval = _interval(series.get("loss"))
    lists = [_by_records(records), _by_consoles(consoles)]
    lists += [_by_steps(places, checkpoints, interval) for places in went_back]
    longest = max(lists, key=len)
    alike = [one for one in lists if len(one) == len(longest)]
    found = []
    for same in zip(*alike, strict=True):
        resumed_at = next((one.resumed_at for one in same if one.resumed_at is not None), None)
        steps = next((one for one in same if one.first_again is not None), same[0])
        found.append(_restart(same[0].source, resumed_at, steps.last_before, steps.first_again))
    return tuple(found)


def _by_records(records: Sequence[tuple[str, Mapping[str, Any]]]) -> list[_Seen]:
    found = []
    for place, (source, record) in enumerate(records):
        checkpoint = record.get("resumed_from")
        match = _CHECKPOINT.search(checkpoint) if isinstance(checkpoint, str) else None
        if match:
            found.append(_Seen(source, int(match[1])))
        elif place and checkpoint is None:
            found.append(_Seen(source, 0))
        elif place:
            found.append(_Seen(source))
    return found


def _by_consoles(consoles: Sequence[Console]) -> list[_Seen]:
    found: list[_Seen] = []
    for console in consoles:
        for start in console.starts:
            # A second log of the same start says the same.
            if start.resumed_at is not None and not (found and found[-1].resumed_at == start.resumed_at):
                found.append(_Seen(console.source, start.resumed_at))
    return found


def _by_steps(places: Sequence[WentBack], checkpoints: Collection[int], interval: int) -> list[_Seen]:
    found: dict[int, _Seen] = {}
    for place in places:
        near = [step for step in checkpoints if place.first_again - interval <= step < place.first_again]
        at = near[0] if len(near) == 1 else None
        if place.first_again <= interval:
            at = 0
        # Two logs of one start go back at the same step.
        found[place.first_again] = _Seen(place.source, at, place.last_before, place.first_again)
    return list(found.values())


def _interval(loss: Series | None) -> int:
    return round(float(np.median(np.diff(loss.steps)))) if loss is not None and len(loss.steps) > 1 else 1


def _restart(source: str, at: int | None, last: int | None, first: int | None) -> Restart:
    repeated = None
    if last is not None and first is not None:
        repeated = max(0, last - (first - 1 if at is None else at))
    if at is None:
        message = "was started again" if first is None else f"was started again before step {first}"
    else:
        message = f"resumed at step {at}" if at else "was started again from the beginning"
    if repeated and last is not None:
        message += f"; steps {last - repeated + 1} to {last} were taken again, and the later values count"
    return Restart(resumed_at_step=at, steps_repeated=repeated, source=source, message=message)
