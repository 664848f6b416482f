"""Length of a longest common subsequence, on Python's big integers.

Hyyro's bit-parallel row of the dynamic programme (Hyyro, "Bit-parallel LCS-length computation revisited",
2004). One text is laid along the bits of an integer, the other is stepped through. After each step, a zero
bit i of the vector says that the table grows by one from cell i to cell i + 1.

Long texts whose words hardly repeat have few matches, and those are gone through one by one (Hunt and
Szymanski, "A fast algorithm for computing longest common subsequences", 1977).
"""

from __future__ import annotations

import itertools
import operator
import sys
from bisect import bisect_left
from collections import Counter, defaultdict
from functools import reduce
from typing import TYPE_CHECKING, NamedTuple

from tunebook.errors import TunebookError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


MATCH_BITS = 6_000
"""Bits of a vector that are stepped in the time that one match takes on its own."""


def lcs_length(first: Sequence[int], second: Sequence[int]) -> int:
    """Length of a longest common subsequence; time len(first) * len(second) / 30 digit operations at most."""
    if len(first) > len(second):
        # Building the masks takes the square of the length of the text along the bits.
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
        columns: For each word of the other text, its positions in the one along the bits.
        length: Positions of the text along the bits.
    """
    vector = full = (1 << length) - 1
    for mask in columns:
        match = vector & mask
        vector = (vector + match) | (vector ^ match)
    return length - (vector & full).bit_count()


# What rougeL and rougeLsum count between texts of several sentences, exactly as rouge-score 0.1.2 does.
#
# rougeL counts the words of a longest common subsequence of the texts. For rougeLsum, rouge-score takes one
# longest common subsequence of each reference sentence with every candidate sentence, unites the reference
# positions, and counts a position unless its word has been counted as often as the candidate has it. The
# order of that clipping does not matter: the hits are, summed over the words, the smaller of the times it is
# taken and how often the candidate has it.
#
# Which subsequence: rouge-score walks back from the last cell of its table t, at (i, j) = (length of the
# reference, length of the candidate). It takes the match where the two words are equal; otherwise it goes
# left if `t[i][j-1] > t[i-1][j]`, else up. Without a match, t[i][j] is the larger of those two, so it goes
# left exactly where t[i][j] - t[i-1][j] is 1. That is a zero bit of the vector that `rouge_lcs` keeps for
# each column. So in column j the walk goes up to the first position that is such a bit or a match. A match
# it takes; from a zero bit it goes left to the last place where the candidate has the word of that position,
# since only a match of that word can have made the bit zero. Either way, each search finds a word it takes.

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    Sentences = Sequence[Sequence[int]]
    Letters = Sequence[str]

STRIP_POSITIONS = 4000
"""Positions of reference sentences along one integer: more make fewer but longer operations."""
HISTORY_BYTES = 64 << 20
"""What the vectors of one candidate sentence may take; the walks back read them."""

MOST_WORDS = sys.maxunicode
"""Different words that two texts may share: each is a letter."""

_ABSENT = "\0"
_ONE_IF_ONE = bytes(byte == ord("1") for byte in range(256))


class Subsequences(NamedTuple):
    """Both counts, from 0 to the words of the shorter text."""

    longest: int
    hits: int


class _Strip(NamedTuple):
    """Distinct reference sentences side by side along the bits of one integer, a spare bit after each.

    The spare bit takes the carry out of a sentence, so that one addition steps all of them.
    """

    letters: list[str]
    """By position from 1; `_ABSENT` at the spare bits."""
    lanes: list[tuple[int, int]]
    """By bit from 0: the first bit of its sentence, and as many set bits as the sentence has words."""
    masks: dict[str, int]
    """The bits where each letter is."""
    full: int
    """The bits of all words."""
    repeats: int
    """How often the reference has each of the sentences."""


def subsequences(reference: Sentences, candidate: Sentences, shared: Mapping[int, int]) -> Subsequences:
    """Count what a candidate has of a reference in its order, as a whole and by sentence.

    Args:
        reference: Word ids by sentence.
        candidate: Word ids by sentence.
        shared: How often the candidate has each word that both have.

    Raises:
        TunebookError: The texts share more than `MOST_WORDS` different words; each then has megabytes.
    """
    if len(shared) > MOST_WORDS:
        raise TunebookError(
            f"prediction and reference share {len(shared):,} different words; {MOST_WORDS:,} are the most",
            fix="score shorter texts",
        )
    # Words become letters, so that the last place of a word is found by a search in a string. Reference
    # words that the candidate lacks change nothing. Candidate words that the reference lacks must stay:
    # they change which subsequence is taken (reference `a a`, candidate `a x`).
    letter_of = {word: chr(number) for number, word in enumerate(shared, 1)}
    wanted = [found for line in reference if (found := tuple(filter(None, map(letter_of.get, line))))]
    absent = itertools.repeat(_ABSENT)
    predicted = [tuple(map(letter_of.get, sentence, absent)) for sentence in candidate]
    # The long ones first: they take the most, and what is taken needs no further walk.
    distinct = sorted(set(predicted), key=len, reverse=True)
    history = HISTORY_BYTES * 8 // max(map(len, distinct), default=1)
    taken: defaultdict[str, int] = defaultdict(int)
    positions = sum(map(len, wanted)) + len(wanted)
    longest = None
    for strip in _strips(_counted(wanted), min(STRIP_POSITIONS, history)):
        for letter, count in _taken(strip, distinct).items():
            taken[letter] += strip.repeats * count
        if len(strip.lanes) == positions:
            # It is the whole reference, in its order. A spare bit is as good as a word that never matches.
            columns = filter(None, map(strip.masks.get, itertools.chain.from_iterable(predicted)))
            longest = steps_of(columns, len(strip.lanes))
    if longest is None:
        longest = lcs_length(*(list(itertools.chain.from_iterable(text)) for text in (reference, candidate)))
    times_taken = map(taken.get, letter_of.values(), itertools.repeat(0))
    return Subsequences(longest, hits=sum(map(min, shared.values(), times_taken)))


def _counted(sentences: Sequence[Letters]) -> Sequence[tuple[Letters, int]]:
    """Sentences with their repeats, in order of these; in the given order and 1 each where few repeat."""
    times = Counter(sentences)
    # A strip for each number of repeats costs more than a few sentences laid twice.
    if len(sentences) < 2 * len(times):
        return [(sentence, 1) for sentence in sentences]
    return sorted(times.items(), key=operator.itemgetter(1))


def _strips(counted: Sequence[tuple[Letters, int]], positions: int) -> Iterator[_Strip]:
    """Strips of sentences with the same repeats: one sentence, or more up to so many positions."""
    together: list[Letters] = []
    length = last = 0
    for sentence, repeats in counted:
        if together and (length + len(sentence) > positions or repeats != last):
            yield _lay(together, last)
            together, length = [], 0
        together.append(sentence)
        length += len(sentence) + 1
        last = repeats
    if together:
        yield _lay(together, last)


def _lay(sentences: Sequence[Letters], repeats: int) -> _Strip:
    letters = [_ABSENT]
    lanes: list[tuple[int, int]] = []
    masks: dict[str, int] = {}
    so_far = masks.get
    full = 0
    bit = 1
    for sentence in sentences:
        before = bit
        for letter in sentence:
            masks[letter] = so_far(letter, 0) | bit
            bit += bit
        full += bit - before
        bit += bit
        length = len(sentence)
        lanes += [(len(lanes), (1 << length) - 1)] * (length + 1)
        letters += sentence
        letters.append(_ABSENT)
    return _Strip(letters, lanes, masks, full, repeats)


def _taken(strip: _Strip, candidate: Sequence[Letters]) -> Counter[str]:
    """How often each letter of the strip is taken, by the union over the candidate sentences."""
    mask_of, full = strip.masks.get, strip.full
    zeros = itertools.repeat(0)
    waiting = full
    for sentence in candidate:
        columns = list(map(mask_of, sentence, zeros))
        # Whatever this sentence could take may be taken already.
        wanted = reduce(operator.or_, columns) & waiting
        if wanted:
            waiting &= full ^ _walk(strip, sentence, _stops(columns, full), wanted)
    # The highest bit is the first digit.
    digits = format(full ^ waiting, f"0{len(strip.lanes)}b").encode().translate(_ONE_IF_ONE)
    return Counter(itertools.compress(reversed(strip.letters), digits))


def _stops(columns: Sequence[int], full: int) -> list[int]:
    """By column from 1, the positions where the walk ends its way up: matches and zero bits; none at 0."""
    vector = full
    zeros = 0
    stops = [0]
    for mask in columns:
        if mask:
            match = vector & mask
            vector = (vector + match | vector ^ match) & full
            zeros = vector ^ full
            stops.append(zeros | mask)
        else:
            stops.append(zeros)
    return stops


def _walk(strip: _Strip, sentence: Letters, stops: Sequence[int], wanted: int) -> int:
    """What is taken of the reference sentences with a wanted position, down to the last wanted one."""
    letters, lanes = strip.letters, strip.lanes
    last_place = "".join(sentence).rfind
    taken = 0
    while wanted:
        start, below = lanes[wanted.bit_length() - 1]
        here = wanted >> start
        wanted ^= here << start
        lowest = here & -here
        column = len(sentence)
        taken_here = 0
        while row := (stops[column] >> start & below).bit_length():
            top = 1 << row - 1
            taken_here |= top
            if top <= lowest:
                break
            below = top - 1
            column = last_place(letters[start + row], 0, column)
        taken |= taken_here << start
    return taken
