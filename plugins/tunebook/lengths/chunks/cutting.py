"""Where to cut: the last good border that a piece has room for."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from tunebook.lengths.chunks.units import Border, UnitReader

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tunebook.lengths.chunks.tokens import Tokens
    from tunebook.lengths.chunks.units import Units

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


def _best(borders: np.ndarray[tuple[int], np.dtype[np.int64]], low: int, high: int) -> int:
    """The last of the best borders from `low` to `high`."""
    window = borders[low : high + 1]
    return low + int(np.flatnonzero(window == window.max())[-1])


def _shrunk(limit: int, max_tokens: int, most: int) -> int:
    """A smaller limit, where a piece came out longer than estimated."""
    smaller = min(limit - 1, limit * max_tokens // most)
    if smaller < 1:
        raise ValueError(f"a single character takes more than {max_tokens} tokens")
    return smaller
