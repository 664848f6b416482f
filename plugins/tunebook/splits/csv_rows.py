"""Rows of a CSV file: found by the quotes before each newline, or by Python's csv module where that fails.

The fast way parses nothing and is exact for RFC 4180. A file that breaks it, by a quote inside an unquoted
field or a lone carriage return, is noticed, and the rest is read by the csv module: many times as slow.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
import numpy.typing as npt

from tunebook.errors import TunebookError
from tunebook.splits.checks import Checks
from tunebook.splits.index import GAP, ROW, SKIPPED, Block, FindRows, Spans
from tunebook.splits.sources import SourceFile, line_at

_COMMA, _NEWLINE, _RETURN, _QUOTE = map(ord, ',\n\r"')

_GATHER_BELOW = 12
"""Bytes outside quotes are collected where they are less than this fraction; both ways find the same."""

_BLOCK_BYTES = 1 << 21


class NotRfc4180(Exception):  # noqa: N818 - the slower reader takes over
    """The quotes of a CSV file cannot be counted on; holds the offset of the reason."""


def csv_finder(source: SourceFile, checks: Checks) -> FindRows:
    """Return what finds the rows of a CSV file and checks the number of their fields.

    It raises `NotRfc4180` where the file has to be read by `read_with_csv_module` instead.
    """
    wanted = len(source.columns)

    def find(view: memoryview, offset: int, at_end: bool) -> Spans:
        records = find_records(np.frombuffer(view, np.uint8), at_end=at_end)
        if records.broken_at is not None:
            raise NotRfc4180(offset + records.broken_at)
        begins = np.concatenate(([0], records.ends[:-1])) if len(records.ends) else records.ends
        lengths = records.ends - begins
        kinds = np.full(len(lengths), ROW, np.uint8)
        suspects = (records.fields != wanted) | (lengths <= 2)
        for number in np.flatnonzero(suspects).tolist():
            begin, end = int(begins[number]), int(records.ends[number])
            fields = int(records.fields[number])
            if not bytes(view[begin:end]).strip(b"\r\n"):
                kinds[number] = GAP
            elif fields != wanted:
                checks.report(source, offset + begin, _wrong_number_of_fields(fields, wanted))
                kinds[number] = SKIPPED
        return Spans(lengths, kinds)

    return find


class Records(NamedTuple):
    """What is in a buffer that begins at the start of a record."""

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
    broken = (_first_stray_quote(buffer, quotes[::2]), _first_lone_return(buffer, places, found))
    broken_at = min((at for at in broken if at is not None), default=None)
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
    """Offsets of all newlines and commas outside quotes, and perhaps of more, and what is there."""
    # Before the first quote, from each second one to the next, and from the last one on if it closes.
    begins = np.concatenate(([0], quotes[1::2] + 1))
    ends = quotes[::2] if len(quotes) % 2 else np.append(quotes[::2], len(buffer))
    lengths = ends - begins
    bare = int(lengths.sum())
    if bare * _GATHER_BELOW < len(buffer):
        # Long texts are quoted and little is between them: look only at that.
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


def _wrong_number_of_fields(fields: int, wanted: int) -> str:
    return f"a row of {fields} field{'s' if fields != 1 else ''} under a header of {wanted}"


def read_with_csv_module(source: SourceFile, checks: Checks, start: int) -> Iterator[Block]:
    """Yield blocks from the byte `start`, where a record begins, as Python's csv module sees them.

    Raises:
        TunebookError: A quote is never closed, or a row is bad and is not to be skipped.
    """
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
                    fix="close the quote",
                )
            kind = ROW if record.fields == wanted else SKIPPED if record.fields else GAP
            if kind == SKIPPED:
                checks.report(source, offset, _wrong_number_of_fields(record.fields, wanted))
            lengths.append(record.length)
            kinds.append(kind)
            offset += record.length
            if offset - stream.tell() > _BLOCK_BYTES:
                yield block()
        yield block()


# Two fields, which they are not inside a quote.
_SENTINEL = ["end", "of file"]
_ALL = -1


class ParsedRecord(NamedTuple):
    """One record of the file."""

    length: int
    """Bytes, its line ending included."""
    fields: int
    """0 for a blank line."""


def parse_records(path: Path, start: int) -> Iterator[ParsedRecord | None]:
    """Yield each record from the byte `start`, where one begins; None for a quote that is never closed."""
    # Python's limit of 131,072 characters a field is shorter than one long document.
    csv.field_size_limit(2**31 - 1)
    # As latin-1 a character is a byte, and all that CSV is made of is ASCII.
    with path.open(encoding="latin-1", newline="") as stream:
        stream.seek(start)
        taken = [0]
        done = 0
        for row in csv.reader(_lines(stream, taken)):
            if taken[0] == _ALL:
                if row != _SENTINEL:
                    yield None
                return
            yield ParsedRecord(taken[0] - done, len(row))
            done = taken[0]


def _lines(stream: IO[str], taken: list[int]) -> Iterator[str]:
    """Lines of the file, then one of our own: if it comes back with more, it was inside an open quote.

    `taken[0]` is the number of bytes handed out, `_ALL` once our own line is.
    """
    for line in stream:
        taken[0] += len(line)
        yield line
    taken[0] = _ALL
    yield ",".join(_SENTINEL)
