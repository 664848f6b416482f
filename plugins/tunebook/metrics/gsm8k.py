"""GSM8K: compares the final number of a worked answer with the reference's, as exact fractions.

`exact_match` is ours (`gsm8k_rules`). `strict_match` and `flexible_extract` are lm-evaluation-harness's two
filters, unchanged, for comparison with published numbers: they read the raw output, thoughts included.

Source: Cobbe et al. (2021), "Training verifiers to solve math word problems",
https://arxiv.org/abs/2110.14168; lm-evaluation-harness 0.4.11, `lm_eval/tasks/gsm8k/gsm8k.yaml`, version 3.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from fractions import Fraction
from functools import lru_cache

from tunebook.metrics import gsm8k_rules
from tunebook.metrics.gsm8k_rules import NumberReading
from tunebook.metrics.response import visible
from tunebook.types import UNPARSED, Figure, Metric, Score

TOLERANCE = Fraction(1, 10**6)
"""Relative distance at which two numbers are equal: 0.333333 is one third."""


def read(text: str) -> NumberReading:
    """Read a model's whole output: the number, the rule that read it or the reason that nothing did."""
    said = visible(text)
    if said.reason is not None:
        return NumberReading(None, None, said.reason)
    return gsm8k_rules.read(said.text)


def extract(text: str) -> Fraction | None:
    """Return the number an output finally commits to, or None where it commits to none.

    >>> extract("6 * 7 = 42 eggs.\\n#### $42.00"), extract("Either 42 or 43.")
    (Fraction(42, 1), None)
    """
    return read(text).value


@lru_cache(maxsize=4096)
def _wanted(reference: str) -> Fraction:
    value = extract(reference)
    if value is None:
        raise ValueError(f"the reference must end in one number, not {reference[-80:]!r}")
    return value


def score(prediction: str, reference: str) -> Score:
    """Compare the final number of `prediction` with that of `reference`.

    Args:
        prediction: The model's output as decoded; special tokens, thoughts and the prompt may be in it.
        reference: The dataset's worked answer with its `#### 42` line, or only the number.

    Returns:
        `exact_match`, `strict_match` and `flexible_extract`, each 1.0 or 0.0. `parsed` is the exact
        number, e.g. `42` or `1/2`, None where the output commits to no single number.

    Raises:
        ValueError: The reference holds no number: the data is wrong, not the model.

    >>> score("She is in debt: #### -$10", "#### -10").values["exact_match"]
    1.0
    >>> score("#### 5", "#### -5").values["exact_match"]
    0.0
    """
    wanted = _wanted(reference)
    reading = read(prediction)
    label = _harness_label(reference, wanted)
    return Score(
        values={
            "exact_match": float(reading.value is not None and equal(reading.value, wanted)),
            "strict_match": float(_harness_normal(_harness_strict(prediction)) == label),
            "flexible_extract": float(_harness_normal(_harness_flexible(prediction)) == label),
        },
        parsed=None if reading.value is None else str(reading.value),
        reference=str(wanted),
        rule=reading.rule,
        reason=reading.reason,
    )


def equal(left: Fraction, right: Fraction) -> bool:
    """Whether two numbers are equal up to `TOLERANCE`; a factor of 100 (percent) never passes."""
    return abs(left - right) <= TOLERANCE * abs(right)


# --------------------------------------------------------------------------- lm-evaluation-harness's filters

_STRICT = re.compile(r"#### (\-?[0-9\.\,]+)")
_FLEXIBLE = re.compile(r"(-?[$0-9.,]{2,})|(-?[0-9]+)")
_FLEXIBLE_CHARACTERS = "-$0123456789.,"
_INVALID = "[invalid]"


def _harness_strict(text: str) -> str:
    found = _STRICT.search(text)
    return found[1].strip() if found else _INVALID


def _harness_flexible(text: str) -> str:
    """The last match of the pattern over the text, found from the end: the text may be a megabyte long."""
    end, width = len(text), 256
    while True:
        start = max(0, end - width)
        # A window may not begin inside a run of the pattern's characters.
        start = len(text[:start].rstrip(_FLEXIBLE_CHARACTERS))
        matches = _FLEXIBLE.findall(text[start:])
        if matches:
            first, second = map(str, matches[-1])
            return (first or second).strip()
        if start == 0:
            return _INVALID
        width *= 4


def _harness_normal(text: str) -> str:
    """The harness's `regexes_to_ignore`, in order, and `ignore_case`."""
    text = text.replace(",", "").replace("$", "").rpartition("#### ")[2]
    return re.sub(r"\.$", "", text).lower()


@lru_cache(maxsize=4096)
def _harness_label(reference: str, wanted: Fraction) -> str:
    """What the harness compares with; of a reference that has no `####` line, its number."""
    if "#### " in reference or _FLEXIBLE.fullmatch(reference.strip()):
        return _harness_normal(reference.strip())
    # Prime factors 2 and 5 alone make a decimal that ends.
    return f"{float(wanted):g}" if wanted.denominator > 1 else str(wanted.numerator)


# ------------------------------------------------------------------------------------------------ figures


def aggregate(scores: Sequence[Score]) -> Mapping[str, float]:
    """Mean of each figure, and the share of outputs that commit to no number."""
    if not scores:
        return {}
    n = len(scores)
    figures = {
        name: sum(score.values[name] for score in scores) / n
        for name in ("exact_match", "strict_match", "flexible_extract")
    }
    unparsed = sum(score.parsed is None for score in scores)
    if unparsed < n:
        figures["exact_match_parsed"] = figures["exact_match"] * n / (n - unparsed)
    return {**figures, "unparsed_rate": unparsed / n}


METRIC = Metric(
    name="gsm8k",
    score=score,
    aggregate=aggregate,
    figures=(
        Figure(name="exact_match"),
        Figure(name="strict_match"),
        Figure(name="flexible_extract"),
        Figure(name="exact_match_parsed", label="exact match of what was read", detail=True),
        UNPARSED,
    ),
    select_by="exact_match",
    default_max_new_tokens=512,
)
