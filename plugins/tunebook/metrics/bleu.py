"""Corpus BLEU by sacrebleu, so that the figure can be compared with published ones; see `signature`."""

from __future__ import annotations

import dataclasses
import functools
from typing import TYPE_CHECKING, Any

from tunebook.errors import TunebookError
from tunebook.metrics import scripts
from tunebook.metrics.response import reference_text, shown
from tunebook.types import UNPARSED, Figure, Metric, Score, with_options

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

ORDERS = 4
"""Longest n-gram that BLEU counts."""


TOKENIZERS = ("13a", "intl", "zh", "ja-mecab", "ko-mecab", "char", "auto")
"""Values of the option `tokenize`: sacrebleu's names, and `auto`."""
_LANGUAGES = {"zh": "chinese", "ja-mecab": "japanese", "ko-mecab": "korean"}
_INSTALL = {"ja-mecab": "pip install 'sacrebleu[ja]'", "ko-mecab": "pip install 'sacrebleu[ko]'"}


def score(prediction: str, reference: str, tokenize: str = "13a") -> Score:
    """Sentence BLEU of one prediction, and the counts that corpus BLEU is made of.

    Args:
        prediction: The model's output.
        reference: What it should be like.
        tokenize: One of sacrebleu's tokenizers, or `auto`, by the reference's script: `zh` for Chinese,
            `char` for other scripts without spaces, else `13a`.

    Returns:
        `sentence_bleu` from 0 to 100, with sacrebleu's smoothing and effective order; the lengths
        `bleu_prediction_tokens` and `bleu_reference_tokens`; `bleu_matches_<n>` and `bleu_ngrams_<n>` for n
        from 1 to 4. A prediction that shows nothing scores 0.0 and has `parsed=None`. Of both texts
        what a reader of the chat sees is compared: without thoughts, see `response.shown`.

    Raises:
        ValueError: The reference shows nothing, or less than half of its letters can be compared: `13a` and
            `intl` make one token of a sentence without spaces.
        TunebookError: sacrebleu, or what it needs for this tokenizer, is not installed.

    Source: Post, "A call for clarity in reporting BLEU scores", 2018, https://aclanthology.org/W18-6319.
    """
    said, reason = shown(prediction)
    text = reference_text(reference)
    unspaced = scripts.mostly_unspaced(text)
    if tokenize == "auto":
        chinese = unspaced and not scripts.has_kana(text) and scripts.mostly("chinese", text)
        tokenize = "zh" if chinese else "char" if unspaced else "13a"
    elif unspaced and tokenize in ("13a", "intl"):
        raise ValueError(
            f"BLEU's tokenizer {tokenize} counts words between spaces, which most of the reference has not; "
            f'choose "tokenize": "zh", "ja-mecab", "char" or "auto": {text[:80]!r}'
        )
    elif tokenize in _LANGUAGES and not scripts.mostly(_LANGUAGES[tokenize], text):
        raise ValueError(
            f"BLEU's tokenizer {tokenize} cuts {_LANGUAGES[tokenize].title()}, which less than half of the "
            f'reference\'s letters are; choose "tokenize": "char", "13a" or "auto": {text[:80]!r}'
        )
    result = _bleu(sentence=True, tokenize=tokenize).sentence_score(said, [text])
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


def signature(tokenize: str = "13a") -> str:
    """The signature sacrebleu gives the figure `bleu`; print it wherever the figure is published.

    Raises:
        TunebookError: sacrebleu is not installed.
    """
    bleu = _bleu(sentence=False, tokenize="13a" if tokenize == "auto" else tokenize)
    # sacrebleu learns the number of references, which the signature names, when it sees some.
    bleu.corpus_score(["a"], [["a"]])
    found = str(bleu.get_signature())
    return found.replace("tok:13a", "tok:auto") if tokenize == "auto" else found


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


def configured(options: Mapping[str, Any]) -> Metric:
    """Return the metric with its option `tokenize`, one of `TOKENIZERS`.

    Raises:
        ValueError: It is another.
    """
    tokenize = options.get("tokenize", "13a")
    if tokenize not in TOKENIZERS:
        raise ValueError(f"tokenize is one of {', '.join(TOKENIZERS)}, not {tokenize!r}")
    return dataclasses.replace(
        METRIC,
        name=with_options("bleu", options),
        score=functools.partial(score, tokenize=tokenize),
        signature=functools.partial(signature, tokenize),
    )


@functools.cache
def _bleu(*, sentence: bool, tokenize: str = "13a") -> Any:
    try:
        from sacrebleu.metrics import BLEU
    except ImportError as err:
        raise TunebookError(
            "BLEU needs sacrebleu, which is not installed", fix="pip install sacrebleu"
        ) from err
    try:
        return BLEU(effective_order=sentence, tokenize=tokenize)
    except (ImportError, RuntimeError) as err:  # sacrebleu's own message for a tokenizer that is missing
        raise TunebookError(
            f'BLEU with "tokenize": "{tokenize}" needs packages that are not installed',
            fix=_INSTALL.get(tokenize, "pip install sacrebleu"),
        ) from err
