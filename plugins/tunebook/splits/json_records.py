"""Objects of a JSON file, found by the depth of the braces outside strings; nothing is parsed."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

_QUOTE, _BACKSLASH = 34, 92
_CHANGE_OF_DEPTH = np.zeros(256, np.int32)
_CHANGE_OF_DEPTH[[ord("{"), ord("[")]] = 1
_CHANGE_OF_DEPTH[[ord("}"), ord("]")]] = -1


class Objects(NamedTuple):
    """What lies in a buffer that begins between two objects."""

    starts: npt.NDArray[np.int64]
    ends: npt.NDArray[np.int64]
    """Offsets of each whole object or array, and after it."""
    closed_at: int | None
    """Offset after the bracket that closes what the objects lie in; what follows is not searched."""


def find_objects(buffer: npt.NDArray[np.uint8]) -> Objects:
    """Find the outermost objects and arrays of `buffer`."""
    special = buffer == _QUOTE
    special |= buffer == _BACKSLASH
    # `{` and `}` differ from `[` and `]` by one bit.
    folded = buffer | np.uint8(0x20)
    special |= folded == ord("{")
    special |= folded == ord("}")
    places = np.flatnonzero(special)
    found = buffer[places]
    quotes = (found == _QUOTE) & ~_escaped(places, found)
    outside = np.cumsum(quotes, dtype=np.uint32) & 1 == 0
    change = np.where(outside & ~quotes, _CHANGE_OF_DEPTH[found], 0)
    depth = np.cumsum(change)
    closed = np.flatnonzero(depth < 0)
    end = int(closed[0]) if len(closed) else len(depth)
    change, depth = change[:end], depth[:end]
    starts = places[np.flatnonzero((change == 1) & (depth == 1))]
    ends = places[np.flatnonzero((change == -1) & (depth == 0))] + 1
    closed_at = int(places[end]) + 1 if len(closed) else None
    return Objects(starts[: len(ends)], ends, closed_at)


def _escaped(places: npt.NDArray[np.int64], found: npt.NDArray[np.uint8]) -> npt.NDArray[np.bool_]:
    """Whether an odd number of backslashes stands directly before each place."""
    escaped = np.zeros(len(places), np.bool_)
    backslash = found == _BACKSLASH
    if not backslash.any():
        return escaped
    follows = np.zeros(len(places), np.bool_)
    follows[1:] = (np.diff(places) == 1) & backslash[:-1]
    # A run of backslashes begins at one that follows none.
    begins = np.where(backslash & ~follows, places, -1)
    run = places - np.maximum.accumulate(begins) + 1
    escaped[1:] = follows[1:] & (run[:-1] % 2 == 1)
    return escaped
