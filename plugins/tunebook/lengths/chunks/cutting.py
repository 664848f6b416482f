"""Cuts documents at the last good border that a piece has room for.

A document is a list of small units, words as a rule, each with its tokens and the border before it. It has
many words and few different ones, so tokens are counted once for each different word, and a document of any
length costs one look-up a word. The sum is an estimate, since tokens may merge across units; pieces are
counted exactly once they are cut.
"""

from __future__ import annotations

import re
from enum import IntEnum
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from tunebook.lengths.chunks.tokens import Tokens

    Ints = np.ndarray[tuple[int], np.dtype[np.int64]]

_FULL = 0.9
"""A document whose pieces hold less than this of what they could is cut again, with more room."""
_MORE_ROUNDS = 3
"""Times that is tried."""


class Piece(NamedTuple):
    """A stretch of a document, in characters."""

    start: int
    end: int
    overlap: int
    """Characters at the start that the piece before holds too."""
    tokens: int
    """Of the piece encoded by itself, without special tokens."""


class Cutter:
    """Cuts documents into pieces of at most so many tokens.

    Args:
        tokens: The tokenizer.
        max_tokens: Of a piece, as counted by encoding it.
        overlap: Tokens, at most, that a piece repeats of the one before; at most half of `max_tokens`.
    """

    def __init__(self, tokens: Tokens, max_tokens: int, overlap: int = 0) -> None:
        if not 0 <= overlap <= max_tokens // 2:
            raise ValueError(f"an overlap of {overlap} for pieces of {max_tokens}")
        self._tokens = tokens
        self._max_tokens = max_tokens
        self._overlap = overlap
        self._reader = UnitReader(tokens, max_tokens)

    def cut(self, texts: Sequence[str]) -> list[list[Piece]]:
        """Cut several documents at once. Each is its pieces, with the overlaps left out, put together.

        An empty document is one empty piece.

        Raises:
            ValueError: `max_tokens` is too few for a single character of a document.
        """
        short = [n for n, text in enumerate(texts) if len(text) <= self._max_tokens]
        counts = self._tokens.count([texts[n] for n in short])
        done = {
            n: [Piece(0, len(texts[n]), 0, count)]
            for n, count in zip(short, counts, strict=True)
            if count <= self._max_tokens
        }
        long = [n for n in range(len(texts)) if n not in done]
        done |= self._fitted(texts, dict(zip(long, self._reader.read([texts[n] for n in long]), strict=True)))
        return [done[n] for n in range(len(texts))]

    def _fitted(self, texts: Sequence[str], units: dict[int, Units]) -> dict[int, list[Piece]]:
        """Cut by the estimate, count, and cut again what came out too long or far too short."""
        done: dict[int, list[Piece]] = {}
        limits = dict.fromkeys(units, self._max_tokens)
        rounds = dict.fromkeys(units, 0)
        while limits:
            cuts = {n: list(self._cut(units[n], limit)) for n, limit in limits.items()}
            for n, pieces in self._counted(texts, cuts).items():
                most = max(piece.tokens for piece in pieces)
                if most > self._max_tokens:
                    limits[n] = _shrunk(limits[n], self._max_tokens, most)
                else:
                    done[n] = min(done.get(n, pieces), pieces, key=len)
                    limits[n] = self._stretched(units[n], limits[n], pieces)
                rounds[n] += n in done
                if not limits[n] or rounds[n] > _MORE_ROUNDS:
                    del limits[n]
        return done

    def _counted(
        self, texts: Sequence[str], cuts: dict[int, list[tuple[int, int, int]]]
    ) -> dict[int, list[Piece]]:
        counts = iter(
            self._tokens.count([texts[n][start:end] for n, spans in cuts.items() for start, end, _ in spans])
        )
        return {n: [Piece(*span, next(counts)) for span in spans] for n, spans in cuts.items()}

    def _stretched(self, units: Units, limit: int, pieces: Sequence[Piece]) -> int:
        """A limit that fills the pieces of a document whose tokens merge across words; 0 if they are full."""
        found = np.searchsorted(units.positions, [(piece.start, piece.end) for piece in pieces])
        estimated = int((units.tokens[found[:, 1]] - units.tokens[found[:, 0]]).sum())
        counted = sum(piece.tokens for piece in pieces)
        more = int(self._max_tokens * estimated / counted * 0.99)
        return more if len(pieces) > 1 and more * _FULL > limit else 0

    def _cut(self, units: Units, limit: int) -> Iterator[tuple[int, int, int]]:
        """Yield start, end and overlap of each piece, by the estimate."""
        tokens, positions, borders = units
        last = len(tokens) - 1
        first = old = 0
        overlap = self._overlap * limit // self._max_tokens
        while True:
            room = int(tokens[first]) + limit
            end = max(int(np.searchsorted(tokens, room, "right")) - 1, old + 1)
            if end < last:
                low = max(int(np.searchsorted(tokens, room - limit // 2)), old + 1)
                end = _best(borders, min(low, end), end)
            yield int(positions[first]), int(positions[end]), int(positions[old] - positions[first])
            if end >= last:
                return
            first, old = self._overlap_start(units, end, overlap, limit), end

    @staticmethod
    def _overlap_start(units: Units, end: int, overlap: int, limit: int) -> int:
        """Where the next piece begins: as far back as allowed, at a sentence where there is one."""
        if not overlap:
            return end
        # The piece must have room for something new.
        earliest = max(int(units.tokens[end]) - overlap, int(units.tokens[end + 1]) - limit)
        low = min(int(np.searchsorted(units.tokens, earliest)), end)
        for wanted in (Border.SENTENCE, Border.WORD):
            found = np.flatnonzero(units.borders[low:end] >= wanted)
            if len(found):
                return low + int(found[0])
        return low


def _best(borders: Ints, low: int, high: int) -> int:
    """The last of the best borders from `low` to `high`."""
    window = borders[low : high + 1]
    return low + int(np.flatnonzero(window == window.max())[-1])


def _shrunk(limit: int, max_tokens: int, most: int) -> int:
    """A smaller limit, where a piece came out longer than estimated."""
    smaller = min(limit - 1, limit * max_tokens // most)
    if smaller < 1:
        raise ValueError(f"a single character takes more than {max_tokens} tokens")
    return smaller


class Border(IntEnum):
    """What is between two units; the larger, the better to cut at."""

    TOKEN = 0
    WORD = 1
    SENTENCE = 2
    """The end of a sentence or of a line."""
    PARAGRAPH = 3
    """An empty line, or the end of the document."""


class Units(NamedTuple):
    """A document's units. Border i is before unit i; the last one is the document's end."""

    tokens: Ints
    """Tokens before each border, estimated; one more than there are units."""
    positions: Ints
    """Character of each border. Blanks before a unit belong to what is before the border."""
    borders: Ints
    """`Border` of each."""


# A word with the few blanks before it, or a run of blanks. Scripts without blanks are split after the ends
# of their sentences.
_UNIT = re.compile(r"\s{0,8}(?:[^\s。！？]+(?:[。！？]+[」』”’）】]*)?|[。！？]+[」』”’）】]*)|\s+")
_SENTENCE_ENDS = frozenset(".!?…。！？:;")
_AFTER_SENTENCES = "\"'”’»)]」』）】*_"

_LONG_SHARE = 8
"""A unit above 1 / 8 of a piece may be cut inside, where nothing better is near."""
_ANCHOR = "x"
"""Put before a unit that begins with a blank, since some tokenizers put a blank before every text."""
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
    after = Border.SENTENCE if part.rstrip(_AFTER_SENTENCES)[-1:] in _SENTENCE_ENDS else Border.WORD
    return max(1, tokens), len(blanks), before, after, len(part)


def _running(values: Ints) -> Ints:
    """Sums of the first 0, 1, 2, ... values."""
    return np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(values, dtype=np.int64)])
