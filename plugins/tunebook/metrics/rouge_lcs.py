"""Length of a longest common subsequence on Python's big integers.

Hyyro's bit-parallel row of the dynamic programme (Hyyro, "Bit-parallel LCS-length computation revisited",
2004). One text lies along the bits of an integer, the other is stepped through. After each step, a zero
bit i of the vector says that the table grows by one from cell i to cell i + 1.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


def lcs_length(first: Sequence[int], second: Sequence[int]) -> int:
    """Length of a longest common subsequence; time len(first) * len(second) / 30 digit operations."""
    if len(first) > len(second):
        # Building the masks takes the square of the length of what lies along the bits.
        first, second = second, first
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
    return start + tail + steps_of(filter(None, map(masks.get, second)), len(along))


def match_masks(words: Sequence[int]) -> dict[int, int]:
    """For each word the integer whose set bits are its positions in `words`."""
    masks: dict[int, int] = {}
    so_far = masks.get
    bit = 1
    for word in words:
        masks[word] = so_far(word, 0) | bit
        bit += bit
    return masks


def steps_of(columns: Iterable[int], length: int) -> int:
    """How often the table grows along its last column.

    Args:
        columns: For each word of the other text, the positions where it stands in the one along the bits.
        length: Positions of the text along the bits.
    """
    vector = full = (1 << length) - 1
    for mask in columns:
        match = vector & mask
        vector = (vector + match) | (vector ^ match)
    return length - (vector & full).bit_count()
