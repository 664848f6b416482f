"""Hits of summary-level ROUGE-L (rougeLsum), exactly as rouge-score 0.1.2 counts them.

For each reference sentence, rouge-score takes one longest common subsequence with every candidate
sentence, unites the reference positions, and counts a position unless its word has been counted as often
as the candidate has it. The order of that clipping does not matter: the hits are, summed over the words,
the smaller of the times it is taken and the times it stands in the candidate.
"""

from __future__ import annotations

import itertools
import operator
from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

from tunebook.metrics.rouge_lanes import Block, estimated_us, lane_words, taken_counts
from tunebook.metrics.rouge_lcs import match_masks, taken_along_candidate, taken_along_reference

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    Sentences = Sequence[Sequence[int]]

LONG_CANDIDATE = 4
"""Times a candidate sentence is longer than the reference sentence from where it lies along the bits."""
GROUP_LANES = 1 << 16
"""Lanes that documents are gathered to before they are walked together."""
FREE_LANES = 1 << 13
"""Lanes that take about as long as the numpy calls around them, so that empty ones do no harm."""
GROUP_TABLE = 1 << 22
"""Cells of the table of matches of such a group."""


class Pair(NamedTuple):
    """One reference and one candidate, as word ids by sentence; no sentence is empty."""

    reference: Sentences
    candidate: Sentences


class _Document(NamedTuple):
    """A pair brought down to what the hits depend on."""

    blocks: list[Block]
    """Reference sentences by number of lane words."""
    available: list[int]
    """By local id, the times the word stands in the candidate; 0 for local id 0."""
    sure: list[int]
    """By local id, the times it is taken from reference sentences that need no walk."""


def hits(pairs: Sequence[Pair]) -> list[int]:
    """The hits of rougeLsum for each pair, from 0 to the words of its shorter text."""
    documents = [_reduce(pair) for pair in pairs]
    taken = [document.sure for document in documents]
    owned = [(number, block) for number, document in enumerate(documents) for block in document.blocks]
    for group in _groups(owned):
        blocks = [block for _, block in group]
        lanes_pay = estimated_us(blocks) < sum(map(_one_by_one_us, blocks))
        counts = taken_counts(blocks) if lanes_pay else map(_taken_one_by_one, blocks)
        for (number, _), count in zip(group, counts, strict=True):
            taken[number] = list(map(operator.add, taken[number], count))
    return [
        sum(map(min, count, document.available)) for count, document in zip(taken, documents, strict=True)
    ]


def _reduce(pair: Pair) -> _Document:
    """Leave out what cannot change the hits: repeated sentences, and reference words the candidate lacks.

    Candidate words that the reference lacks must stay, as 0: they change which subsequence is taken
    (reference `a a`, candidate `a x`).
    """
    available = Counter(itertools.chain.from_iterable(pair.candidate))
    shared = available.keys() & set(itertools.chain.from_iterable(pair.reference))
    local = {word: number for number, word in enumerate(shared, 1)}
    references = Counter(tuple(filter(None, map(local.get, sentence))) for sentence in pair.reference)
    absent = itertools.repeat(0)
    candidates = {tuple(map(local.get, sentence, absent)) for sentence in pair.candidate}
    sure = [0] * (len(local) + 1)
    by_words: dict[int, list[tuple[int, ...]]] = {}
    for sentence in references:
        if len(sentence) == 1:
            # The candidate has the word, so some subsequence takes it.
            sure[sentence[0]] += references[sentence]
        elif sentence:
            by_words.setdefault(lane_words(len(sentence)), []).append(sentence)
    candidate = [sentence for sentence in candidates if any(sentence)]
    blocks = [
        Block(sentences, [references[sentence] for sentence in sentences], candidate, len(local))
        for sentences in by_words.values()
    ]
    return _Document(blocks, [0, *(available[word] for word in shared)], sure)


def _groups(owned: Iterable[tuple[int, Block]]) -> Iterator[list[tuple[int, Block]]]:
    """Gather blocks that may share an array of lanes; every lane then is as large as the largest needs."""
    group: list[tuple[int, Block]] = []
    rows = entries = most_words = most_width = needed = 0
    for number, block in sorted(owned, key=lambda item: _size(item[1]), reverse=True):
        words, width = _size(block)
        rows += len(block.candidate)
        entries += block.vocabulary
        most_words, most_width = max(words, most_words), max(width, most_width)
        needed += len(block.candidate) * width * words
        lanes = rows * most_width * most_words
        wasteful = lanes > max(FREE_LANES, needed * 4 // 3)
        large = lanes > GROUP_LANES or entries * most_width * most_words > GROUP_TABLE
        if group and (wasteful or large):
            yield group
            group = []
            rows, entries = len(block.candidate), block.vocabulary
            most_words, most_width, needed = words, width, rows * width * words
        group.append((number, block))
    if group:
        yield group


def _size(block: Block) -> tuple[int, int]:
    return lane_words(max(map(len, block.reference))), len(block.reference)


def _one_by_one_us(block: Block) -> float:
    """About how long `_taken_one_by_one` takes, in the unit of `rouge_lanes.estimated_us`."""
    words = sum(map(len, block.reference))
    length = words / len(block.reference)
    # A step without a match is short, and the longer the text along the bits, the rarer it is.
    along_reference = 0.12 + 0.3 * min(1, length / 200) + length / 4000
    return sum(
        words * (0.6 + len(sentence) / 4000)
        if len(sentence) > LONG_CANDIDATE * length
        else len(block.reference) * len(sentence) * along_reference
        for sentence in block.candidate
    )


def _taken_one_by_one(block: Block) -> list[int]:
    candidates = [(sentence, len(sentence), dict[int, int]()) for sentence in block.candidate]
    counts = [0] * (block.vocabulary + 1)
    for sentence, repeats in zip(block.reference, block.repeats, strict=True):
        masks = match_masks(sentence)
        length = len(sentence)
        taken = 0
        for candidate, candidate_length, candidate_masks in candidates:
            if candidate_length > LONG_CANDIDATE * length:
                if not candidate_masks:
                    candidate_masks.update(match_masks(candidate))
                taken |= taken_along_candidate(sentence, candidate_masks, candidate_length)
            else:
                taken |= taken_along_reference(masks, length, candidate)
        for position, word in enumerate(sentence):
            if taken >> position & 1:
                counts[word] += repeats
    return counts
