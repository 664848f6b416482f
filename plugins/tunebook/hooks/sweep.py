"""Evaluates many models in one engine process, for `tunebook eval`.

The engine builds its trainer as for any evaluation and `attach` prepares the sets. Then the trainer's
`evaluate` is replaced by a loop over models and sets. Each set goes through the same passes as in training,
batch by batch, and each batch into a journal as soon as it is done: a process that is killed loses one batch.
The caller scores what is in the journals.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import torch

from tunebook.errors import TunebookError
from tunebook.evaluation.job import EvalJob, Failure, write_error, write_failure, write_progress
from tunebook.evaluation.journal import Finished, Journal, JournalPart
from tunebook.evaluation.records import Answered, Candidate, Generated, SetHeader, SetRow
from tunebook.hooks.batches import form_batches
from tunebook.hooks.decoding import Detokenizer, stop_ids
from tunebook.hooks.forward import RowResult
from tunebook.hooks.generation import GeneratedIds, generate_batches
from tunebook.hooks.memory import Limits
from tunebook.hooks.preparation import EvaluationSet, Prepared
from tunebook.hooks.ranks import Rank, say
from tunebook.hooks.sweep_models import Models
from tunebook.scoring.subset import seeded_subset
from tunebook.types import MetricSpec


class SweepUnit(NamedTuple):
    """One model on one set."""

    candidate: Candidate
    prefix: str
    journal: Journal
    finished: Finished
    """At the start of this process."""


def with_method(sets: Mapping[str, EvaluationSet], job: EvalJob) -> dict[str, EvaluationSet]:
    """The sets, measured in the way that the job asks for."""
    if job.method == "perplexity":
        return {prefix: replace(chosen, metrics=()) for prefix, chosen in sets.items()}
    return {
        prefix: replace(
            chosen, metrics=tuple((metric, _with_method(spec, job)) for metric, spec in chosen.metrics)
        )
        for prefix, chosen in sets.items()
    }


def _with_method(spec: MetricSpec, job: EvalJob) -> MetricSpec:
    return spec if job.method is None else replace(spec, mode=job.method)  # type: ignore[arg-type]


def take_over(
    trainer: Any,
    job: EvalJob,
    load_full: Callable[[str], Any],
    *,
    loaded: str,
    adapter_options: Mapping[str, Any] | None = None,
) -> None:
    """Make the trainer's next `evaluate` do the job, and then end the process.

    Args:
        trainer: Attached to; holds the model that the engine has loaded.
        job: What to do.
        load_full: Loads a whole model as the engine does, from a folder or hub name.
        loaded: Where the trainer's model is from, without an adapter on it.
        adapter_options: For PEFT, as the engine gives them when it loads an adapter.
    """
    cls = type(trainer)

    def evaluate(self: Any, *_: Any, **__: Any) -> NoReturn:
        _Sweep(self, job, Models(self, load_full, loaded, adapter_options or {})).run()
        # What engines do after evaluating is about one model: a model card, a table of its figures.
        raise SystemExit(0)

    trainer.__class__ = type(cls.__name__, (cls,), {"evaluate": evaluate, "__module__": cls.__module__})


def stop(error: TunebookError, job: EvalJob | None = None) -> NoReturn:
    """End the process as our command line would: a traceback through the engine would hide the two lines.

    Args:
        error: Why.
        job: Of `tunebook eval`, whose process reads the error too; None in a training.
    """
    if job is not None:
        write_error(job, error)
    print(f"error: {error}", file=sys.stderr, flush=True)
    sys.exit(2)


class _Sweep:
    """One process's part of a job."""

    def __init__(self, trainer: Any, job: EvalJob, models: Models) -> None:
        self.trainer = trainer
        self.job = job
        self.evaluator = trainer.tunebook
        self.models = models
        self.works: dict[str, SetWork] = {}
        self.done = self.total = self.kept = 0
        self.now = "loading"

    def run(self) -> None:
        """Evaluate every model on every set, except what is in the journals already."""
        units = self._units()
        # All ranks must have seen the same before one of them writes more.
        if self.evaluator.rank.world > 1:
            torch.distributed.barrier()
        try:
            self._plan()
        except TunebookError as error:
            stop(error, self.job)
        self._count(units)
        broken: set[str] = set()
        for unit in units:
            label = unit.candidate.label
            if label in broken or not self._left(unit):
                continue
            try:
                self.models.use(unit.candidate)
                self._follow_stop_tokens()
                self._evaluate(unit)
            except Exception as error:  # noqa: BLE001 - the other models are evaluated nevertheless
                broken.add(label)
                traceback.print_exc()
                reason = _one_line(error)
                write_failure(self.job, Failure(label=label, reason=reason))
                say(f"{label}: failed: {reason}")

    def _units(self) -> list[SweepUnit]:
        units = []
        for candidate in self.job.candidates:
            for prefix, chosen in self.evaluator.sets.items():
                journal = Journal(Path(self.job.journals[candidate.label][chosen.name]))
                units.append(SweepUnit(candidate, prefix, journal, journal.finished()))
        return units

    def _plan(self) -> None:
        datasets = self.trainer.eval_dataset
        for prefix in self.evaluator.sets:
            several = isinstance(datasets, dict)
            dataset = datasets[prefix.removeprefix("eval_")] if several else datasets
            prepared = self.evaluator.prepare(prefix, dataset)
            self.works[prefix] = plan_set(prepared, self.job, self.trainer.args.eval_batch_size)

    def _follow_stop_tokens(self) -> None:
        """Read the sets anew where this model stops at other tokens than the one before it."""
        wanted = stop_ids(self.trainer.processing_class, self.trainer.model)
        if wanted != self.evaluator.detokenizer.stop_ids:
            self.evaluator.change_detokenizer(Detokenizer(self.trainer.processing_class, wanted))
            self._plan()

    def _share(self, unit: SweepUnit) -> Share:
        return self.works[unit.prefix].share(unit.finished, self.evaluator.rank, self.job.shard)

    def _left(self, unit: SweepUnit) -> bool:
        return any(self._share(unit)) or unit.journal.header() is None

    def _count(self, units: Sequence[SweepUnit]) -> None:
        for unit in units:
            work = self.works[unit.prefix]
            self.total += sum(map(len, self._share(unit)))
            self.kept += sum(map(len, work.share(Finished({}, {}), Rank(0, 1), self.job.shard)))
            self.kept -= sum(map(len, work.share(unit.finished, Rank(0, 1), self.job.shard)))
        self._report()

    def _evaluate(self, unit: SweepUnit) -> None:
        work, rank = self.works[unit.prefix], self.evaluator.rank
        prepared = work.prepared
        self.now = f"{unit.candidate.label}, {prepared.chosen.name}"
        self._report()
        unit.journal.begin(work.header, work.rows())
        share = self._share(unit)
        with JournalPart(unit.journal, shard=self.job.shard[0], rank=rank.number) as part:

            def keep(finished: Sequence[Answered | Generated]) -> None:
                part.append(finished)
                self.done += 1
                self._report()

            if share.answers:
                self.evaluator.answer_batches(
                    self.trainer.loop(self.now, unit.prefix),
                    prepared,
                    share.answers,
                    lambda results: keep(work.answered(results)),
                )
            if share.generations:
                generate_batches(
                    self.trainer,
                    prepared,
                    share.generations,
                    lambda results: keep(work.generated(results)),
                    Limits(strict=True, cache_on_host=self.job.cache_on_host, show=self._show_need),
                )

    def _show_need(self, line: str) -> None:
        """Show what generating will need where the user sees it: our own output goes to a log."""
        say(line)
        self.now = f"{self.now}; {line}"
        self._report()

    def _report(self) -> None:
        progress = {"done": self.done, "total": self.total, "kept": self.kept, "now": self.now}
        write_progress(self.job, self.evaluator.rank.number, progress)


def _one_line(error: Exception) -> str:
    if isinstance(error, TunebookError):
        return f"{error.problem}; {error.fix}"
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:400]}"


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
    """All batches of the pass over the answers, of all ranks and shards."""
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

    def rows(self) -> list[SetRow]:
        """The rows as the journal keeps them."""
        scored, prepared = set(self.prepared.scored), self.prepared
        return [
            SetRow(
                index=row.index,
                prompt=prepared.prompt(row.index),
                reference=prepared.references[row.index],
                prompt_tokens=row.answer.start,
                answer_cut=row.cut,
                measured=True,
                scored=row.index in scored,
            )
            for row in prepared.rows
            if row.index in self.measured
        ]

    def answered(self, results: Sequence[RowResult]) -> list[Answered]:
        """Results of the pass over the answers, as the journal keeps them."""
        prepared = self.prepared
        return [
            Answered(
                index=one.row,
                nll=one.nll,
                tokens=one.tokens,
                hits=one.hits,
                prediction=prepared.detokenizer.teacher_forced_answer(
                    one.argmax_ids, prepared.rows[one.row].answer_ids
                ),
                class_logprobs=tuple(one.class_logprobs),
            )
            for one in results
        ]

    def generated(self, results: Sequence[GeneratedIds]) -> list[Generated]:
        """Generated answers, as the journal keeps them."""
        answer = self.prepared.detokenizer.answer
        return [
            Generated(index=one.row, prediction=answer(one.ids), tokens=len(one.ids), cut=one.cut)
            for one in results
        ]


def plan_set(prepared: Prepared, job: EvalJob, recipe_batch_size: int) -> SetWork:
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
        # What is generated takes memory as the prompt does.
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
    indices: Sequence[int], lengths: Sequence[int], job: EvalJob, recipe_batch_size: int
) -> list[list[int]]:
    size = job.batch_size or (None if job.batch_tokens else recipe_batch_size)
    formed = form_batches(lengths, size, job.batch_tokens)
    return [[indices[place] for place in batch] for batch in formed]
