"""Multiple choice: reads the letter, A to E, that an answer settles on.

Source: the rules are ours. MMLU and ARC are usually scored by log-likelihood of the letters; this metric
reads generated text.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from tunebook.metrics import UNPARSED
from tunebook.metrics.response import visible
from tunebook.types import Figure, Metric, Score

LETTERS = "ABCDE"


class Reading(NamedTuple):
    """What was read, and how."""

    letter: str | None
    rule: str | None
    """None exactly when `letter` is."""
    reason: str | None
    """None exactly when `letter` is not."""


_EDGE = " \t\r\n.,:;!?*_`\"'()[]{}<>$#-"
_LETTER = (
    r"[\s*_`\"'(\[{$\\]{0,8}(?:(?:option|choice|text|textbf|mathrm)\s{0,2}[({\[]?\s{0,2})?([A-E])(?![\w'])"
)
_BOUNDED = rf"{_LETTER}(?!\s[a-z])"
_SLOT = re.compile(
    rf"(?:<answer>|\\boxed\s?\{{|####|\banswer[\"'*_]{{0,3}}\s?(?:[:=]|(?:is|would be|should be|must be)\b:?)"
    rf"|\b(?:choose|pick|select|option|choice)\b:?){_BOUNDED}",
    re.IGNORECASE,
)
_START = re.compile(r"[\s*_`\"'(\[]{0,6}([A-E])(?:[).:\],]|\s{0,2}\n|\s[-–]|[*_`\"']|\Z)")
_MARKED = re.compile(r"\(([A-E])\)|\*\*([A-E])\*\*")
_TAIL = 4_000


def read(text: str) -> Reading:
    """Read a model's whole output: the letter, the rule that read it or the reason that nothing did."""
    said = visible(text)
    if said.reason is not None:
        return Reading(None, None, said.reason)
    core = said.text.strip(_EDGE).upper()
    if len(core) == 1 and core in LETTERS:
        return Reading(core, "bare", None)
    tail = said.text[-_TAIL:]
    # "a" and "b" in lower case are words; a letter is only read in upper case.
    slots = [match[1] for match in _SLOT.finditer(tail) if match[1].isupper()]
    if slots:
        return Reading(slots[-1], "slot", None)
    first = _START.match(said.text)
    if first:
        return Reading(first[1], "first_letter", None)
    marked = {one or other for one, other in _MARKED.findall(tail)}
    if len(marked) == 1:
        return Reading(marked.pop(), "only_letter", None)
    return Reading(None, None, "several_letters" if marked else "no_letter")


def extract(text: str) -> str | None:
    """Return the letter an output settles on, or None.

    >>> extract("(B) Paris"), extract("A good question. The answer is **C**."), extract("A or B")
    ('B', 'C', None)
    """
    return read(text).letter


def score(prediction: str, reference: str) -> Score:
    """Compare the letter in `prediction` with the one in `reference`.

    Returns:
        `accuracy` 1.0 or 0.0.

    Raises:
        ValueError: The reference holds no letter from A to E: the data is wrong, not the model.
    """
    wanted = extract(reference)
    if wanted is None:
        raise ValueError(f"the reference must be a letter from A to E, not {reference[:80]!r}")
    reading = read(prediction)
    return Score(
        values={"accuracy": float(reading.letter == wanted)},
        parsed=reading.letter,
        reference=wanted,
        rule=reading.rule,
        reason=reading.reason,
    )


def aggregate(scores: Sequence[Score]) -> Mapping[str, float]:
    """Accuracy, the share without a letter, and the accuracy of always giving the most frequent reference."""
    if not scores:
        return {}
    n = len(scores)
    references = [score.reference for score in scores]
    return {
        "accuracy": sum(score.values["accuracy"] for score in scores) / n,
        "majority_accuracy": max(references.count(letter) for letter in set(references)) / n,
        "unparsed_rate": sum(score.parsed is None for score in scores) / n,
    }


METRIC = Metric(
    name="multiple_choice",
    score=score,
    aggregate=aggregate,
    figures=(
        Figure(name="accuracy"),
        Figure(name="majority_accuracy", label="majority baseline"),
        UNPARSED,
    ),
    select_by="accuracy",
    classes={letter: (letter, f" {letter}", f"({letter}", f" ({letter}") for letter in LETTERS},
    default_max_new_tokens=16,
)
