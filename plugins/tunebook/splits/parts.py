"""Files that rows are appended to, with a hash of all that went in."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import IO, NamedTuple

import xxhash

from tunebook.splits.sources import SourceFile

_READ_BYTES = 1 << 20


class Layout(NamedTuple):
    """What stands around the rows of a part."""

    prefix: bytes
    separator: bytes
    """Between rows that do not bring their own line ending."""
    suffix: bytes
    newline: bytes | None
    """Set where rows are lines: put after a row that has no line ending, if another one follows."""


BARE = Layout(b"", b"", b"", None)
"""For files of our own, of which only the rows are read."""


class State(NamedTuple):
    """How far a part has come."""

    bytes: int
    rows: int
    open_line: bool
    """The last row has no line ending."""
    digest: str


def layout_of(source: SourceFile) -> Layout:
    """Return what each part of such a source begins and ends with, and how rows are joined."""
    if source.format == "json":
        return Layout(source.prefix + b"[\n", b",\n", b"\n]\n", None)
    newline = b"\r\n" if source.prefix.endswith(b"\r\n") else b"\n"
    return Layout(source.prefix, b"", b"", newline)


class Part:
    """A file that grows by whole rows. Close it with `finish`; `close` leaves it without its end.

    Args:
        path: Made anew.
        layout: What is around the rows.
    """

    def __init__(self, path: Path, layout: Layout) -> None:
        self.path, self._layout = path, layout
        self._hash = xxhash.xxh3_128()
        self._bytes = self._rows = 0
        self._open_line = False
        self._stream: IO[bytes] = path.open("wb")
        self._put(layout.prefix)

    def write(self, rows: Sequence[bytes]) -> None:
        """Append rows; of those with line endings only the last may lack one."""
        text = self._layout.separator.join(rows)
        if self._layout.newline is None:
            if self._rows:
                self._put(self._layout.separator)
        else:
            if self._open_line:
                self._put(self._layout.newline)
            self._open_line = not rows[-1].endswith((b"\n", b"\r"))
        self._put(text)
        self._rows += len(rows)

    def extend(self, piece: Path) -> None:
        """Append a file of rows that are lines; only the last piece may end in a row without line ending."""
        with piece.open("rb") as stream:
            while data := stream.read(_READ_BYTES):
                self._put(data)

    def state(self) -> State:
        """Hand what was written to the system, and say how far the part is."""
        self._stream.flush()
        return State(self._bytes, self._rows, self._open_line, self._hash.hexdigest())

    def finish(self) -> State:
        """Write the end and put the file on disk."""
        self._put(self._layout.suffix)
        state = self.state()
        os.fsync(self._stream.fileno())
        self._stream.close()
        return state

    def close(self) -> None:
        """Leave the file as it is."""
        self._stream.close()

    def _put(self, data: bytes) -> None:
        if data:
            self._stream.write(data)
            self._hash.update(data)
            self._bytes += len(data)
