"""Yes/No: reads an answer that is meant to be yes or no, and says so when it is neither.

Source: the rules are ours (`yes_no_rules`); the figures are the usual ones of binary classification.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache

from tunebook.metrics import yes_no_rules
from tunebook.metrics.response import visible
from tunebook.metrics.yes_no_hits import YesNoReading
from tunebook.metrics.yes_no_words import Answer
from tunebook.types import UNPARSED, Figure, Metric, Score


def read(text: str) -> YesNoReading:
    """Read a model's whole output: the answer, the rule that read it or the reason that nothing did."""
    said = visible(text)
    if said.reason is not None:
        return YesNoReading(None, None, said.reason)
    return yes_no_rules.read(said.text)


def extract(text: str) -> Answer | None:
    """Return what an output finally answers, or None where it commits to neither.

    >>> extract("<think>yes?</think> **No**, there is nothing like it."), extract("I don't know.")
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
    """Figures over all scores, by the names in `METRIC.figures`.

    An unparsed answer counts as wrong and as neither class; ratios with nothing below are 0, as
    scikit-learn's `zero_division=0` has it. The last six figures need `values["margin"]`, log p(yes) -
    log p(no) in nats at the answer position, and `values["class_mass"]`, p(yes) + p(no), of every score.
    """
    from tunebook.metrics import two_classes

    if not scores:
        return {}
    n = len(scores)
    parsed = [score.parsed for score in scores]
    references = [score.reference or "" for score in scores]
    counts = two_classes.confusion(parsed, references, positive="yes")
    figures = {
        "accuracy": counts.accuracy,
        "f1": counts.f1,
        "macro_f1": counts.macro_f1,
        "precision": counts.precision,
        "recall": counts.recall,
        "specificity": counts.specificity,
        "balanced_accuracy": counts.balanced_accuracy,
        "mcc": counts.mcc,
        "predicted_yes_rate": parsed.count("yes") / n,
        "base_rate": counts.positives / n,
        "majority_accuracy": max(counts.positives, counts.negatives) / n,
        "unparsed_rate": parsed.count(None) / n,
        "lexical_rate": sum(score.rule == "lexical" for score in scores) / n,
    }
    if parsed.count(None) < n:
        figures["accuracy_parsed"] = counts.accuracy * n / (n - parsed.count(None))
    if all("margin" in score.values and "class_mass" in score.values for score in scores):
        figures |= two_classes.from_margins(scores, "yes")
    return figures


METRIC = Metric(
    name="yes_no",
    score=score,
    aggregate=aggregate,
    figures=(
        Figure(name="accuracy"),
        Figure(name="macro_f1", label="macro-F1"),
        Figure(name="f1", label="F1 (yes)"),
        Figure(name="precision", label="precision (yes)", detail=True),
        Figure(name="recall", label="recall (yes)", detail=True),
        Figure(name="balanced_accuracy", detail=True),
        Figure(name="mcc", label="Matthews correlation", low=-1.0, from_zero=False, detail=True),
        Figure(name="specificity", label="specificity (no)", detail=True),
        Figure(name="auroc", label="AUROC", detail=True),
        Figure(name="average_precision", detail=True),
        Figure(name="predicted_yes_rate", label="share answered yes", descriptive=True, detail=True),
        Figure(name="base_rate", label="share of yes in the set", descriptive=True, detail=True),
        Figure(name="accuracy_parsed", label="accuracy of what was read", may_be_undefined=True, detail=True),
        Figure(name="brier", label="Brier score", smaller_is_better=True, detail=True),
        Figure(name="ece", label="calibration error", smaller_is_better=True, detail=True),
        Figure(name="class_mass", label="probability on yes or no", descriptive=True, detail=True),
        Figure(
            name="class_mass_median", label="median probability on yes or no", descriptive=True, detail=True
        ),
        UNPARSED,
        Figure(name="majority_accuracy", label="majority baseline", descriptive=True, detail=True),
        Figure(name="lexical_rate", smaller_is_better=True, detail=True),
    ),
    select_by="macro_f1",
    classes={
        "yes": ("Yes", " Yes", "yes", " yes", "YES", " YES"),
        "no": ("No", " No", "no", " no", "NO", " NO"),
    },
    default_max_new_tokens=16,
)
