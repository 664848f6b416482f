"""Walks the records of a `.wandb` file, which is a LevelDB log with checksums of its own.

Layout: https://github.com/google/leveldb/blob/main/doc/log_format.md, after a header of seven bytes. The
checksum is the plain CRC-32 of type and payload, not LevelDB's masked CRC-32C (seen in files of wandb 0.31).
"""

from __future__ import annotations

import struct
import zlib
from typing import TYPE_CHECKING

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
