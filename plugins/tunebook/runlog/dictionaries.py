"""Finds and parses the dictionaries that a Trainer prints between progress bars."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import orjson

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

_CHUNK = 8 << 20
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


def dictionaries(path: Path) -> Iterator[list[bytes]]:
    """The dictionaries of the file, a list for each chunk; a line is never cut in two."""
    rest = b""
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            chunk = rest + chunk
            end = max(chunk.rfind(b"\n"), chunk.rfind(b"\r")) + 1
            if not end and len(chunk) < 8 * _CHUNK:
                rest = chunk
                continue
            yield DICTIONARY.findall(chunk, 0, end or len(chunk))
            rest = chunk[end:] if end else b""
    yield DICTIONARY.findall(rest)


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
