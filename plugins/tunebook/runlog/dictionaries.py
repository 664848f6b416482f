"""Finds and parses the dictionaries that a Trainer prints between progress bars."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, NamedTuple

import orjson

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

_CHUNK = 4 << 20
_OPEN = b"{'"
_OF_TRAINER = re.compile(rb"'(?:loss|epoch|eval_)")
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

    data: bytes
    at_ends: list[bytes]
    """What lines end with that end with `}`, from their first `{` on: mostly the dictionaries."""
    rest: bytes
    """The lines that do not end with `}`."""

    @property
    def is_plain(self) -> bool:
        """Whether no dictionary of a Trainer stands elsewhere than at the end of a line."""
        return _OPEN not in self.rest or not _OF_TRAINER.search(self.rest)


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
    return Chunk(
        data,
        [line[line.find(b"{") :] for line in lines if line[-1:] == b"}"],
        b"\n".join([line for line in lines if line[-1:] != b"}"]),
    )


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
