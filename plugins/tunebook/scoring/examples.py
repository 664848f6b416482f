"""From what a model gave for one row to the record of it: the same in training and after it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from tunebook.types import EvalRecord, Metric, Score

CUT_BY_LIMIT = "cut by max_new_tokens"


def scored(
    record: EvalRecord,
    metrics: Sequence[Metric],
    *,
    classes_of: Metric | None,
    class_logprobs: Sequence[float],
    generation_cut: bool,
) -> EvalRecord:
    """Fill in scores and margin of a record that has none yet.

    Args:
        record: Without scores.
        metrics: Those of the set.
        classes_of: The one of them whose classes were looked up in the logits.
        class_logprobs: Log-probability of each class of `classes_of` at the first answer position; empty
            where there is none.
        generation_cut: No stop token came within the limit of generated tokens.

    Raises:
        ValueError: A metric cannot use the reference.
    """
    scores = {metric.name: metric.score(record.prediction, record.reference) for metric in metrics}
    if classes_of is not None and class_logprobs:
        scores[classes_of.name] = _with_logits(scores[classes_of.name], class_logprobs)
    if generation_cut:
        scores = {name: _cut(score) for name, score in scores.items()}
    return replace(record, scores=scores, margin=_margin(class_logprobs))


def _with_logits(score: Score, class_logprobs: Sequence[float]) -> Score:
    extra = {"class_mass": math.fsum(math.exp(logprob) for logprob in class_logprobs)}
    margin = _margin(class_logprobs)
    if margin is not None:
        extra["margin"] = margin
    return replace(score, values={**score.values, **extra})


def _margin(class_logprobs: Sequence[float]) -> float | None:
    """Log-odds of the first class over the second, in nats; None unless there are two."""
    return class_logprobs[0] - class_logprobs[1] if len(class_logprobs) == 2 else None


def _cut(score: Score) -> Score:
    """Say of an unreadable prediction that it never came to its end."""
    return replace(score, reason=CUT_BY_LIMIT) if score.parsed is None else score


# The few answers of an evaluation that say most about it, as a table for experiment trackers.

COLUMNS = ("row", "prompt", "reference", "prediction", "parsed", "score", "reason")

_EXAMPLES = 20
_CHARACTERS = 300  # of a prompt, at its end, where the question is


def telling_rows(records: Sequence[EvalRecord]) -> list[tuple[Any, ...]]:
    """Return rows of `COLUMNS`: unreadable answers first, then wrong, then right ones; in the set's order."""
    return [_row(record) for record in sorted(records, key=_grade)[:_EXAMPLES]]


def _grade(record: EvalRecord) -> float:
    scores = list(record.scores.values())
    if any(score.parsed is None for score in scores):
        return -1.0
    return min((next(iter(score.values.values()), 0.0) for score in scores), default=0.0)


def _row(record: EvalRecord) -> tuple[Any, ...]:
    score = next(iter(record.scores.values()), None)
    return (
        record.index,
        record.prompt[-_CHARACTERS:],
        record.reference,
        record.prediction,
        score.parsed if score else None,
        next(iter(score.values.values()), None) if score else None,
        score.reason if score else None,
    )


def markdown(rows: Sequence[tuple[Any, ...]]) -> str:
    """Return rows of `COLUMNS` as a table."""
    lines = [" | ".join(COLUMNS), " | ".join("---" for _ in COLUMNS)]
    for row in rows:
        cells = ("" if cell is None else str(cell).replace("|", "\\|").replace("\n", " ") for cell in row)
        lines.append(" | ".join(cells))
    return "\n".join(lines)
