"""Decodes many flat objects of the same keys at once, where all their values are numbers.

Keys become marker bytes, and what is left without digits has to be the same pattern over and over: then the
numbers are one long JSON list. Anything else, a torn line or a text among the values, is for the slow way.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import orjson

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

_NAMES = {quote: re.compile(rb"%b([^'\"\\{}]*)%b: " % (quote, quote)) for quote in (b"'", b'"')}
_FIRST_MARKER = 0x80
_MOST_NAMES = 100
_MARKERS = bytes(range(_FIRST_MARKER, _FIRST_MARKER + _MOST_NAMES))
_OF_NUMBERS = b"0123456789.+-eEnNaA"
"""Digits, signs, exponents and the letters of nan."""
_SPACE = b" \t\r\n"


class NumberTable(NamedTuple):
    """Names, and a row of numbers for each object."""

    names: list[str]
    rows: NDArray[np.float64]
    """Shape (objects, names)."""


def number_table(objects: Sequence[bytes], quote: bytes) -> NumberTable | None:
    """Decode flat objects that all have the same keys in the same order.

    Args:
        objects: Each from its `{` on, with or without its `}`, all alike.
        quote: What keys stand in: `'` for printed Python dictionaries, `"` for JSON.

    Returns:
        None where the objects are not all alike, or a value is more than a plain number or nan.
    """
    if not objects:
        return None
    names = _NAMES[quote].findall(objects[0])
    text = b",".join(objects)
    if not 0 < len(names) <= _MOST_NAMES or len(set(names)) < len(names) or not text.isascii():
        return None
    for place, name in enumerate(names):
        text = text.replace(quote + name + quote + b": ", _MARKERS[place : place + 1])
    # A number in quotes, as transformers 5 prints it, leaves a pair of them.
    pattern = text.translate(None, _OF_NUMBERS + _SPACE).replace(b"''", b"")
    end = b"}" if objects[0].endswith(b"}") else b""
    one = b"{" + b",".join(_MARKERS[place : place + 1] for place in range(len(names))) + end
    if pattern != b",".join([one] * len(objects)):
        return None
    numbers = text.translate(None, _MARKERS + b"{}'" + _SPACE)
    for nan in (b"nan", b"NaN"):
        numbers = numbers.replace(nan, b"null")
    try:
        values = orjson.loads(b"[" + numbers + b"]")
    except orjson.JSONDecodeError:
        return None
    if len(values) != len(objects) * len(names):
        return None
    rows = np.array(values, dtype=np.float64).reshape(len(objects), len(names))
    return NumberTable([name.decode() for name in names], rows)
