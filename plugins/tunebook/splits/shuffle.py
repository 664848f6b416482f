"""The order within parts made random in two passes: rows to bucket files by key, each bucket sorted by key.

The key of a row depends on the seed and its number alone, and the buckets of a part are ranges of keys, so
neither their number nor the memory changes the result.
"""

from __future__ import annotations

import resource
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tunebook.errors import TunebookError
from tunebook.splits.assign import EVAL, range_of, row_keys
from tunebook.splits.copy import OnBytes, by_target, read_chunks, slices, write_joint
from tunebook.splits.parts import Part
from tunebook.splits.plan import PartPlan
from tunebook.splits.sources import SourceFile
from tunebook.splits.spans import Tapes

_ENTRY = np.dtype([("key", "<u8"), ("length", "<u4")])
_BYTES_PER_ROW = 48
"""Memory that sorting takes for each row besides its bytes."""
_WRITE_ROWS = 4096
_WRITE_BYTES = 4 << 20


class Bucket(NamedTuple):
    """Some rows of one part: their bytes, and key and length of each."""

    part: int
    rows: Path
    keys: Path


def plan_buckets(parts: Sequence[PartPlan], memory: int, folder: Path) -> list[Bucket]:
    """Return the buckets of all parts in order, each expected to be sorted in half of `memory` bytes."""
    buckets: list[Bucket] = []
    for part, plan in enumerate(parts):
        needed = plan.bytes + _BYTES_PER_ROW * plan.rows
        for _ in range(max(1, -(-needed // (memory // 2)))):
            name = f"bucket_{len(buckets)}"
            buckets.append(Bucket(part, folder / name, folder / f"{name}.keys"))
    return buckets


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


def scatter(
    sources: Sequence[SourceFile],
    tapes: Tapes,
    buckets: Sequence[Bucket],
    writers: Sequence[tuple[Part, Part]],
    *,
    seed: int,
    joint: Part | None,
    on_bytes: OnBytes,
) -> None:
    """Write each row to the bucket that its part and key say, and its key and length beside it."""
    part_of = np.array([bucket.part for bucket in buckets])
    n_parts = int(part_of[-1]) + 1
    first = np.searchsorted(part_of, np.arange(n_parts))
    count = np.bincount(part_of)
    for chunk in read_chunks(sources, tapes):
        rows = len(chunk.destinations)
        keys = row_keys(seed, chunk.first_row, chunk.first_row + rows)
        part = np.where(chunk.destinations == EVAL, n_parts - 1, chunk.destinations)
        targets = first[part] + range_of(keys, count[part])
        entries = np.empty(rows, _ENTRY)
        entries["key"], entries["length"] = keys, chunk.ends - chunk.begins
        for target, chosen in by_target(targets):
            data, index = writers[target]
            data.write(slices(chunk, chosen))
            index.write([entries[chosen].tobytes()])
        write_joint(chunk, joint)
        on_bytes(len(chunk.data))


def gather(bucket: Bucket, part: Part, newline: bytes | None) -> int:
    """Append the rows of a bucket to its part in the order of their keys; return their bytes.

    Args:
        bucket: Whole.
        part: Where to.
        newline: For a row of lines that brings no line ending, since it need not be the last one here.
    """
    data = bucket.rows.read_bytes()
    entries = np.fromfile(bucket.keys, _ENTRY)
    ends = np.cumsum(entries["length"], dtype=np.int64)
    order = np.argsort(entries["key"], kind="stable")
    begins = ends - entries["length"]
    at = 0
    while at < len(order):
        rows = order[at : at + _WRITE_ROWS]
        sizes = np.cumsum(entries["length"][rows], dtype=np.int64)
        rows = rows[: max(1, int(np.searchsorted(sizes, _WRITE_BYTES)))]
        at += len(rows)
        pairs = zip(begins[rows].tolist(), ends[rows].tolist(), strict=True)
        pieces = [data[begin:end] for begin, end in pairs]
        if newline is not None:
            pieces[:-1] = [row if row.endswith((b"\n", b"\r")) else row + newline for row in pieces[:-1]]
        part.write(pieces)
    return len(data)
