"""From what the passes found to one record per example."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tunebook.hooks.answers import RowResult
from tunebook.hooks.generation import Generated
from tunebook.hooks.preparation import Prepared
from tunebook.hooks.texts import Texts
from tunebook.scoring.examples import record_of
from tunebook.types import EvalRecord


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
        row, result = prepared.rows[index], results[index]
        if prepared.mode == "generate":
            prediction = texts.answer(generated[index].ids)
        else:
            prediction = read_answer(texts, result.argmax_ids, row.answer_ids)
        found.append(
            record_of(
                dataset=prepared.chosen.name,
                step=step,
                index=index,
                prompt=texts.prompt(dataset[index]["input_ids"][: row.answer.start]),
                prediction=prediction,
                reference=prepared.references[index],
                mode=prepared.mode,
                metrics=prepared.metrics,
                classes_of=prepared.classes_of,
                nll=result.nll,
                reference_tokens=result.tokens,
                class_logprobs=result.class_logprobs,
                generation_cut=index in generated and generated[index].cut,
                answer_cut=row.cut,
            )
        )
    return found


def read_answer(texts: Texts, argmax: Sequence[int], reference: Sequence[int]) -> str:
    """The text that greedy decoding would give, as far as a teacher-forced argmax tells it."""
    return texts.answer(_greedy_prefix(argmax, reference))


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
