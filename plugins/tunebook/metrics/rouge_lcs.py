"""Length of a longest common subsequence, on Python's big integers.

Hyyro's bit-parallel row of the dynamic programme (Hyyro, "Bit-parallel LCS-length computation revisited",
2004). One text lies along the bits of an integer, the other is stepped through. After each step, a zero
bit i of the vector says that the table grows by one from cell i to cell i + 1.

Long texts whose words hardly repeat have few matches, and those are gone through one by one (Hunt and
Szymanski, "A fast algorithm for computing longest common subsequences", 1977).
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

MATCH_BITS = 6_000
"""Bits of a vector that are stepped in the time that one match takes on its own."""


def lcs_length(first: Sequence[int], second: Sequence[int]) -> int:
    """Length of a longest common subsequence; time len(first) * len(second) / 30 digit operations at most."""
    if len(first) > len(second):
        # Building the masks takes the square of the length of what lies along the bits.
        first, second = second, first
    start = 0
    end = len(first)
    while start < end and first[start] == second[start]:
        start += 1
    tail = 0
    while tail < end - start and first[-1 - tail] == second[-1 - tail]:
        tail += 1
    # Words of one side only match nothing, and the length does not depend on them.
    shared = set(first).intersection(second)
    along, across = (
        list(filter(shared.__contains__, words[start : len(words) - tail])) for words in (first, second)
    )
    if len(along) > MATCH_BITS and matches(along, across) * MATCH_BITS < len(along) * len(across):
        return start + tail + by_matches(along, across)
    masks = match_masks(along)
    return start + tail + steps_of(filter(None, map(masks.get, across)), len(along))


def matches(first: Sequence[int], second: Sequence[int]) -> int:
    """Pairs of positions with equal words."""
    times = Counter(second)
    return sum(count * times[word] for word, count in Counter(first).items())


def by_matches(first: Sequence[int], second: Sequence[int]) -> int:
    """Length of a longest common subsequence, in time with the number of matches."""
    places: dict[int, list[int]] = {}
    for place in reversed(range(len(first))):
        places.setdefault(first[place], []).append(place)
    # Where the best subsequences of length 1, 2, ... end. The later places first: they must not build on
    # each other.
    ends: list[int] = []
    for word in second:
        for place in places.get(word, ()):
            rank = bisect_left(ends, place)
            ends[rank : rank + 1] = [place]
    return len(ends)


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
