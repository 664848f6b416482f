"""Takes apart the records of a `.wandb` file: rows of history, configuration, samples of the machine.

Field numbers: wandb/proto/wandb_internal.proto of https://github.com/wandb/wandb. Items keep their key in
field 1, or the parts of a nested one in field 2, and their value as JSON in field 16; a history item may
have a typed value instead (fields 4 to 8).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tunebook.runlog.protobuf_wire import double, fields, signed, zigzag
from tunebook.runlog.tolerant_json import loads

if TYPE_CHECKING:
    from collections.abc import Iterator

HISTORY, SUMMARY, CONFIG, STATS, RUN, EXIT, ENVIRONMENT = 2, 3, 5, 7, 17, 18, 26
WANTED = frozenset({HISTORY, SUMMARY, CONFIG, STATS, RUN, EXIT, ENVIRONMENT})
_ITEM, _KEY, _NESTED, _JSON = 0x0A, 0x0A, 0x12, b"\x82\x01"


def message_of(record: bytes) -> tuple[int, bytes] | None:
    """Which of the wanted messages a record holds, and its bytes; None where it holds another.

    Raises:
        ValueError: The record is damaged.
    """
    return next(((n, value) for n, value in fields(record) if n in WANTED and isinstance(value, bytes)), None)


def items(message: bytes) -> dict[str, bytes | float]:
    """The items of a history, configuration, summary or sample: key -> JSON text, or a typed number.

    Raises:
        ValueError: The message is damaged.
    """
    found: dict[str, bytes | float] = {}
    position, end = 0, len(message)
    while position < end and message[position] == _ITEM:
        # Nearly all items are short: key, key's length, JSON, its length, each length in one byte.
        try:
            length, kind, key_length = message[position + 1], message[position + 2], message[position + 3]
            after = position + 2 + length
            value = position + 4 + key_length
            if (
                length < 0x80
                and kind in (_KEY, _NESTED)
                and message[value : value + 2] == _JSON
                and value + 3 + message[value + 2] == after <= end
            ):
                found[message[position + 4 : value].decode()] = message[value + 3 : after]
                position = after
                continue
        except IndexError:
            pass
        break
    for number, value_ in fields(message[position:]):
        if number == 1 and isinstance(value_, bytes):
            key, content = _item(value_)
            if content is not None:
                found[key] = content
    return found


def _item(item: bytes) -> tuple[str, bytes | float | None]:
    keys: list[str] = []
    content: bytes | float | None = None
    for number, value in fields(item):
        if number in (1, 2) and isinstance(value, bytes):
            keys.append(value.decode())
        elif number in (8, 16) and isinstance(value, bytes):
            content = value
        elif number == 6 and isinstance(value, bytes):
            content = double(value)
        elif number == 5 and isinstance(value, int):
            content = float(zigzag(value))
    return ".".join(keys), content


def number_of(content: bytes | float) -> float | None:
    """A number out of an item's content, or None where it holds something else.

    >>> number_of(b"1e-05"), number_of(b'"NaN"'), number_of(b"true")
    (1e-05, nan, None)
    """
    if isinstance(content, float):
        return content
    try:
        # float() takes digits apart by underscores, JSON does not.
        return None if b"_" in content else float(content.strip(b'"'))
    except ValueError:
        return None


def values(message: bytes) -> Iterator[tuple[str, Any]]:
    """Keys and decoded values of a configuration; what is no JSON is left out.

    Raises:
        ValueError: The message is damaged.
    """
    for key, content in items(message).items():
        try:
            yield key, content if isinstance(content, float) else loads(content)
        except ValueError:
            continue


def timestamp(message: bytes) -> float:
    """Seconds since the epoch out of a google.protobuf.Timestamp.

    Raises:
        ValueError: The message is damaged.
    """
    seconds = nanos = 0
    for number, value in fields(message):
        if isinstance(value, int):
            seconds, nanos = (signed(value), nanos) if number == 1 else (seconds, value)
    return seconds + nanos / 1e9
