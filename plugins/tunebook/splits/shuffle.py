"""Parts in random order, in two passes: rows to bucket files by key, then each bucket sorted by key.

The key of a row depends only on the seed and its number, and the buckets of a part are ranges of keys, so
neither their number nor the memory changes the result.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tunebook.splits.assign import range_of, row_keys
from tunebook.splits.write import (
    PartWriter,
    WriteJob,
    WrittenParts,
    allow_open_files,
    by_target,
    newline_of,
    open_joint,
    read_planned,
    write_joint,
)

_KEY_AND_LENGTH = np.dtype([("key", "<u8"), ("length", "<u4")])
_BYTES_PER_ROW = 48
"""Memory that sorting takes for each row besides its bytes."""
_WRITE_ROWS = 4096
_WRITE_BYTES = 4 << 20


class _Bucket(NamedTuple):
    """Files of some rows of one part: their bytes, and key and length of each."""

    part: int
    rows: Path
    keys: Path


def write_shuffled(job: WriteJob) -> WrittenParts:
    """Write each part in random order.

    Raises:
        TunebookError: A source was changed since the scan, or the system allows too few open files.
    """
    buckets = _plan_buckets(job)
    allow_open_files(max(2 * len(buckets), len(job.paths)) + 1)
    source = job.sources[0]
    with ExitStack() as stack:
        joint = open_joint(job, stack)
        job.progress.stage("distributing", job.bytes)
        _fill_buckets(job, buckets, joint)
        job.progress.stage("shuffling", job.bytes)
        parts = [stack.enter_context(PartWriter(path, source)) for path in job.paths]
        for bucket in buckets:
            job.progress.on_bytes(_append_sorted(bucket, parts[bucket.part], newline_of(source)))
            bucket.rows.unlink()
            bucket.keys.unlink()
        return WrittenParts([part.finish() for part in parts], joint.finish() if joint else None)


def _plan_buckets(job: WriteJob) -> list[_Bucket]:
    """The buckets of all parts in order, each expected to be sorted in half of the memory."""
    buckets: list[_Bucket] = []
    for part, plan in enumerate(job.plans):
        needed = plan.bytes + _BYTES_PER_ROW * plan.rows
        for _ in range(max(1, -(-needed // (job.memory // 2)))):
            path = job.index.folder / f"bucket_{len(buckets)}"
            buckets.append(_Bucket(part, path, path.with_suffix(".keys")))
    return buckets


def _fill_buckets(job: WriteJob, buckets: Sequence[_Bucket], joint: PartWriter | None) -> None:
    """Write each row to the bucket of its part and key, and its key and length beside it."""
    counts = np.bincount([bucket.part for bucket in buckets])
    first = np.cumsum(counts) - counts
    with ExitStack() as stack:
        files = [
            (stack.enter_context(bucket.rows.open("wb")), stack.enter_context(bucket.keys.open("wb")))
            for bucket in buckets
        ]
        for block in read_planned(job.sources, job.index):
            rows = len(block.destinations)
            keys = row_keys(job.options.seed, block.first_row, block.first_row + rows)
            entries = np.empty(rows, _KEY_AND_LENGTH)
            entries["key"], entries["length"] = keys, block.ends - block.begins
            part = block.parts(len(counts))
            for bucket, chosen in by_target(first[part] + range_of(keys, counts[part])):
                data, index = files[bucket]
                data.write(b"".join(block.slices(chosen)))
                index.write(entries[chosen].tobytes())
            write_joint(block, joint)
            job.progress.on_bytes(len(block.data))


def _append_sorted(bucket: _Bucket, part: PartWriter, newline: bytes | None) -> int:
    """Append the rows of a bucket to its part in the order of their keys; return their bytes.

    A row of lines that has no line ending gets one: it need not be the last of its part any more.
    """
    data = bucket.rows.read_bytes()
    entries = np.fromfile(bucket.keys, _KEY_AND_LENGTH)
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
