"""Buffers cut into spans, for each format of text; each row is checked on the way."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from tunebook.errors import TunebookError
from tunebook.splits.checks import BLANKS, Checks, json_problem
from tunebook.splits.csv_records import find_records
from tunebook.splits.json_records import find_objects
from tunebook.splits.sources import SourceFile, line_at
from tunebook.splits.spans import GAP, ROW, SKIPPED

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
