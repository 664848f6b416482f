"""Corpus chrF by sacrebleu: F over character n-grams, for languages that ROUGE and BLEU cut badly."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from tunebook.errors import TunebookError
from tunebook.metrics.response import reference_text, shown
from tunebook.types import UNPARSED, Figure, Metric, Score

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

ORDERS = 6
"""Longest character n-gram that chrF counts."""
_COUNTS = tuple(
    f"chrf_{count}_{order}"
    for order in range(1, ORDERS + 1)
    for count in ("prediction_ngrams", "reference_ngrams", "matches")
)
"""Names of the counts, in sacrebleu's order."""


def score(prediction: str, reference: str) -> Score:
    """Sentence chrF of one prediction, and the counts that corpus chrF is made of.

    Returns:
        `sentence_chrf` from 0 to 100; `chrf_prediction_ngrams_<n>`, `chrf_reference_ngrams_<n>` and
        `chrf_matches_<n>` for n from 1 to 6. A prediction that shows nothing scores 0.0 and has
        `parsed=None`. Of both texts what a reader of the chat sees is compared: without thoughts.

    Raises:
        ValueError: The reference shows nothing.
        TunebookError: sacrebleu is not installed.

    Source: Popovic, "chrF: character n-gram F-score for automatic MT evaluation", 2015,
    https://aclanthology.org/W15-3049.
    """
    said, reason = shown(prediction)
    # The counts have no public name in sacrebleu 2; its own significance tests take them from here too.
    (counts,) = _chrf()._extract_corpus_statistics([said], [[reference_text(reference)]])
    values = {name: float(count) for name, count in zip(_COUNTS, counts, strict=True)}
    values["sentence_chrf"] = float(_chrf()._aggregate_and_compute([counts]).score)
    return Score(values=values, parsed=None if reason else said, reason=reason)


def aggregate(scores: Sequence[Score]) -> Mapping[str, float]:
    """Corpus chrF of all predictions together; empty when there are none.

    Returns:
        `chrf` from 0 to 100, equal to `sacrebleu.corpus_chrf`: not the mean of `sentence_chrf`.
        `unparsed_rate`, the share of empty predictions.
    """
    if not scores:
        return {}
    counts = [int(sum(score.values[name] for score in scores)) for name in _COUNTS]
    return {
        "chrf": float(_chrf()._aggregate_and_compute([counts]).score),
        "unparsed_rate": sum(score.parsed is None for score in scores) / len(scores),
    }


def signature() -> str:
    """The signature sacrebleu gives the figure `chrf`; print it wherever the figure is published.

    Raises:
        TunebookError: sacrebleu is not installed.
    """
    # sacrebleu learns the number of references, which the signature names, when it sees some.
    _chrf().corpus_score(["a"], [["a"]])
    return str(_chrf().get_signature())


METRIC = Metric(
    name="chrf",
    score=score,
    aggregate=aggregate,
    figures=(Figure(name="chrf", label="chrF", high=100.0), UNPARSED),
    select_by="chrf",
    signature=signature,
    default_max_new_tokens=512,
)


@functools.cache
def _chrf() -> Any:
    try:
        from sacrebleu.metrics import CHRF
    except ImportError as err:
        raise TunebookError(
            "chrF needs sacrebleu, which is not installed", fix="pip install sacrebleu"
        ) from err
    return CHRF()
