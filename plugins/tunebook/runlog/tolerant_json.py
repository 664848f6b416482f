"""Reads JSON and JSON lines that a killed process may have left half written."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, NamedTuple

import orjson

from tunebook.runlog.files import utf8

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# The Trainer writes bare NaN and Infinity, which JSON has not. Quoted, they pass any parser and float().
_BARE = re.compile(rb"(?<=[:\[,\s])(-?)(NaN|Infinity)(?=\s*[,}\]])")


class Lines(NamedTuple):
    """The objects of a JSON-lines file, and how many lines were no objects."""

    objects: list[dict[str, Any]]
    bad: int


def loads(data: bytes) -> Any:
    """Parse JSON that may hold bare NaN and Infinity, which become the texts `NaN` and `Infinity`.

    Raises:
        ValueError: It is not JSON.
    """
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError:
        return loads_numbers(data)


def loads_numbers(data: bytes) -> Any:
    """As `loads`, for JSON without texts in which `: NaN` could stand: one pass less.

    Raises:
        ValueError: It is not JSON.
    """
    try:
        return orjson.loads(_quote_bare(data))
    except orjson.JSONDecodeError:
        return orjson.loads(_BARE.sub(rb'"\1\2"', data))


def _quote_bare(data: bytes) -> bytes:
    """The usual places, ten times as fast as the pattern that also knows the others."""
    for name in (b"NaN", b"Infinity", b"-Infinity"):
        if b": " + name in data:
            data = data.replace(b": " + name, b': "' + name + b'"')
    return data


def read_object(path: Path) -> dict[str, Any] | None:
    """The object in a file, or None where the file is no whole JSON object.

    Raises:
        OSError: The file cannot be read.
    """
    try:
        found = loads(utf8(path.read_bytes()))
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def read_lines(path: Path) -> Lines:
    """The objects of a JSON-lines file; lines that are no object are counted.

    Raises:
        OSError: The file cannot be read.
    """
    objects, bad = [], 0
    for line in _lines(path):
        try:
            found = loads(line)
        except ValueError:
            found = None
        if isinstance(found, dict):
            objects.append(found)
        else:
            bad += 1
    return Lines(objects, bad)


def _lines(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        marked = file.read(3)
        file.seek(0)
        lines = utf8(file.read()).splitlines(keepends=True) if utf8(marked) != marked else file
        for line in lines:
            if line.strip(b" \t\r\n\0"):
                yield line


def as_float(value: object) -> float | None:
    """A number out of a JSON value, or None where it is none.

    >>> as_float("NaN")
    nan
    >>> as_float(True) is None
    True
    """
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        return float(value)
    except (ValueError, OverflowError):
        return None


def as_int(value: object) -> int | None:
    """A whole number of at most 64 bits out of a JSON value, or None where it is none.

    >>> as_int(3.0), as_int("x")
    (3, None)
    """
    if type(value) is int:
        return value if -(1 << 63) <= value < 1 << 63 else None
    number = as_float(value)
    return int(number) if number is not None and abs(number) < 1 << 63 and number.is_integer() else None


def numbers_of(values: object) -> dict[str, float]:
    """The numbers of a JSON object by name; none where it is no object."""
    if not isinstance(values, dict):
        return {}
    return {str(name): number for name, value in values.items() if (number := as_float(value)) is not None}
