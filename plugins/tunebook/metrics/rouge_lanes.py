"""The walk of `rouge_lcs` for many sentence pairs at once: one pair to a numpy lane.

A lane holds one reference sentence along the bits of an int32 and steps through one candidate sentence.
An array of lanes has a row for each candidate sentence and a column for each reference sentence; several
documents share it, so that the price of a numpy call is split between them.

A word of a lane carries 30 positions, in bits 1 to 30: the sign bit stays free, so that the highest set
bit can be read out of a float32 exponent in half the operations that shifting and or-ing takes. Longer
sentences take several words, with a carry between them. Bit 0 always stops the walk: it stands for "no
position left in this word".
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    Lanes = NDArray[np.int32]
    Indices = NDArray[np.int64]

POSITIONS = 30
"""Reference positions in one word of a lane."""
LANES = 24_000
"""Lane words that step together: enough to pay for the calls, few enough to stay in the cache."""
SLAB = 256
"""Reference sentences side by side at most, which bounds the table of matches."""
HISTORY_BYTES = 16 << 20
"""What the steps of one array of lanes may take; the walk back reads them all."""

_PAYLOAD = np.int32((1 << POSITIONS + 1) - 2)
_ALL_BELOW = np.int32((1 << POSITIONS + 1) - 1)
_SIGN_AND_EXPONENT = np.int32(-(1 << 23))
"""The bits of a float32 beside its fraction: with the fraction at 0, it is a power of two."""


class Block(NamedTuple):
    """Reference sentences of one document, alike in lane words, against its candidate sentences."""

    reference: Sequence[Sequence[int]]
    """Each sentence as local ids from 1 to `vocabulary`."""
    repeats: Sequence[int]
    """How often each of them stands in the reference."""
    candidate: Sequence[Sequence[int]]
    """Each sentence as local ids, 0 for words that the reference lacks; none has only these."""
    vocabulary: int


def lane_words(length: int) -> int:
    """Words of a lane that a reference sentence of `length` words needs."""
    return -(-length // POSITIONS)


def estimated_us(blocks: Sequence[Block]) -> float:
    """About how long `taken_counts` takes, in microseconds on one core of 2024: to choose by, no more."""
    words = lane_words(max(len(sentence) for block in blocks for sentence in block.reference))
    width = max(len(block.reference) for block in blocks)
    lengths = [len(sentence) for block in blocks for sentence in block.candidate]
    calls = max(lengths) * -(-len(lengths) * width * words // _lanes_at_once(max(lengths)))
    return 150 + words * (12 * calls + 0.003 * width * sum(lengths))


def taken_counts(blocks: Sequence[Block]) -> list[list[int]]:
    """How often each word is taken, by the union over the candidate sentences of what rouge-score takes.

    Returns:
        For each block, by local id from 0, the reference positions taken.
    """
    # Entries of the table of matches: 0 for the words no reference has, then each block's vocabulary.
    offsets = np.cumsum([0, *(block.vocabulary for block in blocks)])
    cells = _Cells.of(blocks, offsets)
    rows = _Rows.of(blocks, offsets)
    words = int(cells.word.max()) + 1
    width = max(len(block.reference) for block in blocks)
    union = np.zeros((words, len(blocks), width), np.int32)
    slab = min(width, SLAB, max(1, _lanes_at_once(rows.longest) // words))
    for left in range(0, width, slab):
        right = min(left + slab, width)
        table = cells.match_table(int(offsets[-1]) + 1, left, right)
        for owners, columns in rows.chunks(words * (right - left)):
            taken = _walk(table, columns)
            order = np.argsort(owners, kind="stable")
            blocks_here, starts = np.unique(owners[order], return_index=True)
            united = np.bitwise_or.reduceat(taken[:, order], starts, axis=1)
            union[:, blocks_here, left:right] |= united
    is_taken = union[cells.word, cells.block, cells.sentence] & cells.bit != 0
    counts = np.bincount(
        cells.entry[is_taken], weights=cells.repeats[is_taken], minlength=int(offsets[-1]) + 1
    )
    # Entry 0 is no word; each block's local id 1 is the entry after its offset.
    return [[0, *map(int, counts[begin + 1 : end + 1])] for begin, end in itertools.pairwise(offsets)]


class _Cells(NamedTuple):
    """Every reference position of the blocks: whose it is, and where its bit lies. All of one length."""

    block: Indices
    sentence: Indices
    repeats: Indices
    entry: Indices
    word: Indices
    bit: Lanes

    @classmethod
    def of(cls, blocks: Sequence[Block], offsets: Indices) -> _Cells:
        sentences = [sentence for block in blocks for sentence in block.reference]
        lengths = np.array([len(sentence) for sentence in sentences])
        heights = [len(block.reference) for block in blocks]
        block = np.repeat(np.repeat(np.arange(len(blocks)), heights), lengths)
        place = np.concatenate([np.arange(height) for height in heights])
        repeats = np.array([count for block in blocks for count in block.repeats])
        position = _ramps(lengths)
        return cls(
            block=block,
            sentence=np.repeat(place, lengths),
            repeats=np.repeat(repeats, lengths),
            entry=_flat(sentences, len(position)) + offsets[block],
            word=position // POSITIONS,
            bit=np.left_shift(2, position % POSITIONS).astype(np.int32),
        )

    def match_table(self, entries: int, left: int, right: int) -> Lanes:
        """Where each word stands in each sentence from `left` to `right`: (words, entries, sentences)."""
        table = np.zeros((int(self.word.max()) + 1, entries, right - left), np.int32)
        here = (self.sentence >= left) & (self.sentence < right)
        # No bit is set twice, so adding is or-ing; numpy has a fast loop for the former only.
        np.add.at(table, (self.word[here], self.entry[here], self.sentence[here] - left), self.bit[here])
        return table


class _Rows(NamedTuple):
    """The candidate sentences of all blocks, the longest first."""

    owner: Indices
    """The block of each."""
    start: Indices
    """Where each begins in `entries`."""
    length: Indices
    entries: Indices

    @property
    def longest(self) -> int:
        return int(self.length[0])

    @classmethod
    def of(cls, blocks: Sequence[Block], offsets: Indices) -> _Rows:
        sentences = [sentence for block in blocks for sentence in block.candidate]
        length = np.array([len(sentence) for sentence in sentences])
        owner = np.repeat(np.arange(len(blocks)), [len(block.candidate) for block in blocks])
        entries = _flat(sentences, int(length.sum()))
        entries += np.where(entries > 0, np.repeat(offsets[owner], length), 0)
        # Steps without a match anywhere: a second one in a row changes nothing, nor does one at the start.
        previous = np.concatenate(([0], entries[:-1]))
        previous[np.cumsum(length)[:-1]] = 0
        keep = (entries > 0) | (previous > 0)
        length = np.add.reduceat(keep, np.cumsum(length) - length, dtype=np.int64)
        entries = entries[keep]
        order = np.argsort(-length, kind="stable")
        start = np.cumsum(length) - length
        return cls(owner=owner[order], start=start[order], length=length[order], entries=entries)

    def chunks(self, lane_words_per_row: int) -> Iterator[tuple[Indices, list[Indices]]]:
        """Rows that fit together, and for each step the table entries of those that are that long."""
        first = 0
        while first < len(self.owner):
            lanes = _lanes_at_once(int(self.length[first]))
            rows = slice(first, first + max(1, lanes // lane_words_per_row))
            start, length = self.start[rows], self.length[rows]
            active = np.searchsorted(-length, -np.arange(length[0]), side="left")
            columns = [self.entries[start[:count] + step] for step, count in enumerate(active)]
            yield self.owner[rows], columns
            first = rows.stop


def _lanes_at_once(steps: int) -> int:
    # Each step leaves a mask and a vector of four bytes for each lane word.
    return max(1, min(LANES, HISTORY_BYTES // (8 * steps)))


def _walk(table: Lanes, columns: Sequence[Indices]) -> Lanes:
    """Step forward through the columns and walk back: the positions taken, (words, rows, sentences)."""
    words, _, width = table.shape
    shape = (len(columns[0]), width)
    vectors = [np.full(shape, _PAYLOAD) for _ in range(words)]
    history: list[list[tuple[Lanes, Lanes]]] = []
    for column in columns:
        rows = len(column)
        steps = []
        carry: Lanes | None = None
        for word in range(words):
            mask = table[word].take(column, axis=0)
            vector = vectors[word][:rows]
            match = vector & mask
            total = vector + match
            if carry is not None:
                total += carry
            vector = total | (vector ^ match)
            if word < words - 1:
                carry = (total >> POSITIONS) & 2
                vector &= _PAYLOAD
            vectors[word] = vector
            steps.append((mask, vector))
        history.append(steps)

    taken = np.zeros((words, *shape), np.int32)
    below = np.full((words, *shape), _ALL_BELOW)
    for steps in reversed(history):
        rows = len(steps[0][0])
        waiting: Lanes | None = None
        for word in reversed(range(words)):
            mask, vector = steps[word]
            top = _highest_bit((mask | ~vector) & below[word, :rows])
            hit = top & mask
            bound = (top - 1 | top) ^ hit
            if waiting is not None:
                # A higher word has stopped the walk: this one keeps all its positions.
                hit &= waiting
                bound |= ~waiting & _ALL_BELOW
            taken[word, :rows] |= hit
            below[word, :rows] = bound
            if word:
                exhausted = -(top & 1)
                waiting = exhausted if waiting is None else waiting & exhausted
    return taken


def _highest_bit(values: Lanes) -> Lanes:
    """The highest set bit of each value, all of them at least 0."""
    # float32 keeps 24 bits and rounds. With the second bit cleared it cannot round up to the next power.
    floats = (values & ~(values >> 1)).astype(np.float32)
    bits = floats.view(np.int32)
    bits &= _SIGN_AND_EXPONENT
    return floats.astype(np.int32)


def _flat(sentences: Sequence[Sequence[int]], total: int) -> Indices:
    return np.fromiter(itertools.chain.from_iterable(sentences), np.int64, total)


def _ramps(lengths: Indices) -> Indices:
    """0 to length - 1 for each length, one after the other."""
    return np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
