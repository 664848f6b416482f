"""The row index of a split: how long each span of the sources is, which spans are rows, where each row goes.

A span is a run of bytes: a row, or what is between rows. All spans together are the whole file. The index
is kept on disk, so 100 million rows need no memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

GAP, ROW, SKIPPED = 0, 1, 2
"""Kinds of span: what is no row (a header, a blank line, a comma), a row, a bad row that is left out."""

MAX_SPAN_BYTES = 2**32 - 1

_READ_NUMBERS = 1 << 16


class Spans(NamedTuple):
    """Spans from the front of a buffer; the rest of it belongs to a row that is not whole yet."""

    lengths: npt.NDArray[Any]
    kinds: npt.NDArray[np.uint8]


FindRows = Callable[[memoryview, int, bool], Spans]
"""Finds the spans at the front of a buffer, given its offset in the file and whether that ends with it."""


class Block(NamedTuple):
    """A stretch of a file as spans that leave nothing out."""

    data: memoryview
    """Valid until the next block is asked for."""
    lengths: npt.NDArray[np.uint32]
    """Bytes of each span; their sum is `len(data)`. A row's span includes its line ending."""
    kinds: npt.NDArray[np.uint8]

    def rows(self) -> Iterator[memoryview]:
        """Yield the bytes of each row."""
        ends = np.cumsum(self.lengths, dtype=np.int64)
        chosen = self.kinds == ROW
        for end, length in zip(ends[chosen].tolist(), self.lengths[chosen].tolist(), strict=True):
            yield self.data[end - length : end]


@dataclass(frozen=True, slots=True, kw_only=True)
class ArrayFile:
    """An array of numbers on disk, read in blocks."""

    path: Path
    dtype: str
    """numpy's name of the little-endian type, e.g. `<u4`."""

    def blocks(self) -> Iterator[npt.NDArray[Any]]:
        """Yield the numbers in order, some at a time."""
        with self.path.open("rb") as stream:
            while len(block := np.fromfile(stream, self.dtype, _READ_NUMBERS)):
                yield block

    def total(self) -> int:
        """The sum of the numbers."""
        return sum(int(block.sum(dtype=np.int64)) for block in self.blocks())

    def __len__(self) -> int:
        return self.path.stat().st_size // np.dtype(self.dtype).itemsize


class ArrayWriter:
    """Appends to array files of equal length; a context manager."""

    def __init__(self, *arrays: ArrayFile) -> None:
        self._arrays = arrays
        self._stack = ExitStack()

    def __enter__(self) -> ArrayWriter:
        self._streams = [self._stack.enter_context(array.path.open("wb")) for array in self._arrays]
        return self

    def __exit__(self, *exception: object) -> None:
        self._stack.close()

    def append(self, *values: npt.NDArray[Any]) -> None:
        """Append one array to each file, in the order of the files."""
        for stream, array, numbers in zip(self._streams, self._arrays, values, strict=True):
            stream.write(np.ascontiguousarray(numbers, dtype=array.dtype).data)


@dataclass(frozen=True, slots=True, kw_only=True)
class RowIndex:
    """The array files of one split, in one folder: what the scan finds, and what the plan adds."""

    folder: Path

    @property
    def lengths(self) -> ArrayFile:
        """Bytes of each span."""
        return ArrayFile(path=self.folder / "lengths", dtype="<u4")

    @property
    def kinds(self) -> ArrayFile:
        """Kind of each span."""
        return ArrayFile(path=self.folder / "kinds", dtype="u1")

    @property
    def groups(self) -> ArrayFile:
        """Group of each row."""
        return ArrayFile(path=self.folder / "groups", dtype="<u4")

    @property
    def tokens(self) -> ArrayFile:
        """Tokens of each row."""
        return ArrayFile(path=self.folder / "tokens", dtype="<u4")

    @property
    def destinations(self) -> ArrayFile:
        """Of each span its node, or `assign.EVAL` or `assign.NO_ROW`."""
        return ArrayFile(path=self.folder / "destinations", dtype="<u2")

    def row_bytes(self) -> Iterator[npt.NDArray[Any]]:
        """Yield the bytes of each row, in blocks."""
        for lengths, kinds in zip(self.lengths.blocks(), self.kinds.blocks(), strict=True):
            yield lengths[kinds == ROW]

    def row_destinations(self) -> Iterator[npt.NDArray[np.uint16]]:
        """Yield the destination of each row, in blocks."""
        for destinations, kinds in zip(self.destinations.blocks(), self.kinds.blocks(), strict=True):
            yield destinations[kinds == ROW]


def keep_freed_memory() -> None:
    """Let glibc keep the memory of freed arrays: handing it back each time takes half the time of a scan.

    glibc raises its thresholds for that (`M_MMAP_THRESHOLD`, see mallopt(3)) when a block of up to 32 MB is
    freed. The block is never touched, so it costs no memory. Elsewhere this does nothing.
    """
    np.empty(20 << 20, np.uint8)
