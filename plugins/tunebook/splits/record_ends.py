"""Buffers cut into spans, for each format of text; each row is checked on the way."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from tunebook.errors import TunebookError
from tunebook.splits.checks import BLANKS, Checks, json_problem
from tunebook.splits.sources import SourceFile, line_at
from tunebook.splits.spans import GAP, ROW, SKIPPED

# Objects of a JSON file, found by the depth of the braces outside strings; nothing is parsed.

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


_NEWLINE, _RETURN, _OPENING, _CLOSING = 10, 13, ord("{"), ord("}")


class Spans(NamedTuple):
    """Spans from the front of a buffer; what they leave of it belongs to a row that is not whole yet."""

    lengths: npt.NDArray[Any]
    kinds: npt.NDArray[np.uint8]


Cut = Callable[[memoryview, int, bool], Spans]
"""Cut what it can off the front of a buffer, given the buffer's offset in the file and whether it ends it."""


class NotRfc4180(Exception):  # noqa: N818 - a turn in the road, not a fault
    """The parity of quotes cannot be trusted; holds the offset of the reason."""


def cut_for(source: SourceFile, checks: Checks) -> Cut:
    """Return what cuts a text file of that format, from a place where a row may begin."""
    if source.format == "csv":
        return _CsvCut(source, checks)
    if source.format == "jsonl":
        return _LineCut(source, checks)
    return _ArrayCut(source, checks)


class _CsvCut:
    def __init__(self, source: SourceFile, checks: Checks) -> None:
        self._source, self._checks = source, checks

    def __call__(self, view: memoryview, offset: int, at_end: bool) -> Spans:
        records = find_records(np.frombuffer(view, np.uint8), at_end=at_end)
        if records.broken_at is not None:
            raise NotRfc4180(offset + records.broken_at)
        begins = np.concatenate(([0], records.ends[:-1])) if len(records.ends) else records.ends
        lengths = records.ends - begins
        kinds = np.full(len(lengths), ROW, np.uint8)
        wanted = len(self._source.columns)
        suspects = (records.fields != wanted) | (lengths <= 2)
        for number in np.flatnonzero(suspects).tolist():
            begin, end = int(begins[number]), int(records.ends[number])
            fields = int(records.fields[number])
            if not bytes(view[begin:end]).strip(b"\r\n"):
                kinds[number] = GAP
            elif fields != wanted:
                self._checks.report(self._source, offset + begin, ragged(fields, wanted))
                kinds[number] = SKIPPED
        return Spans(lengths, kinds)


def ragged(fields: int, wanted: int) -> str:
    """Say that a row has another number of fields than the header."""
    return f"a row of {fields} field{'s' if fields != 1 else ''} under a header of {wanted}"


class _LineCut:
    def __init__(self, source: SourceFile, checks: Checks) -> None:
        self._source, self._checks = source, checks

    def __call__(self, view: memoryview, offset: int, at_end: bool) -> Spans:
        buffer = np.frombuffer(view, np.uint8)
        ends = np.flatnonzero(buffer == _NEWLINE) + 1
        if at_end and len(buffer) and (not len(ends) or ends[-1] != len(buffer)):
            ends = np.append(ends, len(buffer))
        if not len(ends):
            return Spans(ends, np.empty(0, np.uint8))
        begins = np.concatenate(([0], ends[:-1]))
        kinds = np.full(len(ends), ROW, np.uint8)
        if self._checks.parse_json:
            suspects = list(range(len(ends)))
        else:
            last = np.maximum(ends - 2, begins)
            last = np.where(buffer[last] == _RETURN, np.maximum(last - 1, begins), last)
            odd = (buffer[begins] != _OPENING) | (buffer[last] != _CLOSING)
            suspects = np.flatnonzero(odd).tolist()
        for number in suspects:
            begin = int(begins[number])
            line = bytes(view[begin : int(ends[number])])
            problem = json_problem(line, parse=True)
            if problem == "":
                kinds[number] = GAP
            elif problem is not None:
                self._checks.report(self._source, offset + begin, problem)
                kinds[number] = SKIPPED
        return Spans(ends - begins, kinds)


class _ArrayCut:
    def __init__(self, source: SourceFile, checks: Checks) -> None:
        self._source, self._checks = source, checks
        self._rows = 0
        self._closed = False

    def __call__(self, view: memoryview, offset: int, at_end: bool) -> Spans:
        if self._closed:
            return self._after(view, offset, 0)
        objects = find_objects(np.frombuffer(view, np.uint8))
        lengths: list[int] = []
        kinds: list[int] = []
        done = 0
        for start, end in zip(objects.starts.tolist(), objects.ends.tolist(), strict=True):
            self._check_between(bytes(view[done:start]), offset + done, first=self._rows == 0)
            text = bytes(view[start:end])
            problem = json_problem(text, parse=self._checks.parse_json)
            if problem is not None:
                self._checks.report(self._source, offset + start, problem)
            lengths += (start - done, end - start)
            kinds += (GAP, ROW if problem is None else SKIPPED)
            done, self._rows = end, self._rows + 1
        if objects.closed_at is not None:
            self._closed = True
            rest = bytes(view[done : objects.closed_at - 1])
            if rest.strip(BLANKS):
                self._checks.report(self._source, offset + done, _between(rest))
            after = self._after(view, offset, objects.closed_at)
            lengths.append(objects.closed_at - done + int(after.lengths.sum()))
            kinds.append(GAP)
        elif at_end:
            raise TunebookError(
                f"{self._source.path}, line {line_at(self._source.path, offset + done)}: "
                f"the file ends after row {self._rows} with its array still open",
                fix="the file was cut short: make it again, or mend its end",
            )
        return Spans(np.array(lengths, np.int64), np.array(kinds, np.uint8))

    def _check_between(self, text: bytes, offset: int, *, first: bool) -> None:
        if text.strip(BLANKS) != (b"" if first else b","):
            self._checks.report(self._source, offset, _between(text))

    def _after(self, view: memoryview, offset: int, start: int) -> Spans:
        rest = bytes(view[start:])
        if rest.strip(BLANKS):
            raise TunebookError(
                f"{self._source.path}, line {line_at(self._source.path, offset + start)}: "
                "text after the end of the array",
                fix="keep one array, or one object a line in a .jsonl file",
            )
        return Spans(np.array([len(rest)], np.int64), np.array([GAP], np.uint8))


def _between(text: bytes) -> str:
    shown = text.strip(BLANKS)[:20].decode("utf-8", "replace")
    return f"is no list of JSON objects: {shown!r} stands between them" if shown else "a comma is missing"


# Records of a CSV file, found by the parity of the quotes before each newline; nothing is parsed.
#
# Exact for RFC 4180. A file that breaks it announces itself (a quote that opens inside a field, a lone
# carriage return) and is read by `csv_by_parser` instead.

_COMMA = 44

_GATHER_BELOW = 12
"""Bytes outside quotes are collected where they are less than this fraction; both ways find the same."""


class Records(NamedTuple):
    """What lies in a buffer that begins at the start of a record."""

    ends: npt.NDArray[np.int64]
    """Offset after the newline of each whole record."""
    fields: npt.NDArray[np.int64]
    """Fields of each."""
    broken_at: int | None
    """Offset of the first byte that RFC 4180 does not allow; what is said of records after it is wrong."""


def find_records(buffer: npt.NDArray[np.uint8], *, at_end: bool) -> Records:
    """Find the records of `buffer`.

    Args:
        buffer: Bytes of the file from the start of a record.
        at_end: The file ends with the buffer: what follows the last newline is a record too.

    A blank line is a record of one field and of at most two bytes.
    """
    quotes = np.flatnonzero(buffer == _QUOTE)
    places, found = _outside_quotes(buffer, quotes)
    broken_at = min(
        (
            at
            for at in (_first_stray_quote(buffer, quotes[::2]), _first_lone_return(buffer, places, found))
            if at is not None
        ),
        default=None,
    )
    newlines = np.flatnonzero(found == _NEWLINE)
    commas = np.flatnonzero(found == _COMMA)
    ends = places[newlines] + 1
    commas_before = np.searchsorted(commas, newlines)
    if at_end and len(buffer) and (not len(ends) or ends[-1] != len(buffer)):
        if len(quotes) % 2 and broken_at is None:
            broken_at = int(quotes[-1])
        ends = np.append(ends, len(buffer))
        commas_before = np.append(commas_before, len(commas))
    return Records(ends, np.diff(commas_before, prepend=0) + 1, broken_at)


def _outside_quotes(
    buffer: npt.NDArray[np.uint8], quotes: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.uint8]]:
    """Offsets of all newlines and commas outside quotes, and perhaps of more, and what stands there."""
    # Before the first quote, from each second one to the next, and from the last one on if it closes.
    begins = np.concatenate(([0], quotes[1::2] + 1))
    ends = quotes[::2] if len(quotes) % 2 else np.append(quotes[::2], len(buffer))
    lengths = ends - begins
    bare = int(lengths.sum())
    if bare * _GATHER_BELOW < len(buffer):
        # Long texts are quoted and little lies between them: look at that alone.
        shift = begins - (np.cumsum(lengths) - lengths)
        places = np.arange(bare) + np.repeat(shift, lengths)
        return places, buffer[places]
    special = buffer == _NEWLINE
    special |= buffer == _COMMA
    special |= buffer == _RETURN
    places = np.flatnonzero(special)
    if len(quotes):
        places = places[np.searchsorted(quotes, places) & 1 == 0]
    return places, buffer[places]


def _first_stray_quote(buffer: npt.NDArray[np.uint8], opening: npt.NDArray[np.int64]) -> int | None:
    """A quote opens a field where a field begins, or continues one as the second of a doubled quote."""
    before = buffer[opening - 1]
    allowed = (before == _COMMA) | (before == _NEWLINE) | (before == _QUOTE) | (opening == 0)
    strays = np.flatnonzero(~allowed)
    return int(opening[strays[0]]) if len(strays) else None


def _first_lone_return(
    buffer: npt.NDArray[np.uint8], places: npt.NDArray[np.int64], found: npt.NDArray[np.uint8]
) -> int | None:
    returns = places[found == _RETURN]
    # At the very end of the buffer the next byte is not known yet, and the record not whole.
    known = returns[returns + 1 < len(buffer)]
    lone = known[buffer[known + 1] != _NEWLINE]
    return int(lone[0]) if len(lone) else None
