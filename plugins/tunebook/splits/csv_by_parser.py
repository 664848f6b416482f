"""Records of a CSV file that breaks RFC 4180, as Python's csv module sees them: right, and far slower."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import IO, NamedTuple

# Two fields, which they are not inside a quote.
_SENTINEL = ["end", "of file"]
_ALL = -1


class ParsedRecord(NamedTuple):
    """One record of the file."""

    length: int
    """Bytes, its line ending included."""
    fields: int
    """0 for a blank line."""


def parse_records(path: Path, start: int) -> Iterator[ParsedRecord | None]:
    """Yield each record from the byte `start`, where one begins; None for a quote that is never closed."""
    # Python's limit of 131,072 characters a field is shorter than one long document.
    csv.field_size_limit(2**31 - 1)
    # As latin-1 a character is a byte, and all that CSV is made of is ASCII.
    with path.open(encoding="latin-1", newline="") as stream:
        stream.seek(start)
        taken = [0]
        reader = csv.reader(_lines(stream, taken))
        done = 0
        for row in reader:
            if taken[0] == _ALL:
                if row != _SENTINEL:
                    yield None
                return
            yield ParsedRecord(taken[0] - done, len(row))
            done = taken[0]


def _lines(stream: IO[str], taken: list[int]) -> Iterator[str]:
    """Lines of the file, then one of our own: unless it comes back alone, it was inside an open quote.

    `taken[0]` is the number of bytes handed out, `_ALL` once our own line is.
    """
    for line in stream:
        taken[0] += len(line)
        yield line
    taken[0] = _ALL
    yield ",".join(_SENTINEL)
