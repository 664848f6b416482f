"""Rows copied to their parts as raw bytes: nothing is parsed, quoted or inferred."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from tunebook.errors import TunebookError
from tunebook.splits.assign import EVAL, NO_ROW
from tunebook.splits.parts import Part
from tunebook.splits.sources import SourceFile, check_unchanged
from tunebook.splits.spans import Tapes

OnBytes = Callable[[int], None]


def copy_rows(
    sources: Sequence[SourceFile],
    tapes: Tapes,
    parts: Sequence[Part],
    *,
    joint: Part | None,
    on_bytes: OnBytes,
) -> None:
    """Append each row to the part it is dealt to, in the order of the source.

    Args:
        sources: As scanned.
        tapes: With `destinations`.
        parts: By node, and last the hold-out where there is one.
        joint: Gets every row that is not held out.
        on_bytes: For a progress bar.

    Raises:
        TunebookError: A source was changed since the scan.
    """
    for chunk in read_chunks(sources, tapes):
        targets = np.where(chunk.destinations == EVAL, len(parts) - 1, chunk.destinations)
        for target, chosen in by_target(targets):
            parts[target].write(slices(chunk, chosen))
        write_joint(chunk, joint)
        on_bytes(len(chunk.data))


def write_joint(chunk: Chunk, joint: Part | None) -> None:
    """Copy all rows of a chunk but the hold-out's, where one job of all nodes needs them together."""
    if joint is not None:
        kept = np.flatnonzero(chunk.destinations != EVAL)
        if len(kept):
            joint.write(slices(chunk, kept))


def by_target(targets: npt.NDArray[np.integer]) -> Iterator[tuple[int, npt.NDArray[np.int64]]]:
    """Yield each target that occurs with the places where it does, in order."""
    order = np.argsort(targets, kind="stable")
    cuts = np.flatnonzero(np.diff(targets[order])) + 1
    for places in np.split(order, cuts):
        if len(places):
            yield int(targets[places[0]]), places


def slices(chunk: Chunk, chosen: npt.NDArray[np.int64]) -> list[bytes]:
    """Return the bytes of those rows."""
    data = chunk.data
    begins, ends = chunk.begins[chosen].tolist(), chunk.ends[chosen].tolist()
    return [data[begin:end] for begin, end in zip(begins, ends, strict=True)]


# The sources again, cut by the tapes instead of searched: rows and where they go, a few MB at a time.

_CHUNK_BYTES = 1 << 21


class Chunk(NamedTuple):
    """Rows that stand behind each other in a source; what is no row is left out."""

    data: bytes
    begins: npt.NDArray[np.int64]
    """Offset of each row in `data`."""
    ends: npt.NDArray[np.int64]
    destinations: npt.NDArray[np.uint16]
    first_row: int
    """Number of the first row, counted over all sources from 0."""
    spans_done: int
    """Spans of the tapes up to the end of this chunk."""


def read_chunks(
    sources: Sequence[SourceFile], tapes: Tapes, spans_done: int = 0, spans_stop: int | None = None
) -> Iterator[Chunk]:
    """Yield the rows that the tapes name, in order, from span `spans_done` to before `spans_stop`.

    Raises:
        TunebookError: A source was changed.
    """
    spans = _Spans(tapes)
    skipped, row = spans.skip(spans_done)
    done = spans_done
    for source in sources:
        if skipped >= source.size:
            skipped -= source.size
            continue
        with source.path.open("rb", buffering=0) as stream:
            stream.seek(skipped)
            left, skipped = source.size - skipped, 0
            while left and done != spans_stop:
                lengths, destinations = spans.take(min(left, _CHUNK_BYTES))
                if spans_stop is not None:
                    lengths, destinations = lengths[: spans_stop - done], destinations[: spans_stop - done]
                ends = np.cumsum(lengths, dtype=np.int64)
                size = int(ends[-1]) if len(ends) else 0
                data = _read(stream, size)
                if not size or size > left or len(data) != size:
                    raise TunebookError(
                        f"{source.path}: was changed while it was being split", fix="split it again"
                    )
                left -= size
                done += len(lengths)
                rows = destinations != NO_ROW
                yield Chunk(data, (ends - lengths)[rows], ends[rows], destinations[rows], row, done)
                row += int(rows.sum())
        check_unchanged(source)


def _read(stream: Any, size: int) -> bytes:
    data: bytes = stream.read(size) or b""
    while len(data) < size and (more := stream.read(size - len(data))):
        data += more
    return data


class _Spans:
    """Spans taken off the tapes by their bytes."""

    def __init__(self, tapes: Tapes) -> None:
        self._blocks = zip(tapes.lengths.blocks(), tapes.destinations.blocks(), strict=True)
        self._lengths = np.empty(0, np.uint32)
        self._destinations = np.empty(0, np.uint16)

    def skip(self, count: int) -> tuple[int, int]:
        """Leave `count` spans out; return their bytes and how many of them are rows."""
        size = rows = 0
        while count:
            if not len(self._lengths) and not self._fill():
                break
            here = min(count, len(self._lengths))
            size += int(self._lengths[:here].sum(dtype=np.int64))
            rows += int((self._destinations[:here] != NO_ROW).sum())
            self._drop(here)
            count -= here
        return size, rows

    def take(self, wanted: int) -> tuple[npt.NDArray[np.uint32], npt.NDArray[np.uint16]]:
        """Return spans of at most `wanted` bytes, but at least one where there is any."""
        if not len(self._lengths):
            self._fill()
        ends = np.cumsum(self._lengths, dtype=np.int64)
        here = max(1, int(np.searchsorted(ends, wanted, side="right")))
        taken = self._lengths[:here], self._destinations[:here]
        self._drop(here)
        return taken

    def _fill(self) -> bool:
        block = next(self._blocks, None)
        if block is None:
            return False
        self._lengths, self._destinations = block
        return True

    def _drop(self, count: int) -> None:
        self._lengths, self._destinations = self._lengths[count:], self._destinations[count:]
