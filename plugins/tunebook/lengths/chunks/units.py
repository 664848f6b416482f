"""A document as a row of small units, words as a rule, each with its tokens and the border before it.

A document has many words and few different ones, so tokens are counted once for each different word, and a
document of any length costs one look-up a word. The sum is an estimate: tokens at the seams may merge. Pieces
are counted exactly once they are cut.
"""

from __future__ import annotations

import re
from enum import IntEnum
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from tunebook.lengths.chunks.tokens import Tokens

    Ints = np.ndarray[tuple[int], np.dtype[np.int64]]


class Border(IntEnum):
    """What stands between two units; the larger, the better to cut at."""

    TOKEN = 0
    WORD = 1
    SENTENCE = 2
    """The end of a sentence or of a line."""
    PARAGRAPH = 3
    """An empty line, or the end of the document."""


class Units(NamedTuple):
    """A document's units. Border i stands before unit i; the last one is the document's end."""

    tokens: Ints
    """Tokens before each border, estimated; one more than there are units."""
    positions: Ints
    """Character of each border. Blanks before a unit belong to what stands before the border."""
    borders: Ints
    """`Border` of each."""


# A word with the few blanks before it, or a run of blanks. Scripts without blanks are split behind the ends
# of their sentences.
_UNIT = re.compile(r"\s{0,8}(?:[^\s。！？]+(?:[。！？]+[」』”’）】]*)?|[。！？]+[」』”’）】]*)|\s+")
_SENTENCE_ENDS = frozenset(".!?…。！？:;")
_BEHIND_SENTENCES = "\"'”’»)]」』）】*_"

_LONG_SHARE = 8
"""A unit above 1 / 8 of a piece may be cut inside, where nothing better is near."""
_ANCHOR = "x"
"""Stands before a unit that begins with a blank: some tokenizers put a blank before every text."""
_KEPT_CHARACTERS = 4 << 20
"""Characters of different units remembered, with all that is known of them some 100 MB."""

_TOKENS, _BLANK, _BEFORE, _AFTER, _LENGTH = range(5)


class UnitReader:
    """Splits documents into units, and remembers what it has counted.

    Args:
        tokens: The tokenizer.
        max_tokens: Of a piece. Units that are long beside it are split at token borders.
    """

    def __init__(self, tokens: Tokens, max_tokens: int) -> None:
        self._tokens = tokens
        self._longest = max(1, max_tokens // _LONG_SHARE)
        self._anchor_tokens = tokens.count_words([_ANCHOR])[0]
        self._numbers: dict[str, int] = {}
        self._facts = np.zeros((4096, 5), dtype=np.int64)
        self._kept = 0

    def read(self, texts: Sequence[str]) -> list[Units]:
        """Split documents, none of them empty."""
        if self._kept > _KEPT_CHARACTERS:
            self._numbers, self._kept = {}, 0
        parts = [_UNIT.findall(text) for text in texts]
        self._learn({part for document in parts for part in document if part not in self._numbers})
        return [self._units(text, document) for text, document in zip(texts, parts, strict=True)]

    def _units(self, text: str, parts: Sequence[str]) -> Units:
        numbers = np.fromiter(map(self._numbers.__getitem__, parts), dtype=np.int64, count=len(parts))
        facts = self._facts[numbers]
        borders = np.full(len(parts) + 1, Border.PARAGRAPH, dtype=np.int64)
        borders[1:-1] = np.maximum(facts[1:, _BEFORE], facts[:-1, _AFTER])
        positions = _running(facts[:, _LENGTH])
        positions[1:-1] += facts[1:, _BLANK]
        units = Units(_running(facts[:, _TOKENS]), positions, borders)
        return self._split_long(text, units, np.flatnonzero(facts[:, _TOKENS] > self._longest))

    def _split_long(self, text: str, units: Units, long: Ints) -> Units:
        """Put a border before every token inside the units `long`."""
        if not len(long):
            return units
        tokens: list[int] = []
        positions: list[int] = []
        places: list[int] = []
        for index in long.tolist():
            first, end = (int(position) for position in units.positions[index : index + 2])
            starts = self._tokens.starts(text[first:end])
            # Several tokens may share one character.
            inner = [n for n in range(1, len(starts)) if starts[n] > starts[n - 1]]
            tokens += [int(units.tokens[index]) + n for n in inner]
            positions += [first + starts[n] for n in inner]
            places += [index + 1] * len(inner)
        return Units(
            # The tokens of a unit by itself may be more than were estimated of it.
            np.maximum.accumulate(np.insert(units.tokens, places, tokens)),
            np.insert(units.positions, places, positions),
            np.insert(units.borders, places, Border.TOKEN),
        )

    def _learn(self, parts: Iterable[str]) -> None:
        new = list(parts)
        counts = self._tokens.count_words([_ANCHOR + part if part[0].isspace() else part for part in new])
        rows = [
            _facts_of(part, count - self._anchor_tokens if part[0].isspace() else count)
            for part, count in zip(new, counts, strict=True)
        ]
        if not rows:
            return
        first = len(self._numbers)
        while first + len(rows) > len(self._facts):
            self._facts = np.concatenate([self._facts, np.zeros_like(self._facts)])
        self._facts[first : first + len(rows)] = rows
        self._numbers.update(zip(new, range(first, first + len(rows)), strict=True))
        self._kept += sum(map(len, new))


def _facts_of(part: str, tokens: int) -> tuple[int, int, int, int, int]:
    """Tokens, blanks at the beginning, the borders before and after, and characters of a unit."""
    blanks = part[: len(part) - len(part.lstrip())]
    lines = 0 if blanks in ("", " ") else len(f"{blanks}.".splitlines()) - 1
    before = Border.PARAGRAPH if lines > 1 else Border.SENTENCE if lines else Border.WORD
    if len(blanks) == len(part):
        return max(1, tokens), 0, before, before, len(part)
    after = Border.SENTENCE if part.rstrip(_BEHIND_SENTENCES)[-1:] in _SENTENCE_ENDS else Border.WORD
    return max(1, tokens), len(blanks), before, after, len(part)


def _running(values: Ints) -> Ints:
    """Sums of the first 0, 1, 2, ... values."""
    return np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(values, dtype=np.int64)])
