"""Decodes many flat objects of the same keys at once, where all their values are numbers.

Between two numbers stands the same text in every object: the end of a value and the next key. These texts
are found by their quotes, compared with those of the first object, and overwritten by a comma and fill.
What is left is one list of numbers. Anything else, a torn line or a text among the values, is for the slow
way.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import orjson

if TYPE_CHECKING:
    from numpy.typing import NDArray

_WORD = 8
"""Bytes compared and overwritten at a time."""
_FILL = b"\x7f"
"""Taken out again: no spaces, which would join the halves of a torn number `1 0`."""
_ALL = (1 << 8 * _WORD) - 1
_NOT_OF_NUMBERS = (b"t", b"l", b"[", b"{")
"""One of them is in each of true, false, null, lists and objects, and none in a number or nan."""
_NAN = {b"'": b"nan", b'"': b"NaN"}
_PAIR = {
    quote: re.compile(
        rb"\s*%b([^'\"\\{}]*)%b\s*:\s*(%b?)([-+0-9.eE]+|nan|NaN)\2\s*[,}]" % (quote, quote, quote)
    )
    for quote in (b"'", b'"')
}
_COMMA = re.compile(rb"\s*,\s*(?=\{)")


class _Between(NamedTuple):
    """What stands before a number: the end of the value before it, and its key."""

    text: bytes
    place: int
    """Which of an object's quotes opens the key."""
    before: int
    """Bytes before that quote."""


class _First(NamedTuple):
    """The first object, by which all are judged."""

    keys: list[str]
    head: bytes
    """What stands before the first number of all."""
    between: list[_Between]
    quotes: int
    end: bytes
    """What stands behind the last number of an object."""


def number_table(text: bytes, quote: bytes) -> dict[str, NDArray[np.float64]] | None:
    """Decode flat objects that all have the same keys in the same order.

    Args:
        text: The objects, with commas between them, the first and the last byte theirs.
        quote: What keys, and maybe some values, stand in: `'` for printed Python dictionaries, `"` for JSON.

    Returns:
        A column by key, as long as there are objects. None where the objects are not all alike, or a value
        is more than a plain number or nan.

    >>> table = number_table(b"{'loss': '0.5', 'epoch': nan},{'loss': '0.25', 'epoch': 2}", b"'")
    >>> {name: column.tolist() for name, column in table.items()}
    {'loss': [0.5, 0.25], 'epoch': [nan, 2.0]}
    """
    first = _first(text, quote)
    if first is None or not text.endswith(first.end) or _FILL in text:
        return None
    end = len(text) - len(first.end)
    padded = bytearray(text[:end] + b"," + _FILL * (len(first.end) + _WORD))
    numbers = np.frombuffer(padded, dtype=np.uint8)
    quotes = np.flatnonzero(np.frombuffer(text, dtype=np.uint8) == quote[0])
    if len(quotes) % first.quotes:
        return None
    starts = _starts(quotes.reshape(-1, first.quotes), first, end)
    if starts is None:
        return None
    words = np.ndarray(len(padded) - _WORD + 1, dtype="<u8", buffer=padded, strides=(1,))
    for column, between in enumerate(first.between):
        # Before the first object stands no end of another.
        at = starts[1 if column == 0 else 0 :, column]
        if not _write_over(words, at, between.text):
            return None
    if any(padded.find(one, len(first.head), end) >= 0 for one in _NOT_OF_NUMBERS):
        return None
    if not _write_null(numbers, len(first.head), end, _NAN[quote]):
        return None
    columns = _columns(padded[len(first.head) : end + 2].translate(None, _FILL), starts.shape)
    return dict(zip(first.keys, columns, strict=True)) if columns is not None else None


def _first(text: bytes, quote: bytes) -> _First | None:
    keys: list[str] = []
    between: list[_Between] = []
    quotes, value_end, position = 0, 0, 1
    while match := _PAIR[quote].match(text, position):
        key, at = match[1], match.start(1) - 1
        keys.append(key.decode("utf-8", "replace"))
        between.append(_Between(text[value_end : match.start(3)], quotes, at - value_end))
        quotes += 4 if match[2] else 2
        value_end, position = match.end(3), match.end()
        if text[position - 1 : position] == b"}":
            break
    else:
        return None
    if not text.startswith(b"{") or len(set(keys)) < len(keys):
        return None
    head, end = between[0].text, text[value_end:position]
    comma = _COMMA.match(text, position)
    if comma is None and position < len(text):
        return None
    before = end + (comma.group() if comma else b"")
    between[0] = _Between(before + head, 0, len(before) + between[0].before)
    return _First(keys, head, between, quotes, end)


def _starts(quotes: NDArray[np.int64], first: _First, end: int) -> NDArray[np.int64] | None:
    """Where the text before each number starts, shape (objects, keys); None where a number is missing."""
    starts = quotes[:, [one.place for one in first.between]]
    starts -= np.array([one.before for one in first.between], dtype=np.int64)
    ends = starts + np.array([len(one.text) for one in first.between], dtype=np.int64)
    numbers_end = np.append(starts.ravel()[1:], end)
    return starts if (numbers_end > ends.ravel()).all() else None


def _write_over(words: NDArray[np.uint64], starts: NDArray[np.int64], text: bytes) -> bool:
    """Put a comma and fill over `text`, wherever it starts; False where something else stands there.

    Args:
        words: The eight bytes from each place on.
        starts: Not decreasing.
        text: What should stand there.
    """
    over = b"," + _FILL * (len(text) - 1)
    for place in range(0, len(text), _WORD):
        old, new = (int.from_bytes(one[place : place + _WORD], "little") for one in (text, over))
        there = words[starts + place]
        # Of the last word only the bytes that are still of the text.
        others = np.uint64(~((1 << 8 * min(_WORD, len(text) - place)) - 1) & _ALL)
        kept = there & others
        if (there ^ kept != np.uint64(old)).any():
            return False
        words[starts + place] = kept | np.uint64(new)
    return True


def _write_null(numbers: NDArray[np.uint8], start: int, end: int, nan: bytes) -> bool:
    """Put `null,` over every `nan,` and the fill behind it; False where the letter is of another word."""
    letters = np.flatnonzero(numbers[start:end] == nan[0]) + start
    first, last = letters[::2], letters[1::2]
    if len(first) > len(last) or (last != first + 2).any():
        return False
    if (numbers[first + 1] != nan[1]).any() or (numbers[first + 3] != ord(",")).any():
        return False
    for place, byte in enumerate(b"null,"):
        numbers[first + place] = byte
    return True


def _columns(numbers: bytearray, shape: tuple[int, ...]) -> NDArray[np.float64] | None:
    """Numbers with a comma behind each, as one array a key; None where they are not as many numbers."""
    try:
        values = orjson.loads(b"[" + numbers + b"0]")
    except orjson.JSONDecodeError:
        return None
    values.pop()
    if len(values) != shape[0] * shape[1]:
        return None
    try:
        return np.ascontiguousarray(np.array(values, dtype=np.float64).reshape(shape).T)
    except (ValueError, TypeError, OverflowError):
        return None
