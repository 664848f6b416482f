"""Rows of JSON files: the lines of a `.jsonl` file, the objects of an array in a `.json` file."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from tunebook.errors import TunebookError
from tunebook.splits.checks import BLANKS, Checks, json_problem
from tunebook.splits.index import GAP, ROW, SKIPPED, FindRows, Spans
from tunebook.splits.sources import SourceFile, line_at

_QUOTE, _BACKSLASH, _NEWLINE, _RETURN, _OPENING, _CLOSING = map(ord, '"\\\n\r{}')
_CHANGE_OF_DEPTH = np.zeros(256, np.int32)
_CHANGE_OF_DEPTH[[ord("{"), ord("[")]] = 1
_CHANGE_OF_DEPTH[[ord("}"), ord("]")]] = -1


def line_finder(source: SourceFile, checks: Checks) -> FindRows:
    """Return what finds and checks the rows of a file with one object a line."""

    def find(view: memoryview, offset: int, at_end: bool) -> Spans:
        buffer = np.frombuffer(view, np.uint8)
        ends = np.flatnonzero(buffer == _NEWLINE) + 1
        if at_end and len(buffer) and (not len(ends) or ends[-1] != len(buffer)):
            ends = np.append(ends, len(buffer))
        if not len(ends):
            return Spans(ends, np.empty(0, np.uint8))
        begins = np.concatenate(([0], ends[:-1]))
        kinds = np.full(len(ends), ROW, np.uint8)
        if checks.parse_json:
            suspects = list(range(len(ends)))
        else:
            last = np.maximum(ends - 2, begins)
            last = np.where(buffer[last] == _RETURN, np.maximum(last - 1, begins), last)
            odd = (buffer[begins] != _OPENING) | (buffer[last] != _CLOSING)
            suspects = np.flatnonzero(odd).tolist()
        for number in suspects:
            begin = int(begins[number])
            problem = json_problem(bytes(view[begin : int(ends[number])]), parse=True)
            if problem == "":
                kinds[number] = GAP
            elif problem is not None:
                checks.report(source, offset + begin, problem)
                kinds[number] = SKIPPED
        return Spans(ends - begins, kinds)

    return find


class ArrayFinder:
    """Finds and checks the rows of a file that is one array of objects."""

    def __init__(self, source: SourceFile, checks: Checks) -> None:
        self._source, self._checks = source, checks
        self._rows = 0
        self._closed = False

    def __call__(self, view: memoryview, offset: int, at_end: bool) -> Spans:
        """As `FindRows`.

        Raises:
            TunebookError: The array is never closed, or text follows it.
        """
        if self._closed:
            return self._after(view, offset, 0)
        objects = find_objects(np.frombuffer(view, np.uint8))
        lengths: list[int] = []
        kinds: list[int] = []
        done = 0
        for start, end in zip(objects.starts.tolist(), objects.ends.tolist(), strict=True):
            self._check_between(bytes(view[done:start]), offset + done, b"," if self._rows else b"")
            problem = json_problem(bytes(view[start:end]), parse=self._checks.parse_json)
            if problem is not None:
                self._checks.report(self._source, offset + start, problem)
            lengths += (start - done, end - start)
            kinds += (GAP, ROW if problem is None else SKIPPED)
            done, self._rows = end, self._rows + 1
        if objects.closed_at is not None:
            self._closed = True
            self._check_between(bytes(view[done : objects.closed_at - 1]), offset + done, b"")
            after = self._after(view, offset, objects.closed_at)
            lengths.append(objects.closed_at - done + int(after.lengths.sum()))
            kinds.append(GAP)
        elif at_end:
            raise TunebookError(
                f"{self._source.path}, line {line_at(self._source.path, offset + done)}: "
                f"the file ends after row {self._rows} with its array still open",
                fix="the file was cut short: make it again, or close the array",
            )
        return Spans(np.array(lengths, np.int64), np.array(kinds, np.uint8))

    def _check_between(self, text: bytes, offset: int, wanted: bytes) -> None:
        found = text.strip(BLANKS)
        if found != wanted:
            shown = found[:20].decode("utf-8", "replace")
            problem = (
                f"is no list of JSON objects: {shown!r} is between them" if shown else "a comma is missing"
            )
            self._checks.report(self._source, offset, problem)

    def _after(self, view: memoryview, offset: int, start: int) -> Spans:
        rest = bytes(view[start:])
        if rest.strip(BLANKS):
            raise TunebookError(
                f"{self._source.path}, line {line_at(self._source.path, offset + start)}: "
                "text after the end of the array",
                fix="keep one array, or one object a line in a .jsonl file",
            )
        return Spans(np.array([len(rest)], np.int64), np.array([GAP], np.uint8))


class Objects(NamedTuple):
    """What is in a buffer that begins between two objects."""

    starts: npt.NDArray[np.int64]
    ends: npt.NDArray[np.int64]
    """Offsets of each whole object or array, and after it."""
    closed_at: int | None
    """Offset after the bracket that closes the array around the objects; what follows is not searched."""


def find_objects(buffer: npt.NDArray[np.uint8]) -> Objects:
    """Find the outermost objects and arrays of `buffer` by the depth of brackets outside strings."""
    special = buffer == _QUOTE
    special |= buffer == _BACKSLASH
    # `{` and `}` differ from `[` and `]` by one bit.
    folded = buffer | np.uint8(0x20)
    special |= folded == _OPENING
    special |= folded == _CLOSING
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
    """Whether an odd number of backslashes is directly before each place."""
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
