"""A file as a run of spans, rows and what lies between them, which together are the whole file."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

GAP, ROW, SKIPPED = 0, 1, 2
"""Kinds of span: what is no row (a header, a blank line, a comma), a row, a bad row that is left out."""

MAX_SPAN_BYTES = 2**32 - 1

_TAPE_BLOCK = 1 << 16


class Block(NamedTuple):
    """A stretch of a file, cut into spans that leave nothing out."""

    data: memoryview
    """Valid until the next block is asked for."""
    lengths: npt.NDArray[np.uint32]
    """Bytes of each span; their sum is `len(data)`. A row's span holds its line ending."""
    kinds: npt.NDArray[np.uint8]

    def rows(self) -> Iterator[memoryview]:
        """Yield the bytes of each row."""
        ends = np.cumsum(self.lengths, dtype=np.int64)
        chosen = self.kinds == ROW
        for end, length in zip(ends[chosen].tolist(), self.lengths[chosen].tolist(), strict=True):
            yield self.data[end - length : end]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tape:
    """One number a span, or a row, on disk: a plan of 100 million rows needs no memory."""

    path: Path
    dtype: str
    """numpy's name of the little-endian type, e.g. `<u4`."""

    def blocks(self, size: int = _TAPE_BLOCK) -> Iterator[npt.NDArray[Any]]:
        """Yield the numbers in order, `size` at a time, the last time fewer."""
        with self.path.open("rb") as stream:
            while len(block := np.fromfile(stream, self.dtype, size)):
                yield block

    def total(self) -> int:
        """The sum of the numbers."""
        return sum(int(block.sum(dtype=np.int64)) for block in self.blocks())

    def __len__(self) -> int:
        return self.path.stat().st_size // np.dtype(self.dtype).itemsize


class TapeWriter:
    """Appends to tapes that are written together; a context manager."""

    def __init__(self, *tapes: Tape) -> None:
        self._tapes = tapes
        self._stack = ExitStack()

    def __enter__(self) -> TapeWriter:
        self._streams = [self._stack.enter_context(tape.path.open("wb")) for tape in self._tapes]
        return self

    def __exit__(self, *exception: object) -> None:
        self._stack.close()

    def append(self, *values: npt.NDArray[Any]) -> None:
        """Append one array to each tape, in the order of the tapes."""
        for stream, tape, array in zip(self._streams, self._tapes, values, strict=True):
            stream.write(np.ascontiguousarray(array, dtype=tape.dtype).data)


# The tapes of one split: what a scan leaves of the sources, and what the plan adds.


@dataclass(frozen=True, slots=True, kw_only=True)
class Tapes:
    """Numbers of each span and of each row, in one folder."""

    folder: Path

    @property
    def lengths(self) -> Tape:
        """Bytes of each span."""
        return Tape(path=self.folder / "lengths", dtype="<u4")

    @property
    def kinds(self) -> Tape:
        """Kind of each span."""
        return Tape(path=self.folder / "kinds", dtype="u1")

    @property
    def groups(self) -> Tape:
        """Group of each row."""
        return Tape(path=self.folder / "groups", dtype="<u4")

    @property
    def tokens(self) -> Tape:
        """Tokens of each row."""
        return Tape(path=self.folder / "tokens", dtype="<u4")

    @property
    def destinations(self) -> Tape:
        """Of each span: its node, or what `deal` names besides."""
        return Tape(path=self.folder / "destinations", dtype="<u2")

    def row_bytes(self) -> Iterator[npt.NDArray[Any]]:
        """Yield the bytes of each row, in blocks."""
        for lengths, kinds in zip(self.lengths.blocks(), self.kinds.blocks(), strict=True):
            yield lengths[kinds == ROW]

    def row_destinations(self) -> Iterator[npt.NDArray[np.uint16]]:
        """Yield the destination of each row, in blocks."""
        for destinations, kinds in zip(self.destinations.blocks(), self.kinds.blocks(), strict=True):
            yield destinations[kinds == ROW]


# One setting of the C library, without which half the time of a scan goes into page faults.

_BYTES = 20 << 20


def keep_freed_memory() -> None:
    """Let glibc keep the memory of freed arrays instead of handing it back to the system each time.

    glibc raises its thresholds for that (`M_MMAP_THRESHOLD`, see mallopt(3)) when a block of up to 32 MB is
    freed. The block is never touched, so it costs no memory. Elsewhere this does nothing.
    """
    np.empty(_BYTES, np.uint8)
