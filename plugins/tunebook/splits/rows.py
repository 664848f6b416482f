"""A source file as blocks of spans, each row checked; a bad row stops the reading, or is left out."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import orjson

from tunebook.errors import TunebookError
from tunebook.splits.csv_by_parser import parse_records
from tunebook.splits.csv_records import find_records
from tunebook.splits.json_records import find_objects
from tunebook.splits.sources import MAX_RECORD_BYTES, SourceFile, line_at
from tunebook.splits.spans import GAP, MAX_SPAN_BYTES, ROW, SKIPPED, Block

_BLOCK_BYTES = 1 << 21
_BLANKS = b" \t\r\n"
_NEWLINE, _RETURN, _OPENING, _CLOSING = 10, 13, ord("{"), ord("}")
_MAX_LISTED = 1000


class BadRow(NamedTuple):
    """A row that is left out."""

    file: str
    line: int
    """From 1, where the row begins."""
    problem: str


@dataclass(slots=True, kw_only=True)
class Checks:
    """How rows are checked, and what was found."""

    parse_json: bool
    """Read each JSON row, rather than look at its first and last brace."""
    skip_bad: bool
    """Leave bad rows out and list them; else the first one ends the reading."""
    bad: list[BadRow] = field(default_factory=list)
    """The first thousand."""
    n_bad: int = 0
    slow: list[str] = field(default_factory=list)
    """Files that had to be read by the csv module, each with the reason."""

    def report(self, source: SourceFile, offset: int, problem: str) -> None:
        """Note a bad row, or raise.

        Raises:
            TunebookError: Bad rows are not to be skipped.
        """
        line = line_at(source.path, offset) if len(self.bad) < _MAX_LISTED else 0
        if not self.skip_bad:
            raise TunebookError(
                f"{source.path}, line {line}: {problem}",
                fix="mend or delete the row, or leave such rows out with --skip-bad",
            )
        self.n_bad += 1
        if len(self.bad) < _MAX_LISTED:
            self.bad.append(BadRow(str(source.path), line, problem))


class _Spans(NamedTuple):
    lengths: npt.NDArray[Any]
    kinds: npt.NDArray[np.uint8]


_Cut = Callable[[memoryview, int, bool], _Spans]
"""Cut what it can off the front of a buffer, given the buffer's offset in the file and whether it ends it."""


class NotRfc4180(Exception):  # noqa: N818 - a turn in the road, not a fault
    """The parity of quotes cannot be trusted; holds the offset of the reason."""


def read_rows(source: SourceFile, checks: Checks) -> Iterator[Block]:
    """Yield the whole file as blocks.

    Memory is a few times 2 MB, more only for a longer row.

    Raises:
        TunebookError: A row is bad and is not to be skipped, or the file is not what its name says.
    """
    if source.start:
        with source.path.open("rb") as stream:
            yield gap_block(stream.read(source.start))
    done = source.start
    try:
        for block in read_from(source, checks, done):
            done += len(block.data)
            yield block
    except NotRfc4180 as reason:
        line = line_at(source.path, reason.args[0])
        checks.slow.append(
            f"{source.path}, line {line}: a quote inside an unquoted field, or a lone carriage return; "
            "the rest is read by the csv module, which takes ten times as long"
        )
        yield from _csv_by_parser(source, checks, done)


def read_from(source: SourceFile, checks: Checks, start: int, stop: int | None = None) -> Iterator[Block]:
    """Yield blocks from the byte `start`, where a row begins, up to the last row that begins before `stop`.

    Raises:
        NotRfc4180: The file is CSV that has to be read by the csv module.
        TunebookError: As `read_rows`.
    """
    cut: _Cut
    if source.format == "csv":
        cut = _CsvCut(source, checks)
    elif source.format == "jsonl":
        cut = _LineCut(source, checks)
    else:
        cut = _ArrayCut(source, checks)
    return _windows(source, cut, start, stop)


def _windows(source: SourceFile, cut: _Cut, start: int, stop: int | None) -> Iterator[Block]:
    buffer = bytearray(_BLOCK_BYTES)
    filled, offset = 0, start
    with source.path.open("rb", buffering=0) as stream:
        stream.seek(start)
        at_end = False
        while not at_end or filled:
            while not at_end and filled < len(buffer):
                read = stream.readinto(memoryview(buffer)[filled:])
                at_end, filled = not read, filled + (read or 0)
            view = memoryview(buffer)[:filled]
            spans = cut(view, offset, at_end)
            used = int(spans.lengths.sum(dtype=np.int64))
            if stop is not None and offset + used >= stop:
                kept = int(np.searchsorted(_begins(spans.lengths), stop - offset))
                spans = _Spans(spans.lengths[:kept], spans.kinds[:kept])
                used = int(spans.lengths.sum(dtype=np.int64))
                yield _block(view[:used], spans)
                return
            if used:
                yield _block(view[:used], spans)
            elif filled == len(buffer):
                if filled > MAX_RECORD_BYTES:
                    raise TunebookError(
                        f"{source.path}, line {line_at(source.path, offset)}: a row of more than 1 GiB "
                        "begins here",
                        fix="look for a quote or a bracket that is never closed",
                    )
                buffer = bytearray(2 * len(buffer))
                buffer[:filled] = view
                continue
            buffer[: filled - used] = view[used:]
            filled, offset = filled - used, offset + used


def _begins(lengths: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    begins: npt.NDArray[np.int64] = np.cumsum(lengths, dtype=np.int64) - lengths
    return begins


def _block(data: memoryview, spans: _Spans) -> Block:
    if len(spans.lengths) and int(spans.lengths.max()) > MAX_SPAN_BYTES:
        raise ValueError("a span of more than 4 GiB")
    return Block(data, spans.lengths.astype(np.uint32), spans.kinds)


def gap_block(data: bytes) -> Block:
    """Return bytes that hold no row as a block."""
    return Block(memoryview(data), np.array([len(data)], np.uint32), np.array([GAP], np.uint8))


class _CsvCut:
    def __init__(self, source: SourceFile, checks: Checks) -> None:
        self._source, self._checks = source, checks

    def __call__(self, view: memoryview, offset: int, at_end: bool) -> _Spans:
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
                self._checks.report(self._source, offset + begin, _ragged(fields, wanted))
                kinds[number] = SKIPPED
        return _Spans(lengths, kinds)


def _ragged(fields: int, wanted: int) -> str:
    return f"a row of {fields} field{'s' if fields != 1 else ''} under a header of {wanted}"


def _csv_by_parser(source: SourceFile, checks: Checks, start: int) -> Iterator[Block]:
    offset, wanted = start, len(source.columns)
    lengths: list[int] = []
    kinds: list[int] = []
    with source.path.open("rb") as stream:
        stream.seek(start)

        def block() -> Block:
            data = stream.read(sum(lengths))
            made = Block(memoryview(data), np.array(lengths, np.uint32), np.array(kinds, np.uint8))
            lengths.clear()
            kinds.clear()
            return made

        for record in parse_records(source.path, start):
            if record is None:
                raise TunebookError(
                    f"{source.path}, line {line_at(source.path, offset)}: a quote is opened and never closed",
                    fix="mend the row",
                )
            kind = ROW if record.fields == wanted else SKIPPED if record.fields else GAP
            if kind == SKIPPED:
                checks.report(source, offset, _ragged(record.fields, wanted))
            lengths.append(record.length)
            kinds.append(kind)
            offset += record.length
            if sum(lengths[-1:]) > _BLOCK_BYTES or len(lengths) >= 1024:
                yield block()
        yield block()


class _LineCut:
    def __init__(self, source: SourceFile, checks: Checks) -> None:
        self._source, self._checks = source, checks

    def __call__(self, view: memoryview, offset: int, at_end: bool) -> _Spans:
        buffer = np.frombuffer(view, np.uint8)
        ends = np.flatnonzero(buffer == _NEWLINE) + 1
        if at_end and len(buffer) and (not len(ends) or ends[-1] != len(buffer)):
            ends = np.append(ends, len(buffer))
        if not len(ends):
            return _Spans(ends, np.empty(0, np.uint8))
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
        return _Spans(ends - begins, kinds)


def json_problem(text: bytes, *, parse: bool) -> str | None:
    """Return what is wrong with a JSON row; None where nothing is, "" where there is nothing at all.

    Args:
        text: The row, with or without its line ending.
        parse: Read it, rather than look at its first and last brace.
    """
    text = text.strip(_BLANKS)
    if not text:
        return ""
    if text[:1] != b"{":
        return f"is no JSON object: it begins with {text[:20].decode('utf-8', 'replace')!r}"
    if not parse:
        return None if text[-1:] == b"}" else "is no JSON object: it does not end with }"
    try:
        orjson.loads(text)
    except orjson.JSONDecodeError:
        # Python's reader takes more: NaN, lone surrogates. It also words the fault by column.
        try:
            json.loads(text)
        except ValueError as err:
            return f"is no JSON: {err}"
    return None


class _ArrayCut:
    def __init__(self, source: SourceFile, checks: Checks) -> None:
        self._source, self._checks = source, checks
        self._rows = 0
        self._closed = False

    def __call__(self, view: memoryview, offset: int, at_end: bool) -> _Spans:
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
            if rest.strip(_BLANKS):
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
        return _Spans(np.array(lengths, np.int64), np.array(kinds, np.uint8))

    def _check_between(self, text: bytes, offset: int, *, first: bool) -> None:
        if text.strip(_BLANKS) != (b"" if first else b","):
            self._checks.report(self._source, offset, _between(text))

    def _after(self, view: memoryview, offset: int, start: int) -> _Spans:
        rest = bytes(view[start:])
        if rest.strip(_BLANKS):
            raise TunebookError(
                f"{self._source.path}, line {line_at(self._source.path, offset + start)}: "
                "text after the end of the array",
                fix="keep one array, or one object a line in a .jsonl file",
            )
        return _Spans(np.array([len(rest)], np.int64), np.array([GAP], np.uint8))


def _between(text: bytes) -> str:
    shown = text.strip(_BLANKS)[:20].decode("utf-8", "replace")
    return f"is no list of JSON objects: {shown!r} stands between them" if shown else "a comma is missing"
