"""Reads TensorBoard event files: finds the records, then decodes those of one layout together.

Layout: records of https://www.tensorflow.org/tutorials/load_data/tfrecord, each an `Event` of
https://github.com/tensorflow/tensorflow/blob/master/tensorflow/core/util/event.proto.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from tunebook.runlog.records import Note, Series
from tunebook.runlog.series import join_starts, later_wins

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from tunebook.runlog.files import RunFiles
    from tunebook.runlog.series import WentBack


_LENGTH = struct.Struct("<Q")
_LONGEST = 256
"""Bytes of a record; scalars are shorter, texts and graphs are longer."""
_CLOCK = "elapsed_seconds"
_WALL, _STEP, _SUMMARY, _VALUE, _TAG, _SIMPLE = 0x09, 0x10, 0x2A, 0x0A, 0x0A, 0x15


class Events(NamedTuple):
    """The scalars of an event file, and what was lost."""

    series: dict[str, Series]
    notes: list[Note]
    started: float | None
    """When the file was begun, in seconds since the epoch."""


class _Scalars(NamedTuple):
    """Scalars of one tag."""

    tag: str
    steps: NDArray[np.int64]
    values: NDArray[np.float64]
    walls: NDArray[np.float64]
    """Seconds since the epoch."""


class _Records(NamedTuple):
    starts: NDArray[np.int64]
    lengths: NDArray[np.int64]
    whole: bool


class EventLogs(NamedTuple):
    """The scalars of all event files of a run."""

    series: dict[str, Series]
    went_back: list[WentBack]
    notes: list[Note]
    closing: dict[str, Series]
    """Of the evaluation after training, which has a file of its own."""


def read_event_files(files: RunFiles) -> EventLogs:
    """Read every TensorBoard event file below a run folder; a restarted run continues in a later file.

    Raises:
        OSError: A file cannot be read.
    """
    read = [read_events(path, files.name(path)) for path in files.events]
    read.sort(key=lambda events: float("inf") if events.started is None else events.started)
    # The closing evaluation, of the weights that were kept, has a file of its own: it must not overwrite
    # what the last step measured.
    curves = [events.series for events in read if any(len(one.steps) > 1 for one in events.series.values())]
    joined = join_starts(curves or [events.series for events in read])
    closing = {
        name: one
        for events in read
        if curves and all(len(series.steps) < 2 for series in events.series.values())
        for name, one in events.series.items()
        if name.startswith("eval_")
    }
    notes = [note for events in read for note in events.notes]
    return EventLogs(joined.series, joined.went_back, notes, closing)


def read_events(path: Path, source: str) -> Events:
    """Read the scalars of one event file, under the names that the Trainer logs them by.

    Raises:
        OSError: The file cannot be read.
    """
    data = path.read_bytes()
    records = _records(data)
    bytes_ = np.frombuffer(data, dtype=np.uint8)
    found: dict[str, list[_Scalars]] = {}
    damaged = 0
    for length in np.unique(records.lengths).tolist():
        starts = records.starts[records.lengths == length]
        if length > _LONGEST:
            continue
        table = bytes_[starts[:, None] + np.arange(length + 4)]
        checksums = np.ascontiguousarray(table[:, length:]).view("<u4")[:, 0]
        table = table[:, :length]
        whole = masked_crc32c(table) == checksums
        damaged += int((~whole).sum())
        for scalars in _scalars(table[whole]):
            found.setdefault(scalars.tag, []).append(scalars)
    notes = []
    if not records.whole:
        message = f"cut off after {len(records.starts)} records; the rest is lost"
        notes.append(Note(kind="lost", file=source, message=message))
    if damaged:
        message = f"{damaged} records whose checksum does not fit were left out"
        notes.append(Note(kind="lost", file=source, message=message))
    series = {}
    for tag, parts in found.items():
        name = trainer_name(tag)
        steps = np.concatenate([part.steps for part in parts])
        points = later_wins(steps, np.concatenate([part.values for part in parts]))
        series[name] = Series(name=name, steps=points.steps, values=points.values, source=source)
        if name == "loss":
            clock = later_wins(steps, np.concatenate([part.walls for part in parts]))
            series[_CLOCK] = Series(
                name=_CLOCK, steps=clock.steps, values=clock.values - clock.values.min(), source=source
            )
    first = data[12:21]
    started = struct.unpack("<d", first[1:])[0] if len(first) == 9 and first[0] == _WALL else None
    return Events(series, notes, started if started is not None and started > 0 else None)


def trainer_name(tag: str) -> str:
    """The Trainer's name of a tag.

    >>> trainer_name("train/loss"), trainer_name("eval/demo_f1")
    ('loss', 'eval_demo_f1')
    """
    kind, _, name = tag.partition("/")
    if kind == "train" and name:
        return name
    return f"{kind}_{name}" if kind in {"eval", "test"} and name else tag


def _records(data: bytes) -> _Records:
    """Where each record's payload starts and how long it is; stops at the first that is not whole."""
    starts, lengths = [], []
    position, end = 0, len(data)
    unpack = _LENGTH.unpack_from
    while position + 16 <= end:
        (length,) = unpack(data, position)
        if length > end - position - 16:
            break
        starts.append(position + 12)
        lengths.append(length)
        position += length + 16
    return _Records(np.array(starts, dtype=np.int64), np.array(lengths, dtype=np.int64), position == end)


def _scalars(table: NDArray[np.uint8]) -> list[_Scalars]:
    """The records that are scalars; `table` has one record of equal length a row."""
    if table.shape[1] < 20 or not len(table):
        return []
    table = table[table[:, 0] == _WALL]
    found = []
    # A step of zero is not written at all, which is how protobuf says zero.
    without = table[table[:, 9] == _SUMMARY]
    found += _values(without, 9, np.zeros(len(without), dtype=np.int64))
    table = table[table[:, 9] == _STEP]
    for digits in range(1, 10):
        if not len(table) or 10 + digits >= table.shape[1]:
            break
        ends_here = table[:, 9 + digits] < 0x80
        rows = table[ends_here]
        if len(rows):
            weights = np.array([1 << (7 * place) for place in range(digits)], dtype=np.int64)
            steps = (rows[:, 10 : 10 + digits].astype(np.int64) & 0x7F) @ weights
            summaries = rows[:, 10 + digits] == _SUMMARY
            found += _values(rows[summaries], 10 + digits, steps[summaries])
        table = table[~ends_here]
    return found


def _values(table: NDArray[np.uint8], at: int, steps: NDArray[np.int64]) -> list[_Scalars]:
    """Decode `summary { value { tag simple_value } }` that begins in column `at`."""
    width = table.shape[1]
    # Key, length, key, length, key, length of the tag; lengths under 128 take one byte.
    if not len(table) or at + 6 >= width:
        return []
    tag_length = table[:, at + 5].astype(np.int64)
    plain = (
        (table[:, at + 2] == _VALUE)
        & (table[:, at + 4] == _TAG)
        & (table[:, at + 1] < 0x80)
        & (at + 6 + tag_length + 5 == width)
    )
    table, steps = table[plain], steps[plain]
    if not len(table):
        return []
    end = width - 5
    simple = table[:, end] == _SIMPLE
    table, steps = table[simple], steps[simple]
    values = np.ascontiguousarray(table[:, end + 1 :]).view("<f4")[:, 0].astype(np.float64)
    walls = np.ascontiguousarray(table[:, 1:9]).view("<f8")[:, 0]
    tags = np.ascontiguousarray(table[:, at + 6 : end])
    found = []
    names, which = np.unique(tags.view(f"V{tags.shape[1]}")[:, 0], return_inverse=True)
    for place, name in enumerate(names):
        mine = which == place
        tag = bytes(name).decode("utf-8", "replace")
        found.append(_Scalars(tag, steps[mine], values[mine], walls[mine]))
    return found


# The checksum of TensorBoard's records, for many of one length at once.
#
# CRC-32C (Castagnoli, RFC 3720 appendix B.4) with the mask of
# https://www.tensorflow.org/tutorials/load_data/tfrecord.

_POLYNOMIAL = 0x82F63B78
_MASK = 0xA282EAD8


def _table() -> NDArray[np.uint32]:
    found = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        found = np.where(found & 1, (found >> 1) ^ np.uint32(_POLYNOMIAL), found >> 1)
    return found


def masked_crc32c(rows: NDArray[np.uint8]) -> NDArray[np.uint32]:
    """The masked checksum of each row.

    Args:
        rows: Shape (N, bytes).

    >>> int(masked_crc32c(np.frombuffer(b"123456789", dtype=np.uint8)[None, :])[0]) == 0xC78AB0E5
    True
    """
    table = _table()
    crc = np.full(len(rows), 0xFFFFFFFF, dtype=np.uint32)
    for column in np.ascontiguousarray(rows.T):
        crc = table[(crc ^ column) & 0xFF] ^ (crc >> 8)
    crc = np.invert(crc)
    return (((crc >> 15) | (crc << 17)) + np.uint32(_MASK)).astype(np.uint32)
