"""Rows of text files copied to their parts as raw bytes: nothing is parsed, quoted or inferred."""

from __future__ import annotations

import os
import resource
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
import numpy.typing as npt
import xxhash

from tunebook.errors import TunebookError
from tunebook.splits.assign import EVAL, NO_ROW
from tunebook.splits.index import RowIndex
from tunebook.splits.plan import PartPlan, SplitOptions
from tunebook.splits.sources import OnBytes, SourceFile, check_unchanged

_READ_BYTES = 1 << 20
_BLOCK_BYTES = 1 << 21


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """Functions that show how a split goes."""

    stage: Callable[[str, int], None] = lambda _name, _total: None
    """Called with a stage's name and its bytes when it begins."""
    on_bytes: OnBytes = lambda _: None
    say: Callable[[str], None] = lambda _: None
    """Called with a sentence for the user."""


NO_PROGRESS = Progress()
"""Shows nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WriteJob:
    """What the parts are made of, and where they go."""

    sources: Sequence[SourceFile]
    """As scanned."""
    index: RowIndex
    """With `destinations`."""
    options: SplitOptions
    plans: Sequence[PartPlan]
    """By node, and last the hold-out where there is one; like `paths`."""
    paths: Sequence[Path]
    joint: Path | None
    """File for every row that is not held out, where one is wanted."""
    memory: int
    """Bytes that shuffling may take."""
    progress: Progress

    @property
    def bytes(self) -> int:
        """Of all rows."""
        return sum(plan.bytes for plan in self.plans)


class Written(NamedTuple):
    """A file that is finished."""

    bytes: int
    digest: str
    """xxh3-128 in hexadecimal."""


class WrittenParts(NamedTuple):
    """Everything that was written, in the order of `WriteJob.paths`."""

    parts: list[Written]
    joint: Written | None


class _Layout(NamedTuple):
    """What comes before, between and after the rows of a part."""

    prefix: bytes
    separator: bytes
    """Between rows that have no line ending of their own."""
    suffix: bytes
    newline: bytes | None
    """Set where rows are lines: put after a row that has no line ending, if another one follows."""


def _layout_of(source: SourceFile) -> _Layout:
    if source.format == "json":
        return _Layout(source.prefix + b"[\n", b",\n", b"\n]\n", None)
    return _Layout(source.prefix, b"", b"", newline_of(source))


def newline_of(source: SourceFile) -> bytes | None:
    """Return the line ending of a file whose rows are lines; None for another."""
    if source.format == "json":
        return None
    return b"\r\n" if source.prefix.endswith(b"\r\n") else b"\n"


class PartWriter:
    """A file of rows of a source, hashed as it is written; a context manager.

    Args:
        path: Made anew, like its folder.
        source: Decides what comes before, between and after the rows.
    """

    def __init__(self, path: Path, source: SourceFile) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._layout = _layout_of(source)
        self._hash = xxhash.xxh3_128()
        self._bytes = 0
        self._begun = self._open_line = False
        self._stream: IO[bytes] = path.open("wb")
        self._put(self._layout.prefix)

    def __enter__(self) -> PartWriter:
        return self

    def __exit__(self, *exception: object) -> None:
        self._stream.close()

    def write(self, rows: Sequence[bytes]) -> None:
        """Append rows; of those with line endings only the last may lack one."""
        if self._layout.newline is None:
            if self._begun:
                self._put(self._layout.separator)
        else:
            if self._open_line:
                self._put(self._layout.newline)
            self._open_line = not rows[-1].endswith((b"\n", b"\r"))
        self._put(self._layout.separator.join(rows))
        self._begun = True

    def extend(self, piece: Path) -> None:
        """Append a file of rows that are lines; only the last piece may end in a row without line ending."""
        with piece.open("rb") as stream:
            while data := stream.read(_READ_BYTES):
                self._put(data)

    def finish(self) -> Written:
        """Write the end and put the file on disk."""
        self._put(self._layout.suffix)
        self._stream.flush()
        os.fsync(self._stream.fileno())
        return Written(self._bytes, self._hash.hexdigest())

    def _put(self, data: bytes) -> None:
        self._stream.write(data)
        self._hash.update(data)
        self._bytes += len(data)


def write_in_order(job: WriteJob) -> WrittenParts:
    """Write each part in the order of the source.

    Raises:
        TunebookError: A source was changed since the scan, or the system allows too few open files.
    """
    job.progress.stage("writing", job.bytes)
    allow_open_files(len(job.paths) + 1)
    with ExitStack() as stack:
        parts = [stack.enter_context(PartWriter(path, job.sources[0])) for path in job.paths]
        joint = open_joint(job, stack)
        for block in read_planned(job.sources, job.index):
            for part, chosen in by_target(block.parts(len(parts))):
                parts[part].write(block.slices(chosen))
            write_joint(block, joint)
            job.progress.on_bytes(len(block.data))
        return WrittenParts([part.finish() for part in parts], joint.finish() if joint else None)


def allow_open_files(count: int) -> None:
    """Raise this process's own limit of open files, where it is lower.

    Raises:
        TunebookError: The system does not allow as many.
    """
    wanted = count + 64
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft >= wanted or soft == resource.RLIM_INFINITY:
        return
    if hard != resource.RLIM_INFINITY and hard < wanted:
        raise TunebookError(
            f"this split writes {count} files at once, and the system allows {hard}",
            fix="give it more --memory, split into fewer nodes, or raise `ulimit -n`",
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def open_joint(job: WriteJob, stack: ExitStack) -> PartWriter | None:
    """Open the file of all rows but the hold-out's, where one job of all nodes needs them together."""
    return stack.enter_context(PartWriter(job.joint, job.sources[0])) if job.joint else None


def write_joint(block: PlannedBlock, joint: PartWriter | None) -> None:
    """Append all rows of a block but the hold-out's."""
    if joint is not None and len(kept := np.flatnonzero(block.destinations != EVAL)):
        joint.write(block.slices(kept))


def by_target(targets: npt.NDArray[np.integer]) -> Iterator[tuple[int, npt.NDArray[np.int64]]]:
    """Yield each target that occurs with the places where it does, in order."""
    order = np.argsort(targets, kind="stable")
    bounds = np.flatnonzero(np.diff(targets[order])) + 1
    for places in np.split(order, bounds):
        if len(places):
            yield int(targets[places[0]]), places


class PlannedBlock(NamedTuple):
    """Rows that follow each other in a source; what is no row is left out."""

    data: bytes
    begins: npt.NDArray[np.int64]
    """Offset of each row in `data`."""
    ends: npt.NDArray[np.int64]
    destinations: npt.NDArray[np.uint16]
    first_row: int
    """Number of the first row, counted over all sources from 0."""

    def parts(self, count: int) -> npt.NDArray[np.int64]:
        """The part of each row, of `count` parts; the hold-out is the last."""
        return np.where(self.destinations == EVAL, count - 1, self.destinations).astype(np.int64)

    def slices(self, chosen: npt.NDArray[np.int64]) -> list[bytes]:
        """The bytes of those rows."""
        begins, ends = self.begins[chosen].tolist(), self.ends[chosen].tolist()
        return [self.data[begin:end] for begin, end in zip(begins, ends, strict=True)]


def read_planned(
    sources: Sequence[SourceFile], index: RowIndex, start: int = 0, stop: int | None = None
) -> Iterator[PlannedBlock]:
    """Yield the rows with their destinations, in order, from span `start` of the index to before `stop`.

    The sources are read again, by the lengths that the index has; nothing is searched.

    Raises:
        TunebookError: A source was changed.
    """
    spans = _Spans(index)
    skipped, row = spans.skip(start)
    done = start
    for source in sources:
        if skipped >= source.size:
            skipped -= source.size
            continue
        with source.path.open("rb", buffering=0) as stream:
            stream.seek(skipped)
            left, skipped = source.size - skipped, 0
            while left and done != stop:
                lengths, destinations = spans.take(min(left, _BLOCK_BYTES))
                if stop is not None:
                    lengths, destinations = lengths[: stop - done], destinations[: stop - done]
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
                yield PlannedBlock(data, (ends - lengths)[rows], ends[rows], destinations[rows], row)
                row += int(rows.sum())
        check_unchanged(source)


def _read(stream: Any, size: int) -> bytes:
    data: bytes = stream.read(size) or b""
    while len(data) < size and (more := stream.read(size - len(data))):
        data += more
    return data


class _Spans:
    """Lengths and destinations of spans, taken from the index by their bytes."""

    def __init__(self, index: RowIndex) -> None:
        self._blocks = zip(index.lengths.blocks(), index.destinations.blocks(), strict=True)
        self._lengths = np.empty(0, np.uint32)
        self._destinations = np.empty(0, np.uint16)

    def skip(self, count: int) -> tuple[int, int]:
        """Leave out `count` spans; return their bytes and how many of them are rows."""
        size = rows = 0
        while count and (len(self._lengths) or self._fill()):
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
