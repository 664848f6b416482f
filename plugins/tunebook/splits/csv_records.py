"""Records of a CSV file, found by the parity of the quotes before each newline; nothing is parsed.

Exact for RFC 4180. A file that breaks it announces itself (a quote that opens inside a field, a lone
carriage return) and is read by `csv_by_parser` instead.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

_NEWLINE, _RETURN, _QUOTE, _COMMA = 10, 13, 34, 44

_GATHER_BELOW = 12
"""Bytes outside quotes are collected where they are less than this fraction; both ways find the same."""


class Records(NamedTuple):
    """What lies in a buffer that begins at the start of a record."""

    ends: npt.NDArray[np.int64]
    """Offset after the newline of each whole record."""
    fields: npt.NDArray[np.int64]
    """Fields of each."""
    broken_at: int | None
    """Offset of the first byte that RFC 4180 does not allow; what is said of records after it is wrong."""


def find_records(buffer: npt.NDArray[np.uint8], *, at_end: bool) -> Records:
    """Find the records of `buffer`.

    Args:
        buffer: Bytes of the file from the start of a record.
        at_end: The file ends with the buffer: what follows the last newline is a record too.

    A blank line is a record of one field and of at most two bytes.
    """
    quotes = np.flatnonzero(buffer == _QUOTE)
    places, found = _outside_quotes(buffer, quotes)
    broken_at = min(
        (
            at
            for at in (_first_stray_quote(buffer, quotes[::2]), _first_lone_return(buffer, places, found))
            if at is not None
        ),
        default=None,
    )
    newlines = np.flatnonzero(found == _NEWLINE)
    commas = np.flatnonzero(found == _COMMA)
    ends = places[newlines] + 1
    commas_before = np.searchsorted(commas, newlines)
    if at_end and len(buffer) and (not len(ends) or ends[-1] != len(buffer)):
        if len(quotes) % 2 and broken_at is None:
            broken_at = int(quotes[-1])
        ends = np.append(ends, len(buffer))
        commas_before = np.append(commas_before, len(commas))
    return Records(ends, np.diff(commas_before, prepend=0) + 1, broken_at)


def _outside_quotes(
    buffer: npt.NDArray[np.uint8], quotes: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.uint8]]:
    """Offsets of all newlines and commas outside quotes, and perhaps of more, and what stands there."""
    # Before the first quote, from each second one to the next, and from the last one on if it closes.
    begins = np.concatenate(([0], quotes[1::2] + 1))
    ends = quotes[::2] if len(quotes) % 2 else np.append(quotes[::2], len(buffer))
    lengths = ends - begins
    bare = int(lengths.sum())
    if bare * _GATHER_BELOW < len(buffer):
        # Long texts are quoted and little lies between them: look at that alone.
        shift = begins - (np.cumsum(lengths) - lengths)
        places = np.arange(bare) + np.repeat(shift, lengths)
        return places, buffer[places]
    special = buffer == _NEWLINE
    special |= buffer == _COMMA
    special |= buffer == _RETURN
    places = np.flatnonzero(special)
    if len(quotes):
        places = places[np.searchsorted(quotes, places) & 1 == 0]
    return places, buffer[places]


def _first_stray_quote(buffer: npt.NDArray[np.uint8], opening: npt.NDArray[np.int64]) -> int | None:
    """A quote opens a field where a field begins, or continues one as the second of a doubled quote."""
    before = buffer[opening - 1]
    allowed = (before == _COMMA) | (before == _NEWLINE) | (before == _QUOTE) | (opening == 0)
    strays = np.flatnonzero(~allowed)
    return int(opening[strays[0]]) if len(strays) else None


def _first_lone_return(
    buffer: npt.NDArray[np.uint8], places: npt.NDArray[np.int64], found: npt.NDArray[np.uint8]
) -> int | None:
    returns = places[found == _RETURN]
    # At the very end of the buffer the next byte is not known yet, and the record not whole.
    known = returns[returns + 1 < len(buffer)]
    lone = known[buffer[known + 1] != _NEWLINE]
    return int(lone[0]) if len(lone) else None
