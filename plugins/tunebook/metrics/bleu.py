"""Corpus BLEU by sacrebleu, so that the figure can be compared with published ones; see `signature`."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from tunebook.errors import TunebookError
from tunebook.metrics.response import reference_text, shown
from tunebook.types import UNPARSED, Figure, Metric, Score

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

ORDERS = 4
"""Longest n-gram that BLEU counts."""


def score(prediction: str, reference: str) -> Score:
    """Sentence BLEU of one prediction, and the counts that corpus BLEU is made of.

    Returns:
        `sentence_bleu` from 0 to 100, with sacrebleu's smoothing and effective order; the lengths
        `bleu_prediction_tokens` and `bleu_reference_tokens`; `bleu_matches_<n>` and `bleu_ngrams_<n>` for n
        from 1 to 4. A prediction that shows nothing scores 0.0 and has `parsed=None`. Of both texts
        what a reader of the chat sees is compared: without thoughts, see `response.shown`.

    Raises:
        ValueError: The reference shows nothing.
        TunebookError: sacrebleu is not installed.

    Source: Post, "A call for clarity in reporting BLEU scores", 2018, https://aclanthology.org/W18-6319.
    """
    said, reason = shown(prediction)
    result = _bleu(sentence=True).sentence_score(said, [reference_text(reference)])
    values = {
        "sentence_bleu": float(result.score),
        "bleu_prediction_tokens": float(result.sys_len),
        "bleu_reference_tokens": float(result.ref_len),
    }
    for order, (matches, ngrams) in enumerate(zip(result.counts, result.totals, strict=True), 1):
        values[f"bleu_matches_{order}"] = float(matches)
        values[f"bleu_ngrams_{order}"] = float(ngrams)
    return Score(values=values, parsed=None if reason else said, reason=reason)


def aggregate(scores: Sequence[Score]) -> Mapping[str, float]:
    """Corpus BLEU of all predictions together; empty when there are none.

    Returns:
        `bleu` from 0 to 100, equal to `sacrebleu.corpus_bleu`: not the mean of `sentence_bleu`.
        `brevity_penalty` from 0 to 1; `length_ratio`, prediction tokens over reference tokens;
        `unparsed_rate`, the share of empty predictions.
    """
    if not scores:
        return {}

    def total(name: str) -> int:
        return int(sum(score.values[name] for score in scores))

    result = _bleu(sentence=False).compute_bleu(
        correct=[total(f"bleu_matches_{order}") for order in range(1, ORDERS + 1)],
        total=[total(f"bleu_ngrams_{order}") for order in range(1, ORDERS + 1)],
        sys_len=total("bleu_prediction_tokens"),
        ref_len=total("bleu_reference_tokens"),
        smooth_method="exp",
    )
    return {
        "bleu": float(result.score),
        "brevity_penalty": float(result.bp),
        "length_ratio": result.sys_len / result.ref_len,
        "unparsed_rate": sum(score.parsed is None for score in scores) / len(scores),
    }


def signature() -> str:
    """The signature sacrebleu gives the figure `bleu`; print it wherever the figure is published.

    Raises:
        TunebookError: sacrebleu is not installed.
    """
    bleu = _bleu(sentence=False)
    # sacrebleu learns the number of references, which the signature names, when it sees some.
    bleu.corpus_score(["a"], [["a"]])
    return str(bleu.get_signature())


METRIC = Metric(
    name="bleu",
    score=score,
    aggregate=aggregate,
    figures=(
        Figure(name="bleu", label="BLEU", high=100.0),
        Figure(name="brevity_penalty", detail=True),
        Figure(name="length_ratio", high=None, descriptive=True, detail=True),
        UNPARSED,
    ),
    select_by="bleu",
    signature=signature,
    default_max_new_tokens=512,
)


@functools.cache
def _bleu(*, sentence: bool) -> Any:
    try:
        from sacrebleu.metrics import BLEU
    except ImportError as err:
        raise TunebookError(
            "BLEU needs sacrebleu, which is not installed", fix="pip install sacrebleu"
        ) from err
    return BLEU(effective_order=sentence)
