"""Records of a CSV file, found by the parity of the quotes before each newline; nothing is parsed.

Exact for RFC 4180. A file that breaks it announces itself (a quote that opens inside a field, a lone
carriage return) and is read by `csv_by_parser` instead.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

_NEWLINE, _RETURN, _QUOTE, _COMMA = 10, 13, 34, 44


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
    # One search for all the bytes that matter; they are a few per cent of a text.
    special = buffer == _NEWLINE
    special |= buffer == _QUOTE
    special |= buffer == _COMMA
    returns = buffer == _RETURN
    has_returns = bool(returns.any())
    if has_returns:
        special |= returns
    places = np.flatnonzero(special)
    found = buffer[places]
    quotes = found == _QUOTE
    odd = np.cumsum(quotes, dtype=np.uint32) & 1
    outside = odd == 0
    broken_at = _first_stray_quote(places, found, quotes & (odd == 1))
    if has_returns:
        lone = _first_lone_return(buffer, places[(found == _RETURN) & outside])
        broken_at = min((at for at in (broken_at, lone) if at is not None), default=None)
    newlines = np.flatnonzero((found == _NEWLINE) & outside)
    commas = np.cumsum((found == _COMMA) & outside, dtype=np.int64)
    ends = places[newlines] + 1
    commas_before = commas[newlines]
    if at_end and len(buffer) and (not len(ends) or ends[-1] != len(buffer)):
        if len(places) and odd[-1] and broken_at is None:
            broken_at = int(places[quotes][-1])
        ends = np.append(ends, len(buffer))
        commas_before = np.append(commas_before, commas[-1] if len(commas) else 0)
    return Records(ends, np.diff(commas_before, prepend=0) + 1, broken_at)


def _first_stray_quote(
    places: npt.NDArray[np.int64], found: npt.NDArray[np.uint8], opening: npt.NDArray[np.bool_]
) -> int | None:
    """A quote opens a field where a field begins, or continues one as the second of a doubled quote."""
    if not len(places):
        return None
    allowed = np.empty(len(places), np.bool_)
    allowed[0] = places[0] == 0
    before = found[:-1]
    allowed[1:] = (np.diff(places) == 1) & (before != _RETURN)
    strays = np.flatnonzero(opening & ~allowed)
    return int(places[strays[0]]) if len(strays) else None


def _first_lone_return(buffer: npt.NDArray[np.uint8], returns: npt.NDArray[np.int64]) -> int | None:
    # At the very end of the buffer the next byte is not known yet, and the record not whole.
    known = returns[returns + 1 < len(buffer)]
    lone = known[buffer[known + 1] != _NEWLINE]
    return int(lone[0]) if len(lone) else None
