"""Exact match: the visible answer equals the reference, up to case, punctuation, articles and blanks.

Source: the normalisation of SQuAD's official script (Rajpurkar et al., 2016,
https://arxiv.org/abs/1606.05250). Ours also takes thoughts and special tokens off both sides, compares
compatible Unicode forms as equal, and removes the punctuation of every script, not only of ASCII.
"""

from __future__ import annotations

import re
import string
import sys
import unicodedata
from collections.abc import Mapping, Sequence
from functools import cache

from tunebook.metrics.response import fold, reference_text, shown
from tunebook.types import UNPARSED, Figure, Metric, Score

_ASCII_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ARTICLE = re.compile(r"\b(?:a|an|the)\b")


def normalise(text: str) -> str:
    """Lower case without punctuation, articles and repeated blanks; look-alike characters are equal.

    >>> normalise("The  Eiffel Tower!"), normalise("「東京」。"), normalise("１８ ％")
    ('eiffel tower', '東京', '18')
    """
    if text.isascii():
        plain = text.lower().translate(_ASCII_PUNCTUATION)
    else:
        # Case is folded before compatible forms are composed, and after: some letters need both.
        plain = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", fold(text)).casefold())
        plain = plain.translate(_punctuation())
    return " ".join(_ARTICLE.sub(" ", plain).split())


@cache
def _punctuation() -> dict[int, None]:
    """Every character that Unicode calls punctuation, and ASCII's symbols, as SQuAD's script removes them."""
    found = [code for code in range(sys.maxunicode) if unicodedata.category(chr(code)).startswith("P")]
    return dict.fromkeys([*found, *map(ord, string.punctuation)])


def score(prediction: str, reference: str) -> Score:
    """Compare a prediction with the reference; of both, what a reader of the chat sees.

    Returns:
        `exact_match` 1.0 or 0.0 after `normalise`, `verbatim` without it, except for outer blanks.

    Raises:
        ValueError: The reference shows nothing: the data is wrong, not the model.

    >>> score("<think>Rome?</think> Paris.", "paris").values["exact_match"]
    1.0
    >>> score("It’s fine", "It’s fine").values
    {'exact_match': 1.0, 'verbatim': 1.0}
    """
    wanted = reference_text(reference, turn=True)
    said, reason = shown(prediction, turn=True)
    if reason is not None:
        return Score(
            values={"exact_match": 0.0, "verbatim": 0.0}, parsed=None, reference=wanted, reason=reason
        )
    # A reference of nothing but punctuation is compared as it is.
    equal = normalise(said) == normalise(wanted) if normalise(wanted) else fold(said) == fold(wanted)
    return Score(
        values={"exact_match": float(equal), "verbatim": float(said == wanted)},
        parsed=said,
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
    figures=(Figure(name="exact_match"), Figure(name="verbatim", detail=True), UNPARSED),
    select_by="exact_match",
    default_max_new_tokens=64,
)
