"""ROUGE: how many words, word pairs and subsequences a prediction shares with its reference.

Every number equals that of rouge-score 0.1.2, to the last bit and for every input; `docs/rouge.md` says how
it is reached at a fraction of the time and memory.

`score` and `score_many` give precision, recall and F of rouge1, rouge2, rougeL and rougeLsum. `METRIC` is the
same for evaluation: `METRIC.score` is `judge`, which gives the F-measures as a `types.Score`.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
from collections import Counter
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from tunebook.errors import TunebookError
from tunebook.metrics import scripts
from tunebook.metrics.response import reference_text, shown
from tunebook.metrics.rouge_lcs import lcs_length, subsequences
from tunebook.metrics.rouge_tokens import sentences, word_ids
from tunebook.types import UNPARSED, Figure, Metric, Score, with_options

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from tunebook.metrics.rouge_lcs import Sentences

_Counted = TypeVar("_Counted", int, tuple[int, int])

TYPES = ("rouge1", "rouge2", "rougeL", "rougeLsum")
BUCKETS = {
    "ref_0_127": 0,
    "ref_128_511": 128,
    "ref_512_2047": 512,
    "ref_2048_8191": 2048,
    "ref_8192_up": 8192,
}
"""Length buckets and the fewest reference words of each, in rising order."""


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
        use_stemmer: Compare Porter stems of the words of four letters or more.

    Raises:
        TunebookError: The texts have several lines each and share more than a million different words.

    Source: Lin, "ROUGE: a package for automatic evaluation of summaries", 2004, as rouge-score 0.1.2
    computes it; there the reference comes first.

    >>> score("the cat sat", "the cat sat down").rougeL
    Rouge(precision=1.0, recall=0.75, fmeasure=0.8571428571428571)
    """
    if (found := _ported(prediction, reference, use_stemmer)) is not None:
        return found
    ids = word_ids(use_stemmer=use_stemmer)
    return _score(sentences(prediction, ids), sentences(reference, ids))


def _ported(prediction: str, reference: str, use_stemmer: bool) -> RougeScores | None:
    """The same by rouge-score's port to Rust, which is the faster one for short texts; None for others.

    Of plain ASCII alone, which leaves no doubt about upper and lower case.
    """
    if len(prediction) + len(reference) > _SHORT or not (prediction.isascii() and reference.isascii()):
        return None
    scorer = _port(use_stemmer)
    if scorer is None:
        return None
    found = scorer.score(reference, prediction)
    return RougeScores(*(Rouge(one.precision, one.recall, one.fmeasure) for one in map(found.get, TYPES)))


_SHORT = 2_400
"""Characters of both texts, about 200 words each, where ours catches up."""


@functools.cache
def _port(use_stemmer: bool) -> Any:
    try:
        from rouge_score_rs import RougeScorer
    except ImportError:
        return None
    return RougeScorer(list(TYPES), use_stemmer=use_stemmer)


def score_many(pairs: Iterable[tuple[str, str]], use_stemmer: bool = True) -> list[RougeScores]:
    """ROUGE of many `(prediction, reference)` pairs, as `score` of each.

    >>> [scores.rouge1.recall for scores in score_many([("a b", "a b"), ("a", "a b")])]
    [1.0, 0.5]
    """
    return [score(prediction, reference, use_stemmer) for prediction, reference in pairs]


TOKENIZERS = ("google", "zh", "char", "words", "auto")
"""Values of the option `tokenize`."""


def judge(prediction: str, reference: str, tokenize: str = "google") -> Score:
    """ROUGE of one prediction, as a metric scores it.

    Args:
        prediction: The model's output.
        reference: What it should be like.
        tokenize: What overlap is counted in. `google`: stems of words of a-z and 0-9, as rouge-score has
            them. `zh`: jieba's words, counted by rouge_chinese, as LLaMA-Factory's own evaluation does, with
            its BLEU-4 as `lf_bleu4`. `char`: letters and digits of any script. `words`: runs of them.
            `auto`, by the reference's script: `google` for Latin, `char` for scripts without spaces, else
            `words`.

    Returns:
        The F-measures by their names, from 0 to 1, and `prediction_words` and `reference_words`. A prediction
        without a word scores 0.0 and has `parsed=None`, with the reason `empty`, `unfinished_think` or
        `no word`. Of both texts what a reader of the chat sees is compared: without thoughts.

    Raises:
        ValueError: Less than half of the reference's letters can be compared with this `tokenize`.
        TunebookError: As for `score`; or `zh` and its packages are not installed.
    """
    said, reason = shown(prediction)
    text = reference_text(reference)
    if tokenize == "auto":
        spaced = "google" if scripts.mostly("latin", text) else "words"
        tokenize = "char" if scripts.mostly_unspaced(text) else spaced
    values = _chinese(said, text) if tokenize == "zh" else _overlaps(said, text, tokenize)
    if values["prediction_words"]:
        return Score(values=values, parsed=said)
    return Score(values=values, parsed=None, reason=reason or "no word")


def _overlaps(said: str, text: str, tokenize: str) -> dict[str, float]:
    if tokenize == "google":
        ids = word_ids(use_stemmer=True)
        predicted, wanted = sentences(said, ids), sentences(text, ids)
    else:
        units = scripts.characters if tokenize == "char" else scripts.words
        fresh: dict[str, int] = {}
        predicted, wanted = (
            [
                [fresh.setdefault(unit, len(fresh)) for unit in found]
                for line in side.split("\n")
                if (found := units(line))
            ]
            for side in (said, text)
        )
    if tokenize == "words" and scripts.mostly_unspaced(text):
        raise ValueError(
            "most of the reference's letters are of a script without spaces between words; "
            f'choose "tokenize": "char", "zh" or "auto": {text[:80]!r}'
        )
    if not wanted or (tokenize == "google" and not scripts.mostly("latin", text)):
        raise ValueError(
            "ROUGE compares words of a-z and 0-9, and less than half of the reference's letters are such; "
            f'choose "tokenize": "zh", "char", "words" or "auto", or measure chrf: {text[:80]!r}'
        )
    scores = (_ported(said, text, True) if tokenize == "google" else None) or _score(predicted, wanted)
    values = {name: rouge.fmeasure for name, rouge in zip(TYPES, scores, strict=True)}
    values["prediction_words"] = float(sum(map(len, predicted)))
    values["reference_words"] = float(sum(map(len, wanted)))
    return values


def _chinese(said: str, text: str) -> dict[str, float]:
    """LLaMA-Factory's figures, from 0 to 1; its BLEU-4 from 0 to 100.

    Source: `llamafactory/train/sft/metric.py`, `ComputeSimilarity`, with its rounding.
    """
    if not scripts.mostly("chinese", text):
        raise ValueError(
            "jieba cuts Chinese, and less than half of the reference's letters are Chinese or a-z; "
            f'choose "tokenize": "char", "words" or "auto", or measure chrf: {text[:80]!r}'
        )
    cut, rouge, bleu = _chinese_tools()
    predicted, wanted = " ".join(cut(said)), " ".join(cut(text))
    counts = {
        "prediction_words": float(len(predicted.split())),
        "reference_words": float(len(wanted.split())),
    }
    if not (counts["prediction_words"] and counts["reference_words"]):
        return dict.fromkeys((*_CHINESE_TYPES, "lf_bleu4"), 0.0) | counts
    found = rouge(predicted, wanted)[0]
    values = {ours: round(found[theirs]["f"] * 100, 4) / 100 for ours, theirs in _CHINESE_TYPES.items()}
    return values | {"lf_bleu4": round(bleu([list(text)], list(said)) * 100, 4)} | counts


_CHINESE_TYPES = {"rouge1": "rouge-1", "rouge2": "rouge-2", "rougeL": "rouge-l"}


class _ChineseTools(NamedTuple):
    cut: Callable[[str], Iterable[str]]
    rouge: Callable[[str, str], Any]
    bleu: Callable[[list[list[str]], list[str]], float]


@functools.cache
def _chinese_tools() -> _ChineseTools:
    try:
        import jieba
        from nltk.translate.bleu_score import SmoothingFunction, sentence_bleu
        from rouge_chinese import Rouge as RougeChinese
    except ImportError as err:
        raise TunebookError(
            f'ROUGE with "tokenize": "zh" needs {err.name}, which is not installed',
            fix="pip install jieba rouge-chinese nltk",
        ) from err
    jieba.setLogLevel("WARNING")
    smooth = SmoothingFunction().method3
    return _ChineseTools(
        jieba.cut, RougeChinese().get_scores, functools.partial(sentence_bleu, smoothing_function=smooth)
    )


def aggregate(scores: Sequence[Score]) -> Mapping[str, float]:
    """Figures over the scores of `judge`; empty when there are none.

    Returns:
        The mean of each F-measure; `length_ratio`, words of all predictions over words of all references;
        `unparsed_rate`, the share of predictions without a word; and by length of the reference the mean
        `rougeL_<bucket>`, left out where the bucket is empty, and the count `n_<bucket>`. With `zh` there is
        no ROUGE-Lsum, and the mean of `lf_bleu4`.
    """
    if not scores:
        return {}
    figures = {name: _mean(scores, name) for name in (*TYPES, "lf_bleu4") if name in scores[0].values}
    predicted, wanted = (
        sum(s.values[name] for s in scores) for name in ("prediction_words", "reference_words")
    )
    figures["length_ratio"] = predicted / wanted
    figures["unparsed_rate"] = sum(s.parsed is None for s in scores) / len(scores)
    ends = [*list(BUCKETS.values())[1:], math.inf]
    for (bucket, start), end in zip(BUCKETS.items(), ends, strict=True):
        members = [s for s in scores if start <= s.values["reference_words"] < end]
        figures[f"n_{bucket}"] = float(len(members))
        if members:
            figures[f"rougeL_{bucket}"] = _mean(members, "rougeL")
    return figures


# Chosen by rougeL: rougeLsum depends on where a model breaks its lines, and for long texts it nears
# rouge1, since the union over many lines finds almost every shared word.
METRIC = Metric(
    name="rouge",
    score=judge,
    aggregate=aggregate,
    figures=(
        *(
            Figure(name=kind, label=kind.replace("rouge", "ROUGE-"), detail=kind not in ("rouge1", "rougeL"))
            for kind in TYPES
        ),
        Figure(name="length_ratio", high=None, descriptive=True, detail=True),
        UNPARSED,
        *(
            figure
            for bucket in BUCKETS
            for figure in (
                Figure(name=f"rougeL_{bucket}"),
                Figure(name=f"n_{bucket}", high=None, descriptive=True),
            )
        ),
    ),
    select_by="rougeL",
    default_max_new_tokens=512,
)


def configured(options: Mapping[str, Any]) -> Metric:
    """Return the metric with its option `tokenize`, one of `TOKENIZERS`.

    Raises:
        ValueError: It is another.
    """
    tokenize = options.get("tokenize", "google")
    if tokenize not in TOKENIZERS:
        raise ValueError(f"tokenize is one of {', '.join(TOKENIZERS)}, not {tokenize!r}")
    figures = METRIC.figures
    if tokenize == "zh":
        kept = tuple(figure for figure in figures if figure.name != "rougeLsum")
        figures = (*kept[:3], Figure(name="lf_bleu4", label="LLaMA-Factory's BLEU-4", high=100.0), *kept[3:])
    return dataclasses.replace(
        METRIC,
        name=with_options("rouge", options),
        score=functools.partial(judge, tokenize=tokenize),
        figures=figures,
    )


def _mean(scores: Sequence[Score], name: str) -> float:
    return math.fsum(s.values[name] for s in scores) / len(scores)


def _score(predicted: Sentences, wanted: Sentences) -> RougeScores:
    candidate = list(itertools.chain.from_iterable(predicted))
    reference = list(itertools.chain.from_iterable(wanted))
    n, m = len(candidate), len(reference)
    words, pairs = Counter(candidate), Counter(itertools.pairwise(candidate))
    shared_words = Counter(filter(words.__contains__, reference))
    shared_pairs = Counter(filter(pairs.__contains__, itertools.pairwise(reference)))
    if len(predicted) <= 1 and len(wanted) <= 1:
        # Between one sentence and one sentence, rougeLsum is rougeL.
        longest = hits = lcs_length(reference, candidate)
    else:
        longest, hits = subsequences(wanted, predicted, {word: words[word] for word in shared_words})
    return RougeScores(
        rouge1=_rouge(_overlap(shared_words, words), n, m),
        rouge2=_rouge(_overlap(shared_pairs, pairs), n - 1, m - 1),
        rougeL=_rouge(longest, n, m),
        rougeLsum=_rouge(hits, n, m),
    )


def _overlap(wanted: Mapping[_Counted, int], available: Mapping[_Counted, int]) -> int:
    return sum(map(min, wanted.values(), map(available.__getitem__, wanted)))


def _rouge(shared: int, candidate: int, reference: int) -> Rouge:
    # The order of the operations is rouge-score's: another one differs in the last bit.
    precision = shared / max(candidate, 1)
    recall = shared / max(reference, 1)
    if precision + recall > 0:
        return Rouge(precision, recall, 2 * precision * recall / (precision + recall))
    return Rouge(precision, recall, 0.0)
