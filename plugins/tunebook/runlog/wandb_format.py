"""The form of a `.wandb` file: records of a LevelDB log, each a protobuf message.

Layout: https://github.com/google/leveldb/blob/main/doc/log_format.md, after a header of seven bytes. The
checksum is the plain CRC-32 of type and payload, not LevelDB's masked CRC-32C (seen in files of wandb 0.31).
"""

from __future__ import annotations

import struct
import zlib
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator


MAGIC = b":W&B"
_HEADER = 7
_BLOCK = 32768
_RECORD = struct.Struct("<IHB")
_FULL, _FIRST, _MIDDLE, _LAST = 1, 2, 3, 4


class Records:
    """The whole records of a log, in order; afterwards, what was lost."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.read = 0
        self.damaged = 0
        """Blocks of 32 KiB in which a checksum or a length was wrong; the rest of such a block is skipped."""
        self.cut_off = False
        """Whether the file ends within a record, as that of a killed run does."""

    def __iter__(self) -> Iterator[bytes]:
        data, end = self.data, len(self.data)
        view, unpack = memoryview(data), _RECORD.unpack_from
        position, parts = _HEADER, b""
        expected = False
        while position + 7 <= end:
            left = _BLOCK - position % _BLOCK
            if left < 7:
                position += left
                continue
            checksum, length, kind = unpack(data, position)
            after = position + 7 + length
            if length > left - 7 or kind not in (_FULL, _FIRST, _MIDDLE, _LAST):
                self.damaged += 1
                position, expected = position + left, False
                continue
            if after > end:
                self.cut_off = True
                return
            if zlib.crc32(view[position + 6 : after]) != checksum:
                self.damaged += 1
                position, expected = position + left, False
                continue
            payload = data[position + 7 : after]
            position = after
            if kind == _FULL:
                expected = False
                self.read += 1
                yield payload
            elif kind == _FIRST:
                parts, expected = payload, True
            elif expected:
                parts += payload
                if kind == _LAST:
                    expected = False
                    self.read += 1
                    yield parts
        self.cut_off = expected or position < end


# Reads the fields of a protobuf message without its schema.
#
# Encoding: https://protobuf.dev/programming-guides/encoding/.

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5


class Field(NamedTuple):
    """One field: its number in the schema, and its value."""

    number: int
    value: int | bytes
    """An integer as written, or the bytes of a text, a message or a fixed-width number."""


def fields(data: bytes) -> Iterator[Field]:
    """The fields of a message, in order.

    Raises:
        ValueError: It is no message.
    """
    position, end = 0, len(data)
    while position < end:
        key, position = _varint(data, position)
        kind = key & 7
        if kind == VARINT:
            number, position = _varint(data, position)
            yield Field(key >> 3, number)
            continue
        if kind == BYTES:
            length, position = _varint(data, position)
        elif kind in (FIXED64, FIXED32):
            length = 8 if kind == FIXED64 else 4
        else:
            raise ValueError(f"wire type {kind} at byte {position}")
        if position + length > end:
            raise ValueError(f"a field of {length} bytes at byte {position} of {end}")
        yield Field(key >> 3, data[position : position + length])
        position += length


def signed(number: int) -> int:
    """A varint of type int32 or int64 as the signed number it stands for."""
    return number - (1 << 64) if number >= 1 << 63 else number


def zigzag(number: int) -> int:
    """A varint of type sint64 as the signed number it stands for."""
    return (number >> 1) ^ -(number & 1)


def double(data: bytes) -> float:
    """A field of type double.

    Raises:
        ValueError: It is not eight bytes long.
    """
    if len(data) != 8:
        raise ValueError(f"{len(data)} bytes for a double")
    return float(struct.unpack("<d", data)[0])


def _varint(data: bytes, position: int) -> tuple[int, int]:
    number = shift = 0
    while position < len(data) and shift < 70:
        byte = data[position]
        position += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number, position
        shift += 7
    raise ValueError(f"a number without an end at byte {position}")
