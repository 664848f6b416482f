"""A text file cut into ranges of bytes for a job array, each scanned on its own from its first whole row."""

from __future__ import annotations

import json
import os
import shutil
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tunebook.errors import TunebookError
from tunebook.splits.checks import Checks
from tunebook.splits.cuts import NotRfc4180
from tunebook.splits.rows import gap_block, read_from
from tunebook.splits.sources import SourceFile
from tunebook.splits.spans import Block
from tunebook.splits.tapes import Tapes
from tunebook.splits.workshop import replace_json

_READ_BYTES = 1 << 20
_NEWLINE, _QUOTE = 10, 34
META = "meta.json"

Scan = Callable[[Iterator[Block], Tapes], int]
"""Writes the tapes of blocks and returns how many rows they hold."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranges:
    """The ranges of one file, and what is published of them in a folder that all tasks share."""

    source: SourceFile
    count: int
    folder: Path

    def tapes(self, number: int) -> Tapes:
        """The tapes of a range, once they are published."""
        return Tapes(folder=self.folder / f"range_{number}")

    def meta(self, number: int) -> dict[str, Any]:
        """What is known of a range besides its tapes."""
        values: dict[str, Any] = json.loads((self.folder / f"range_{number}" / META).read_text())
        return values

    def publish(self, number: int, scan: Scan, checks: Checks) -> None:
        """Scan a range and publish its tapes, unless somebody has.

        Raises:
            TunebookError: A row is bad, or the file is CSV that only one process can read.
        """
        if (self.folder / f"range_{number}").exists():
            return
        with published(self.folder / f"range_{number}") as folder:
            rows = scan(self._blocks(number, checks), Tapes(folder=folder))
            replace_json(folder / META, {"rows": rows, "bad": list(checks.bad), "n_bad": checks.n_bad})

    def _blocks(self, number: int, checks: Checks) -> Iterator[Block]:
        source = self.source
        start = self._first_row(number)
        stop = self._bound(number + 1) if number + 1 < self.count else None
        if number == 0 and source.start:
            with source.path.open("rb") as stream:
                yield gap_block(stream.read(source.start))
        if stop is not None and start >= stop:
            return
        try:
            yield from read_from(source, checks, start, stop)
        except NotRfc4180 as err:
            raise TunebookError(
                f"{source.path}: a quote inside an unquoted field, or a lone carriage return, near byte "
                f"{err.args[0]}: ranges of such a file cannot be told apart",
                fix="split it in one process, without --shard",
            ) from err

    def _bound(self, number: int) -> int:
        start, size = self.source.start, self.source.size
        return start + (size - start) * number // self.count

    def _first_row(self, number: int) -> int:
        """Offset of the first row that begins in the range, or after it."""
        if number == 0:
            return self.source.start
        bound = self._bound(number)
        inside = self.source.format == "csv" and sum(map(self._quotes, range(number))) % 2 == 1
        # The row may begin right at the bound: then the newline before it is the byte before.
        offset = bound - 1
        with self.source.path.open("rb") as stream:
            stream.seek(offset)
            if self.source.format == "csv" and stream.read(1) == b'"':
                inside = not inside
            stream.seek(offset)
            while data := stream.read(_READ_BYTES):
                buffer = np.frombuffer(data, np.uint8)
                newlines = buffer == _NEWLINE
                if self.source.format == "csv":
                    odd = (np.cumsum(buffer == _QUOTE) + inside) % 2 == 1
                    newlines &= ~odd
                    inside = bool(odd[-1])
                found = np.flatnonzero(newlines)
                if len(found):
                    return offset + int(found[0]) + 1
                offset += len(data)
        return self.source.size

    def _quotes(self, number: int) -> int:
        """Quotes in a range; counted where nobody has published them."""
        path = self.folder / f"quotes_{number}.json"
        if path.exists():
            return int(json.loads(path.read_text()))
        found, left = 0, self._bound(number + 1) - self._bound(number)
        with self.source.path.open("rb") as stream:
            stream.seek(self._bound(number))
            while data := stream.read(min(left, _READ_BYTES)):
                found += data.count(b'"')
                left -= len(data)
        replace_json(path, found)
        return found

    def publish_quotes(self, number: int) -> None:
        """Count the quotes of a range for the tasks that come behind it."""
        if self.source.format == "csv":
            self._quotes(number)


@contextmanager
def published(folder: Path) -> Iterator[Path]:
    """A temporary folder that becomes `folder` in one step; if another task was first, it is dropped."""
    temporary = folder.with_name(f"{folder.name}.{socket.gethostname()}.{os.getpid()}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    try:
        yield temporary
        try:
            temporary.rename(folder)
        except OSError:
            if not folder.is_dir():
                raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
