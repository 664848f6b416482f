"""A text file as blocks of spans, read in memory that does not grow with it; each row is checked."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from tunebook.errors import TunebookError
from tunebook.splits.checks import Checks
from tunebook.splits.csv_rows import NotRfc4180, csv_finder, read_with_csv_module
from tunebook.splits.index import GAP, MAX_SPAN_BYTES, Block, FindRows, Spans
from tunebook.splits.json_rows import ArrayFinder, line_finder
from tunebook.splits.sources import MAX_RECORD_BYTES, SourceFile, line_at

_BLOCK_BYTES = 1 << 21


def read_rows(source: SourceFile, checks: Checks) -> Iterator[Block]:
    """Yield the whole file as blocks.

    Memory is a few times 2 MB, more only for a longer row.

    Raises:
        TunebookError: A row is bad and is not to be skipped, or the file is not what its name says.
    """
    if source.start:
        yield header_block(source)
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
        yield from read_with_csv_module(source, checks, done)


def header_block(source: SourceFile) -> Block:
    """Return what comes before the first row as a block without rows."""
    with source.path.open("rb") as stream:
        data = stream.read(source.start)
    return Block(memoryview(data), np.array([len(data)], np.uint32), np.array([GAP], np.uint8))


def read_from(source: SourceFile, checks: Checks, start: int, stop: int | None = None) -> Iterator[Block]:
    """Yield blocks from the byte `start`, where a row begins, up to the last row that begins before `stop`.

    Raises:
        NotRfc4180: The file is CSV that has to be read by the csv module.
        TunebookError: As `read_rows`.
    """
    find = _row_finder(source, checks)
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
            spans = find(view, offset, at_end)
            used = int(spans.lengths.sum(dtype=np.int64))
            if stop is not None and offset + used >= stop:
                begins = np.cumsum(spans.lengths, dtype=np.int64) - spans.lengths
                kept = int(np.searchsorted(begins, stop - offset))
                spans = Spans(spans.lengths[:kept], spans.kinds[:kept])
                yield _block(view[: int(spans.lengths.sum(dtype=np.int64))], spans)
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


def _row_finder(source: SourceFile, checks: Checks) -> FindRows:
    if source.format == "csv":
        return csv_finder(source, checks)
    if source.format == "jsonl":
        return line_finder(source, checks)
    return ArrayFinder(source, checks)


def _block(data: memoryview, spans: Spans) -> Block:
    if len(spans.lengths) and int(spans.lengths.max()) > MAX_SPAN_BYTES:
        raise ValueError("a span of more than 4 GiB")
    return Block(data, spans.lengths.astype(np.uint32), spans.kinds)
