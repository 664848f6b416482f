"""From what the passes found to one record per example."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from tunebook.hooks.answers import RowResult
from tunebook.hooks.generation import Generated
from tunebook.hooks.preparation import Prepared
from tunebook.hooks.texts import Texts
from tunebook.types import EvalRecord, Score

CUT_BY_LIMIT = "cut by max_new_tokens"


def records(
    prepared: Prepared,
    dataset: Any,
    texts: Texts,
    results: Sequence[RowResult],
    generated: Mapping[int, Generated],
    step: int,
) -> list[EvalRecord]:
    """Score every row that is to be scored.

    Args:
        prepared: The set.
        dataset: The engine's tokenised rows, for the prompts.
        texts: The decoder.
        results: Of the answer pass, one per row, in order.
        generated: By row; empty in answer mode.
        step: Optimizer steps taken.
    """
    found = []
    for index in prepared.scored:
        row, result, reference = prepared.rows[index], results[index], prepared.references[index]
        if prepared.mode == "generate":
            prediction = texts.answer(generated[index].ids)
        else:
            prediction = texts.answer(_greedy_prefix(result.argmax_ids, row.answer_ids))
        scores = {metric.name: metric.score(prediction, reference) for metric in prepared.metrics}
        if prepared.classes_of is not None and result.class_logprobs:
            name = prepared.classes_of.name
            scores[name] = _with_logits(scores[name], result.class_logprobs)
        if index in generated and generated[index].cut:
            scores = {name: _cut(score) for name, score in scores.items()}
        found.append(
            EvalRecord(
                dataset=prepared.chosen.name,
                index=index,
                step=step,
                prompt=texts.prompt(dataset[index]["input_ids"][: row.answer.start]),
                prediction=prediction,
                reference=reference,
                mode=prepared.mode,
                scores=scores,
                nll=result.nll,
                reference_tokens=result.tokens,
                margin=_margin(result.class_logprobs),
                answer_cut=row.cut,
            )
        )
    return found


def _greedy_prefix(argmax: Sequence[int], reference: Sequence[int]) -> list[int]:
    """The part of a teacher-forced argmax that greedy decoding would produce too.

    Up to and including the first token that differs, the model has read nothing but its own choices.

    >>> _greedy_prefix([4, 7, 9], [4, 5, 9])
    [4, 7]
    """
    prefix: list[int] = []
    for predicted, wanted in zip(argmax, reference, strict=False):
        prefix.append(predicted)
        if predicted != wanted:
            break
    return prefix


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
