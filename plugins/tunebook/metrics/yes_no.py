"""Yes/No: reads an answer that is meant to be yes or no, and says so when it is neither.

Source: the rules are ours (`yes_no_rules`); the figures are the usual ones of binary classification.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache

from tunebook.metrics import yes_no_rules
from tunebook.metrics.response import visible
from tunebook.metrics.yes_no_rules import Answer, Reading
from tunebook.types import Metric, Score


def read(text: str) -> Reading:
    """Read a model's whole output: the answer, the rule that read it or the reason that nothing did."""
    said = visible(text)
    if said.reason is not None:
        return Reading(None, None, said.reason)
    return yes_no_rules.read(said.text)


def extract(text: str) -> Answer | None:
    """Return what an output finally answers, or None where it commits to neither.

    >>> extract("<think>yes?</think> **No**, there is nothing like it in the history."), extract("I don't know.")
    ('no', None)
    """
    return read(text).answer


@lru_cache(maxsize=1024)
def _wanted(reference: str) -> Answer:
    answer = extract(reference)
    if answer is None:
        raise ValueError(f"the reference must say yes or no, not {reference[:80]!r}")
    return answer


def score(prediction: str, reference: str) -> Score:
    """Compare the answer in `prediction` with the one in `reference`.

    Args:
        prediction: The model's output as decoded; special tokens, thoughts and the prompt may be in it.
        reference: Yes or no, in any wording that `extract` reads.

    Returns:
        `accuracy` 1.0 or 0.0. An output that commits to neither has 0.0 and `parsed=None`.

    Raises:
        ValueError: The reference says neither: the data is wrong, not the model.

    >>> score("Yes, because it floats.", "yes").values["accuracy"]
    1.0
    >>> score("It depends.", "no").reason
    'hedge'
    """
    wanted = _wanted(reference)
    reading = read(prediction)
    return Score(
        values={"accuracy": float(reading.answer == wanted)},
        parsed=reading.answer,
        reference=wanted,
        rule=reading.rule,
        reason=reading.reason,
    )


def aggregate(scores: Sequence[Score]) -> Mapping[str, float]:
    """Figures over all scores; see `METRIC.figures`."""
    n = len(scores)
    if not n:
        return {}
    tp = sum(score.parsed == "yes" == score.reference for score in scores)
    fp = sum(score.parsed == "yes" and score.reference == "no" for score in scores)
    right = sum(score.parsed == score.reference for score in scores)
    positives = sum(score.reference == "yes" for score in scores)
    return {
        "accuracy": right / n,
        "f1": 2 * tp / (tp + fp + positives) if tp + fp + positives else 0.0,
        "macro_f1": 0.0,
        "unparsed_rate": sum(score.parsed is None for score in scores) / n,
    }


METRIC = Metric(
    name="yes_no",
    score=score,
    aggregate=aggregate,
    figures=("accuracy", "f1", "macro_f1", "unparsed_rate"),
    select_by="macro_f1",
    classes={
        "yes": ("Yes", " Yes", "yes", " yes", "YES", " YES"),
        "no": ("No", " No", "no", " no", "NO", " NO"),
    },
    default_max_new_tokens=16,
)
