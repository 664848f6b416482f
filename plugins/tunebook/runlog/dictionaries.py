"""Finds and parses the dictionaries that a Trainer prints between progress bars."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, NamedTuple

import orjson

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

_CHUNK = 8 << 20
_OPEN = b"{'"
DICTIONARY = re.compile(rb"\{'[^{}\r\n]*\}")
"""Never anchored to the start of a line: the rest of a bar stands there."""
_WORDS = (
    (b": nan", b': "nan"'),
    (b": inf", b': "inf"'),
    (b": -inf", b': "-inf"'),
    (b": None", b": null"),
    (b": True", b": true"),
    (b": False", b": false"),
)


class Chunk(NamedTuple):
    """A stretch of a log, which ends at the end of a line."""

    dictionaries: list[bytes]
    """In their order."""
    rest: bytes
    """The lines that do not end with a dictionary."""


def chunks(path: Path) -> Iterator[Chunk]:
    """The log in pieces of some megabytes; a line is never cut in two."""
    rest = b""
    with path.open("rb") as file:
        while data := file.read(_CHUNK):
            data = rest + data
            end = max(data.rfind(b"\n"), data.rfind(b"\r")) + 1
            if not end and len(data) < 8 * _CHUNK:
                rest = data
                continue
            rest = data[end:] if end else b""
            yield _chunk(data[:end] if rest else data)
    if rest:
        yield _chunk(rest)


def _chunk(data: bytes) -> Chunk:
    lines = data.split(b"\n")
    rest = b"\n".join([line for line in lines if line[-1:] != b"}"])
    found = [line[line.find(_OPEN) :] for line in lines if line[-1:] == b"}"]
    joined = b"".join(found)
    # One to a line and at its end, as they are printed; else by the pattern, at twice the price.
    plain = joined.count(b"{") == joined.count(b"}") == len(found) and b"\r" not in joined
    if not plain or not all(one.startswith(_OPEN) for one in found) or _OPEN in rest:
        found = DICTIONARY.findall(data)
    return Chunk(found, rest)


def parse(found: Sequence[bytes]) -> tuple[list[dict[str, Any]], int]:
    """Parse Python dictionaries as JSON; returns those that are whole, and how many were not."""
    if not found:
        return [], 0
    text = _as_json(b",".join(found))
    try:
        return orjson.loads(b"[" + text + b"]"), 0
    except orjson.JSONDecodeError:
        return _parse_each(found)


def _parse_each(found: Iterable[bytes]) -> tuple[list[dict[str, Any]], int]:
    parsed, bad = [], 0
    for one in found:
        try:
            parsed.append(orjson.loads(_as_json(one)))
        except orjson.JSONDecodeError:
            bad += b"'loss'" in one or b"'eval_" in one
    return parsed, bad


def _as_json(text: bytes) -> bytes:
    text = text.replace(b"'", b'"')
    for python, json in _WORDS:
        if python in text:
            text = text.replace(python, json)
    return text
