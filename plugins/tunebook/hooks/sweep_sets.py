"""One evaluation set of a sweep: its rows, its batches, and which of them are left for whom."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from tunebook.evaluation.job import Job
from tunebook.evaluation.journal import Finished
from tunebook.evaluation.records import Answered, Generated, SetHeader, SetRow
from tunebook.hooks import generation
from tunebook.hooks.batches import form_batches
from tunebook.hooks.decoding import Texts
from tunebook.hooks.evaluator import read_answer
from tunebook.hooks.forward import RowResult
from tunebook.hooks.preparation import Prepared
from tunebook.hooks.ranks import Rank
from tunebook.scoring.subset import seeded_subset


class Share(NamedTuple):
    """What one process still has to do, as batches of row indices."""

    answers: list[list[int]]
    generations: list[list[int]]


@dataclass(frozen=True, slots=True, kw_only=True)
class SetWork:
    """What every model of the job is asked about one set."""

    prepared: Prepared
    """`scored` holds the rows of this job."""
    measured: frozenset[int]
    """Rows that loss is taken on."""
    answers: list[list[int]]
    """All batches of the pass over the answers, whoever is to compute them."""
    generations: list[list[int]]
    header: SetHeader

    def share(self, finished: Finished, rank: Rank, shard: tuple[int, int]) -> Share:
        """What is left for one rank of one shard.

        A batch of which one row is missing is computed whole: what a model gives for a row depends, in its
        last digits, on the rows beside it.
        """
        number, count = shard
        left = [
            [batch for batch in batches[number::count] if not done >= set(batch)]
            for batches, done in (
                (self.answers, finished.answered.keys()),
                (self.generations, finished.generated.keys()),
            )
        ]
        # No fillers: no pass of a sweep is collective, since it shards no parameters.
        return Share(*(batches[rank.number :: rank.world] for batches in left))

    def rows(self, dataset: Any, texts: Texts) -> list[SetRow]:
        """The rows as the journal keeps them."""
        scored, prepared = set(self.prepared.scored), self.prepared
        return [
            SetRow(
                index=row.index,
                prompt=texts.prompt(dataset[row.index]["input_ids"][: row.answer.start]),
                reference=prepared.references[row.index],
                prompt_tokens=row.answer.start,
                answer_cut=row.cut,
                measured=True,
                scored=row.index in scored,
            )
            for row in prepared.rows
            if row.index in self.measured
        ]

    def answered(self, results: Sequence[RowResult], texts: Texts) -> list[Answered]:
        """Results of the pass over the answers, as the journal keeps them."""
        return [
            Answered(
                index=one.row,
                nll=one.nll,
                tokens=one.tokens,
                hits=one.hits,
                prediction=read_answer(texts, one.argmax_ids, self.prepared.rows[one.row].answer_ids),
                class_logprobs=tuple(one.class_logprobs),
            )
            for one in results
        ]

    def generated(self, results: Sequence[generation.Generated], texts: Texts) -> list[Generated]:
        """Generated answers, as the journal keeps them."""
        return [
            Generated(index=one.row, prediction=texts.answer(one.ids), tokens=len(one.ids), cut=one.cut)
            for one in results
        ]


def plan_set(prepared: Prepared, job: Job, recipe_batch_size: int) -> SetWork:
    """Decide which rows of a set are evaluated, and which of them together.

    Args:
        prepared: The set.
        job: What was asked for.
        recipe_batch_size: The recipe's own, which the loss is averaged by as in training.
    """
    measured = seeded_subset([row.index for row in prepared.rows], job.max_samples)
    kept = set(measured)
    prepared = replace(prepared, scored=[index for index in prepared.scored if index in kept])
    rows = prepared.rows
    answers = _batches(measured, [rows[index].length for index in measured], job, recipe_batch_size)
    generations = []
    if prepared.mode == "generate":
        # What is generated takes room as the prompt does.
        lengths = [rows[index].answer.start + prepared.max_new_tokens for index in prepared.scored]
        generations = _batches(prepared.scored, lengths, job, recipe_batch_size)
    return SetWork(
        prepared=prepared,
        measured=frozenset(measured),
        answers=answers,
        generations=generations,
        header=SetHeader(
            dataset=prepared.chosen.name,
            metrics=tuple(spec for _, spec in prepared.chosen.metrics),
            mode=prepared.mode,
            classes_of=prepared.classes_of.name if prepared.classes_of else None,
            max_new_tokens=prepared.max_new_tokens,
            loss_batch_size=recipe_batch_size,
            rows=len(measured),
            notes=prepared.notes,
        ),
    )


def _batches(
    indices: Sequence[int], lengths: Sequence[int], job: Job, recipe_batch_size: int
) -> list[list[int]]:
    size = job.batch_size or (None if job.batch_tokens else recipe_batch_size)
    formed = form_batches(lengths, size, job.batch_tokens)
    return [[indices[place] for place in batch] for batch in formed]
