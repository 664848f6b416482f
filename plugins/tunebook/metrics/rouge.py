"""ROUGE: how many words, word pairs and subsequences a prediction shares with its reference.

Every number equals that of rouge-score 0.1.2, to the last bit and for every input; `docs/rouge.md` says how
it is reached at a fraction of the time and memory. `score` and `score_many` give precision, recall and F of
rouge1, rouge2, rougeL and rougeLsum; `METRIC` is the same as a metric for evaluation.
"""

from __future__ import annotations

import itertools
from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

from tunebook.metrics.rouge_lcs import lcs_length
from tunebook.metrics.rouge_lsum import Pair, hits
from tunebook.metrics.rouge_tokens import sentences, word_ids
from tunebook.types import Metric, Score

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence

TYPES = ("rouge1", "rouge2", "rougeL", "rougeLsum")
BATCH_WORDS = 50_000
"""Words of predictions and references that `score_many` holds at a time."""


class Rouge(NamedTuple):
    """One kind of overlap; each from 0 to 1."""

    precision: float
    recall: float
    fmeasure: float


class RougeScores(NamedTuple):
    """The four kinds for one prediction."""

    rouge1: Rouge
    rouge2: Rouge
    rougeL: Rouge  # noqa: N815 - the published name
    rougeLsum: Rouge  # noqa: N815


def score(prediction: str, reference: str, use_stemmer: bool = True) -> RougeScores:
    """ROUGE of one prediction.

    Args:
        prediction: The text to judge.
        reference: The text it should be like; for rougeLsum, a line is a sentence in both.
        use_stemmer: Compare Porter stems of the words of four letters or more; needs nltk.

    Raises:
        TunebookError: `use_stemmer`, and nltk is not installed.

    Source: Lin, "ROUGE: a package for automatic evaluation of summaries", 2004, as rouge-score 0.1.2
    computes it; there the reference comes first.

    >>> score("the cat sat", "the cat sat down").rougeL
    Rouge(precision=1.0, recall=0.75, fmeasure=0.8571428571428571)
    """
    (scores,) = score_many([(prediction, reference)], use_stemmer)
    return scores


def score_many(pairs: Iterable[tuple[str, str]], use_stemmer: bool = True) -> list[RougeScores]:
    """ROUGE of many `(prediction, reference)` pairs: as `score` one by one, but faster.

    >>> [scores.rouge1.recall for scores in score_many([("a b", "a b"), ("a", "a b")])]
    [1.0, 0.5]
    """
    return [scores for batch in _batches(pairs, use_stemmer) for scores in _score_batch(batch)]


def _batches(pairs: Iterable[tuple[str, str]], use_stemmer: bool) -> Iterator[list[Pair]]:
    batch: list[Pair] = []
    words = 0
    for prediction, reference in pairs:
        ids = word_ids(use_stemmer=use_stemmer)
        pair = Pair(sentences(reference, ids), sentences(prediction, ids))
        batch.append(pair)
        words += sum(map(len, pair.reference)) + sum(map(len, pair.candidate))
        if words > BATCH_WORDS:
            yield batch
            batch, words = [], 0
    if batch:
        yield batch


def _score_batch(batch: Sequence[Pair]) -> Iterator[RougeScores]:
    for pair, summary_hits in zip(batch, hits(batch), strict=True):
        reference = list(itertools.chain.from_iterable(pair.reference))
        candidate = list(itertools.chain.from_iterable(pair.candidate))
        m, n = len(reference), len(candidate)
        pairs_of_words = _overlap(list(itertools.pairwise(reference)), list(itertools.pairwise(candidate)))
        yield RougeScores(
            rouge1=_rouge(_overlap(reference, candidate), n, m),
            rouge2=_rouge(pairs_of_words, n - 1, m - 1),
            rougeL=_rouge(lcs_length(reference, candidate), n, m),
            rougeLsum=_rouge(summary_hits, n, m),
        )


def _overlap(reference: Sequence[Hashable], candidate: Sequence[Hashable]) -> int:
    available = Counter(candidate)
    return sum(min(count, available[item]) for item, count in Counter(reference).items() if item in available)


def _rouge(shared: int, candidate: int, reference: int) -> Rouge:
    # The order of the operations is rouge-score's: another one differs in the last bit.
    precision = shared / max(candidate, 1)
    recall = shared / max(reference, 1)
    if precision + recall > 0:
        return Rouge(precision, recall, 2 * precision * recall / (precision + recall))
    return Rouge(precision, recall, 0.0)
