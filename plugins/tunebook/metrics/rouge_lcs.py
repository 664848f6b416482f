"""Longest common subsequences on Python's big integers: their length, and the one rouge-score picks.

Both are Hyyro's bit-parallel rows of the dynamic programme (Hyyro, "Bit-parallel LCS-length computation
revisited", 2004). One text lies along the bits of an integer, the other is stepped through. After each
step, a zero bit i of the vector V says that the table grows by one from cell i to cell i + 1.

rouge-score then walks back from the last cell of its table t, at (i, j) = (length of the reference,
length of the candidate): it takes the match where the two words are equal; otherwise it goes left if
`t[i][j-1] > t[i-1][j]`, else up. Without a match, t[i][j] is the larger of those two, so it goes left
exactly where t[i][j] - t[i-1][j] is 1. That is a bit we have, so one column of the walk is one search for
the highest set bit, and no table is needed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


def lcs_length(first: Sequence[int], second: Sequence[int]) -> int:
    """Length of a longest common subsequence; time len(first) * len(second) / 30 digit operations."""
    start = 0
    end = min(len(first), len(second))
    while start < end and first[start] == second[start]:
        start += 1
    tail = 0
    while tail < end - start and first[-1 - tail] == second[-1 - tail]:
        tail += 1
    first = first[start : len(first) - tail]
    second = second[start : len(second) - tail]
    # Words of one side only match nothing, and the length does not depend on them.
    along = list(filter(set(second).__contains__, first))
    masks = match_masks(along)
    vector = full = (1 << len(along)) - 1
    for mask in filter(None, map(masks.get, second)):
        match = vector & mask
        vector = (vector + match) | (vector ^ match)
    return start + tail + len(along) - (vector & full).bit_count()


def match_masks(words: Sequence[int]) -> dict[int, int]:
    """For each word the integer whose set bits are its positions in `words`."""
    masks: dict[int, int] = {}
    so_far = masks.get
    bit = 1
    for word in words:
        masks[word] = so_far(word, 0) | bit
        bit += bit
    return masks


def taken_along_reference(masks: Mapping[int, int], length: int, candidate: Sequence[int]) -> int:
    """The reference positions rouge-score takes against one candidate sentence, as set bits.

    Args:
        masks: `match_masks` of the reference sentence.
        length: Words of the reference sentence.
        candidate: Word ids; a run of words that the reference lacks may be given as one such word.
    """
    vector = (1 << length) - 1
    steps: list[tuple[int, int]] = []
    after_match = False
    for mask in map(masks.get, candidate):
        if mask:
            match = vector & mask
            vector = (vector + match) | (vector ^ match)
            steps.append((mask, vector))
            after_match = True
        elif after_match:
            # Without a match the table's column repeats, and the walk still passes through it: from the
            # row where it enters it goes up to the next step of the table. A second one changes nothing.
            steps.append((0, vector))
            after_match = False
    taken = 0
    below = (1 << length) - 1
    for mask, vector in reversed(steps):
        row = ((mask | ~vector) & below).bit_length()
        if not row:
            break
        top = 1 << row - 1
        if mask & top:
            taken |= top
            below = top - 1
        else:
            below = (top << 1) - 1
    return taken


def taken_along_candidate(reference: Sequence[int], masks: Mapping[int, int], length: int) -> int:
    """As `taken_along_reference`, with the candidate along the bits: for one much longer than the reference.

    Args:
        reference: Word ids of the reference sentence.
        masks: `match_masks` of the candidate sentence.
        length: Words of the candidate sentence.
    """
    vector = (1 << length) - 1
    steps: list[tuple[int, int, int]] = []
    for row, mask in enumerate(map(masks.get, reference)):
        # A word the candidate lacks repeats the table's row, and the walk goes straight up through it.
        if mask:
            match = vector & mask
            total = vector + match
            # Carries out of position j: where this row of the table exceeds the last one by 1.
            grown = (vector ^ match ^ total) >> 1
            vector = total | (vector ^ match)
            steps.append((row, mask, grown))
    taken = 0
    below = (1 << length) - 1
    for row, mask, grown in reversed(steps):
        column = ((mask | ~grown) & below).bit_length()
        if not column:
            break
        top = 1 << column - 1
        if mask & top:
            taken |= 1 << row
            below = top - 1
        else:
            below = (top << 1) - 1
    return taken
