"""Exact match: the visible answer equals the reference, up to case, punctuation, articles and blanks.

Source: the normalisation of SQuAD's official script (Rajpurkar et al., 2016,
https://arxiv.org/abs/1606.05250). Thoughts and special tokens are removed first, which it does not do.
"""

from __future__ import annotations

import re
import string
from collections.abc import Mapping, Sequence

from tunebook.metrics import UNPARSED
from tunebook.metrics.response import visible
from tunebook.types import Figure, Metric, Score

_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ARTICLE = re.compile(r"\b(?:a|an|the)\b")


def normalise(text: str) -> str:
    """Lower case without punctuation, articles and repeated blanks.

    >>> normalise("The  Eiffel Tower!")
    'eiffel tower'
    """
    return " ".join(_ARTICLE.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def score(prediction: str, reference: str) -> Score:
    """Compare a prediction with the reference.

    Returns:
        `exact_match` 1.0 or 0.0 after `normalise`, `verbatim` without it (outer blanks aside).

    Raises:
        ValueError: The reference is blank: the data is wrong, not the model.

    >>> score("<think>Rome?</think> Paris.", "paris").values["exact_match"]
    1.0
    """
    wanted = reference.strip()
    if not wanted:
        raise ValueError("the reference is blank")
    said = visible(prediction)
    if said.reason is not None:
        return Score(
            values={"exact_match": 0.0, "verbatim": 0.0}, parsed=None, reference=wanted, reason=said.reason
        )
    equal = normalise(said.text) == normalise(wanted) if normalise(wanted) else said.text == wanted
    return Score(
        values={"exact_match": float(equal), "verbatim": float(said.text == wanted)},
        parsed=said.text,
        reference=wanted,
        rule="visible",
    )


def aggregate(scores: Sequence[Score]) -> Mapping[str, float]:
    """Means over all examples; a blank or unfinished prediction counts as wrong."""
    if not scores:
        return {}
    n = len(scores)
    return {
        "exact_match": sum(score.values["exact_match"] for score in scores) / n,
        "verbatim": sum(score.values["verbatim"] for score in scores) / n,
        "unparsed_rate": sum(score.parsed is None for score in scores) / n,
    }


METRIC = Metric(
    name="exact_match",
    score=score,
    aggregate=aggregate,
    figures=(Figure(name="exact_match"), Figure(name="verbatim"), UNPARSED),
    select_by="exact_match",
    default_max_new_tokens=64,
)
