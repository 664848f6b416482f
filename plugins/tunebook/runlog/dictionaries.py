"""Finds and parses the dictionaries that a Trainer prints between progress bars."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, NamedTuple

import orjson

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

_CHUNK = 1 << 20
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
    """Some lines of a log, each whole."""

    lines: list[bytes]
    at_ends: list[bytes]
    """What lines end with that end with `}`, from their first `{` on: mostly the dictionaries."""
    rest: bytes
    """The lines that do not end with `}`."""

    @property
    def is_plain(self) -> bool:
        """Whether no dictionary of a Trainer stands elsewhere than at the end of a line."""
        return _OPEN not in self.rest or not _OF_TRAINER.search(self.rest)

    def dictionaries(self) -> list[bytes]:
        """All dictionaries, wherever they stand."""
        return DICTIONARY.findall(b"\n".join(self.lines))


def chunks(path: Path) -> Iterator[Chunk]:
    """The log in pieces of about a megabyte; a line is never cut in two."""
    begun = b""
    with path.open("rb") as file:
        while data := file.read(_CHUNK):
            lines = data.split(b"\n")
            lines[0] = begun + lines[0]
            begun = lines.pop()
            if len(begun) > _CHUNK:
                # Bars alone, which are drawn over each other.
                end = begun.rfind(b"\r") + 1 or len(begun)
                lines.append(begun[:end])
                begun = begun[end:]
            if lines:
                yield _chunk(lines)
    if begun:
        yield _chunk([begun])


def _chunk(lines: list[bytes]) -> Chunk:
    return Chunk(
        lines,
        [line[line.find(b"{") :] for line in lines if line[-1:] == b"}"],
        b"\n".join([line for line in lines if line[-1:] != b"}"]) + b"\n",
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
