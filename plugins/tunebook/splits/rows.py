"""A source file as blocks of spans, read in memory that does not grow with it."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from tunebook.errors import TunebookError
from tunebook.splits.checks import Checks
from tunebook.splits.record_ends import Cut, NotRfc4180, Spans, cut_for, ragged
from tunebook.splits.sources import MAX_RECORD_BYTES, SourceFile, line_at
from tunebook.splits.spans import GAP, MAX_SPAN_BYTES, ROW, SKIPPED, Block

_BLOCK_BYTES = 1 << 21


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
            "the rest is read by the csv module, which takes many times as long"
        )
        yield from _csv_by_parser(source, checks, done)


def read_from(source: SourceFile, checks: Checks, start: int, stop: int | None = None) -> Iterator[Block]:
    """Yield blocks from the byte `start`, where a row begins, up to the last row that begins before `stop`.

    Raises:
        NotRfc4180: The file is CSV that has to be read by the csv module.
        TunebookError: As `read_rows`.
    """
    return _windows(source, cut_for(source, checks), start, stop)


def _windows(source: SourceFile, cut: Cut, start: int, stop: int | None) -> Iterator[Block]:
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
                spans = Spans(spans.lengths[:kept], spans.kinds[:kept])
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


def _block(data: memoryview, spans: Spans) -> Block:
    if len(spans.lengths) and int(spans.lengths.max()) > MAX_SPAN_BYTES:
        raise ValueError("a span of more than 4 GiB")
    return Block(data, spans.lengths.astype(np.uint32), spans.kinds)


def gap_block(data: bytes) -> Block:
    """Return bytes that hold no row as a block."""
    return Block(memoryview(data), np.array([len(data)], np.uint32), np.array([GAP], np.uint8))


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
                checks.report(source, offset, ragged(record.fields, wanted))
            lengths.append(record.length)
            kinds.append(kind)
            offset += record.length
            if offset - stream.tell() > _BLOCK_BYTES:
                yield block()
        yield block()


# Records of a CSV file that breaks RFC 4180, as Python's csv module sees them: right, and far slower.

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
        reader = csv.reader(_lines(stream, taken))
        done = 0
        for row in reader:
            if taken[0] == _ALL:
                if row != _SENTINEL:
                    yield None
                return
            yield ParsedRecord(taken[0] - done, len(row))
            done = taken[0]


def _lines(stream: IO[str], taken: list[int]) -> Iterator[str]:
    """Lines of the file, then one of our own: unless it comes back alone, it was inside an open quote.

    `taken[0]` is the number of bytes handed out, `_ALL` once our own line is.
    """
    for line in stream:
        taken[0] += len(line)
        yield line
    taken[0] = _ALL
    yield ",".join(_SENTINEL)
