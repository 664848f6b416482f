"""Decodes many flat objects of the same keys at once, where all their values are numbers.

The text is cut at its quotes: keys, values and what stands between them then come round in equal strides,
and each is compared with the first of its kind. What is left are columns of numbers. Anything else, a torn
line or a text among the values, is for the slow way.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import orjson

if TYPE_CHECKING:
    from numpy.typing import NDArray

_OF_NUMBERS = b"0123456789.+-eEnNaA"
"""Digits, signs, exponents and the letters of nan."""
_SPACE = b" \t\r\n"


def number_table(text: bytes, count: int, quote: bytes) -> dict[str, NDArray[np.float64]] | None:
    """Decode flat objects that all have the same keys in the same order.

    Args:
        text: The objects, with commas between them.
        count: How many they are.
        quote: What keys, and maybe some values, stand in: `'` for printed Python dictionaries, `"` for JSON.

    Returns:
        A column of length `count` by key. None where the objects are not all alike, or a value is more
        than a plain number or nan.

    >>> table = number_table(b"{'loss': '0.5', 'epoch': nan},{'loss': '0.25', 'epoch': 2}", 2, b"'")
    >>> {name: column.tolist() for name, column in table.items()}
    {'loss': [0.5, 0.25], 'epoch': [nan, 2.0]}
    """
    first = text[: text.find(b"}") + 1].split(quote)
    stride, pieces = len(first) - 1, text.split(quote)
    # In quotes stand the odd pieces: keys, which a colon follows, and values.
    keys = [place for place in range(1, stride, 2) if first[place + 1].startswith(b":")]
    if not keys or len(pieces) != count * stride + 1 or pieces[0].strip(_SPACE) != b"{":
        return None
    columns: dict[str, NDArray[np.float64]] = {}
    for place in keys:
        if pieces[place::stride].count(first[place]) != count:
            return None
        after = pieces[place + 1 :: stride]
        last = place == keys[-1]
        if first[place + 1].strip(_SPACE) != b":":
            numbers = _numbers(after, last=last)
        elif after.count(first[place + 1]) == count and _are_ends(pieces[place + 3 :: stride], last=last):
            numbers = b",".join(pieces[place + 2 :: stride])
        else:
            return None
        column = _column(numbers, count) if numbers is not None else None
        if column is None:
            return None
        columns[first[place].decode("utf-8", "replace")] = column
    return columns if len(columns) == len(keys) else None


def _numbers(pieces: list[bytes], *, last: bool) -> bytes | None:
    """The numbers out of pieces `: 0.5, `, or `: 0.5},{` where they are the last of their objects."""
    text = b"".join(pieces)
    # Behind the last number of all stands `}` alone.
    pattern = b":},{" * (len(pieces) - 1) + b":}" if last else b":," * len(pieces)
    if text.translate(None, _OF_NUMBERS + _SPACE) != pattern:
        return None
    return text.translate(None, b":{}" + _SPACE).rstrip(b",")


def _are_ends(pieces: list[bytes], *, last: bool) -> bool:
    """Whether all are what stands behind a value in quotes: a comma, or the end of its object."""
    if not last:
        return pieces.count(b", ") == len(pieces)
    return pieces.count(b"},{") == len(pieces) - 1 and pieces[-1].strip(_SPACE) == b"}"


def _column(numbers: bytes, count: int) -> NDArray[np.float64] | None:
    """Numbers with commas between them, as an array; None where they are not as many numbers."""
    if numbers.translate(None, _OF_NUMBERS + b","):
        return None
    if b"n" in numbers or b"N" in numbers:
        numbers = numbers.replace(b"nan", b"null").replace(b"NaN", b"null")
    try:
        values = orjson.loads(b"[" + numbers + b"]")
    except orjson.JSONDecodeError:
        return None
    return np.array(values, dtype=np.float64) if len(values) == count else None
