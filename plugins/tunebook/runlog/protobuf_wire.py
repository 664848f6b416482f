"""Reads the fields of a protobuf message without its schema.

Encoding: https://protobuf.dev/programming-guides/encoding/.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

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
