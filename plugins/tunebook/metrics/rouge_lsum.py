"""Hits of summary-level ROUGE-L (rougeLsum), exactly as rouge-score 0.1.2 counts them.

For each reference sentence, rouge-score takes one longest common subsequence with every candidate
sentence, unites the reference positions, and counts a position unless its word has been counted as often
as the candidate has it. The order of that clipping does not matter: the hits are, summed over the words,
the smaller of the times it is taken and the times it stands in the candidate.
"""

from __future__ import annotations

import itertools
from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from tunebook.metrics.rouge_lanes import LANES, POSITIONS, Block, lane_words, taken_counts
from tunebook.metrics.rouge_lcs import match_masks, taken_along_candidate, taken_along_reference

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    Sentences = Sequence[Sequence[int]]

GROUP_LANES = 1 << 16
"""Lanes that documents are gathered to before they are walked together."""
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
    """The hits of rougeLsum for each pair; precision is hits / candidate words, recall hits / reference words."""
    documents = [_reduce(pair) for pair in pairs]
    taken = [np.array(document.sure) for document in documents]
    owned = [(number, block) for number, document in enumerate(documents) for block in document.blocks]
    for group in _groups(owned):
        blocks = [block for _, block in group]
        counts = taken_counts(blocks) if _lanes_pay(blocks) else map(_taken_one_by_one, blocks)
        for (number, _), count in zip(group, counts, strict=True):
            taken[number] += count
    return [
        int(np.minimum(count, document.available).sum())
        for count, document in zip(taken, documents, strict=True)
    ]


def _reduce(pair: Pair) -> _Document:
    """Leave out what cannot change the hits: repeated sentences, and reference words the candidate lacks.

    Candidate words that the reference lacks must stay, as 0: they change which subsequence is taken
    (reference `a a`, candidate `a x`). But a run of them acts like one, and at the start of a sentence
    they do nothing.
    """
    available = Counter(itertools.chain.from_iterable(pair.candidate))
    shared = available.keys() & set(itertools.chain.from_iterable(pair.reference))
    local = {word: number for number, word in enumerate(shared, 1)}
    references = Counter(tuple([local[word] for word in sentence if word in local]) for sentence in pair.reference)
    candidates = set()
    for sentence in set(map(tuple, pair.candidate)):
        words = [local.get(word, 0) for word in sentence]
        reduced = tuple([word for last, word in itertools.pairwise([0, *words]) if word or last])
        if reduced:
            candidates.add(reduced)
    sure = [0] * (len(local) + 1)
    by_words: dict[int, list[tuple[int, ...]]] = {}
    for sentence in references:
        if len(sentence) == 1:
            # The candidate has the word, so some subsequence takes it.
            sure[sentence[0]] += references[sentence]
        elif sentence:
            by_words.setdefault(lane_words(len(sentence)), []).append(sentence)
    candidate = list(candidates)
    blocks = [
        Block(sentences, [references[sentence] for sentence in sentences], candidate, len(local))
        for sentences in by_words.values()
    ]
    return _Document(blocks, [0, *(available[word] for word in shared)], sure)


def _groups(owned: Iterable[tuple[int, Block]]) -> Iterator[list[tuple[int, Block]]]:
    """Gather blocks with as many lane words and about as many reference sentences."""
    group: list[tuple[int, Block]] = []
    key = (0, 0)
    rows = entries = 0
    for number, block in sorted(owned, key=lambda item: _size(item[1]), reverse=True):
        words, width = _size(block)
        rows += len(block.candidate)
        entries += block.vocabulary
        fits = words == key[0] and 4 * width >= 3 * key[1]
        small = rows * key[1] <= GROUP_LANES and entries * key[1] * words <= GROUP_TABLE
        if group and not (fits and small):
            yield group
            group = []
        if not group:
            key, rows, entries = (words, width), len(block.candidate), block.vocabulary
        group.append((number, block))
    if group:
        yield group


def _size(block: Block) -> tuple[int, int]:
    return lane_words(max(map(len, block.reference))), len(block.reference)


def _lanes_pay(blocks: Sequence[Block]) -> bool:
    """Whether numpy is quicker than one pair at a time: each step costs some 20 calls, each lane a trifle."""
    words, width = _size(blocks[0])
    lengths = [len(sentence) for block in blocks for sentence in block.candidate]
    chunks = -(-len(lengths) * width * words // LANES)
    lanes_us = words * (max(lengths) * chunks * 20 * 0.4 + sum(lengths) * width * 0.003)
    one_by_one_us = sum(
        len(block.reference) * min(len(sentence), 4 * POSITIONS * words) * 0.15
        for block in blocks
        for sentence in block.candidate
    )
    return lanes_us < one_by_one_us


def _taken_one_by_one(block: Block) -> list[int]:
    candidates = [(sentence, len(sentence), dict[int, int]()) for sentence in block.candidate]
    counts = [0] * (block.vocabulary + 1)
    for sentence, repeats in zip(block.reference, block.repeats, strict=True):
        masks = match_masks(sentence)
        length = len(sentence)
        taken = 0
        for candidate, candidate_length, candidate_masks in candidates:
            if candidate_length > 4 * length:
                if not candidate_masks:
                    candidate_masks.update(match_masks(candidate))
                taken |= taken_along_candidate(sentence, candidate_masks, candidate_length)
            else:
                taken |= taken_along_reference(masks, length, candidate)
        for position, word in enumerate(sentence):
            if taken >> position & 1:
                counts[word] += repeats
    return counts
