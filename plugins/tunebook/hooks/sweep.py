"""Evaluates many models in one engine process, for `tunebook eval`.

The engine builds its trainer as for any evaluation and `attach` prepares the sets. Then the trainer's
`evaluate` is replaced by a loop over models and sets. Each set goes through the same passes as in training,
batch by batch, and each batch into a journal as soon as it is done. Scoring is left to the caller: a
process that is killed has lost one batch.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import torch

from tunebook.errors import TunebookError
from tunebook.evaluation.job import Failure, Job, leave_error, leave_failure, leave_progress
from tunebook.evaluation.journal import Finished, Journal, Part
from tunebook.evaluation.records import Answered, Generated, Subject
from tunebook.hooks.decoding import Texts, stop_ids
from tunebook.hooks.memory import Limits
from tunebook.hooks.preparation import EvaluationSet
from tunebook.hooks.ranks import Rank
from tunebook.hooks.results import say
from tunebook.hooks.sweep_models import Models
from tunebook.hooks.sweep_sets import SetWork, Share, plan_set
from tunebook.types import MetricSpec


class Unit(NamedTuple):
    """One model on one set."""

    subject: Subject
    prefix: str
    journal: Journal
    finished: Finished
    """At the start of this process."""


def with_method(sets: Mapping[str, EvaluationSet], job: Job) -> dict[str, EvaluationSet]:
    """The sets, measured in the way that the job asks for."""
    if job.method == "perplexity":
        return {prefix: replace(chosen, metrics=()) for prefix, chosen in sets.items()}
    return {
        prefix: replace(
            chosen, metrics=tuple((metric, _with_method(spec, job)) for metric, spec in chosen.metrics)
        )
        for prefix, chosen in sets.items()
    }


def _with_method(spec: MetricSpec, job: Job) -> MetricSpec:
    return spec if job.method is None else replace(spec, mode=job.method)  # type: ignore[arg-type]


def take_over(
    trainer: Any,
    job: Job,
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
        loaded: Where the trainer's model is from, an adapter on it aside.
        adapter_options: For PEFT, as the engine gives them when it loads an adapter.
    """
    cls = type(trainer)

    def evaluate(self: Any, *_: Any, **__: Any) -> NoReturn:
        _Sweep(self, job, Models(self, load_full, loaded, adapter_options or {})).run()
        # What engines do after evaluating is about one model: a model card, a table of its figures.
        raise SystemExit(0)

    trainer.__class__ = type(cls.__name__, (cls,), {"evaluate": evaluate, "__module__": cls.__module__})


def stop(job: Job, error: TunebookError) -> NoReturn:
    """End the process and tell the caller why."""
    leave_error(job, error)
    print(f"error: {error}", file=sys.stderr, flush=True)
    sys.exit(2)


class _Sweep:
    """One process's part of a job."""

    def __init__(self, trainer: Any, job: Job, models: Models) -> None:
        self.trainer = trainer
        self.job = job
        self.evaluator = trainer.tunebook
        self.models = models
        self.works: dict[str, SetWork] = {}
        self.done = self.total = self.kept = 0
        self.now = "loading"

    def run(self) -> None:
        """Evaluate every model on every set, but for what is in the journals already."""
        units = self._units()
        # All ranks must have seen the same before one of them goes on writing.
        if self.evaluator.rank.world > 1:
            torch.distributed.barrier()
        try:
            self._plan()
        except TunebookError as error:
            stop(self.job, error)
        self._count(units)
        broken: set[str] = set()
        for unit in units:
            label = unit.subject.label
            if label in broken or not self._left(unit):
                continue
            try:
                self.models.use(unit.subject)
                self._follow_stop_tokens()
                self._evaluate(unit)
            except Exception as error:  # noqa: BLE001 - the other models are to be evaluated all the same
                broken.add(label)
                traceback.print_exc()
                reason = _one_line(error)
                leave_failure(self.job, Failure(label=label, reason=reason))
                say(f"{label}: failed: {reason}")

    def _units(self) -> list[Unit]:
        units = []
        for subject in self.job.subjects:
            for prefix, chosen in self.evaluator.sets.items():
                journal = Journal(Path(self.job.journals[subject.label][chosen.name]))
                units.append(Unit(subject, prefix, journal, journal.finished()))
        return units

    def _plan(self) -> None:
        for prefix in self.evaluator.sets:
            prepared = self.evaluator.prepare(prefix, self._dataset(prefix))
            self.works[prefix] = plan_set(prepared, self.job, self.trainer.args.eval_batch_size)

    def _dataset(self, prefix: str) -> Any:
        datasets = self.trainer.eval_dataset
        return datasets[prefix.removeprefix("eval_")] if isinstance(datasets, dict) else datasets

    def _follow_stop_tokens(self) -> None:
        """Read the sets anew where this model stops at other tokens than the one before it."""
        wanted = stop_ids(self.trainer.processing_class, self.trainer.model)
        if wanted != self.evaluator.texts.stop_ids:
            self.evaluator.change_texts(Texts(self.trainer.processing_class, wanted))
            self._plan()

    def _share(self, unit: Unit) -> Share:
        return self.works[unit.prefix].share(unit.finished, self.evaluator.rank, self.job.shard)

    def _left(self, unit: Unit) -> bool:
        return any(self._share(unit)) or unit.journal.header() is None

    def _count(self, units: Sequence[Unit]) -> None:
        for unit in units:
            work = self.works[unit.prefix]
            self.total += sum(map(len, self._share(unit)))
            self.kept += sum(map(len, work.share(Finished({}, {}), Rank(0, 1), self.job.shard)))
            self.kept -= sum(map(len, work.share(unit.finished, Rank(0, 1), self.job.shard)))
        self._report()

    def _evaluate(self, unit: Unit) -> None:
        from tunebook.hooks.generation import generate_batches

        dataset, work, texts = self._dataset(unit.prefix), self.works[unit.prefix], self.evaluator.texts
        prepared, rank = work.prepared, self.evaluator.rank
        self.now = f"{unit.subject.label}, {prepared.chosen.name}"
        self._report()
        unit.journal.begin(work.header, work.rows(dataset, texts))
        share = self._share(unit)
        with Part(unit.journal, shard=self.job.shard[0], rank=rank.number) as part:

            def keep(finished: Sequence[Answered | Generated]) -> None:
                part.append(finished)
                self.done += 1
                self._report()

            if share.answers:
                self.evaluator.answer_batches(
                    self.trainer.stock_loop(),
                    prepared,
                    dataset,
                    share.answers,
                    lambda results: keep(work.answered(results, texts)),
                    self.now,
                    unit.prefix,
                )
            if share.generations:
                generate_batches(
                    self.trainer,
                    dataset,
                    prepared,
                    texts,
                    share.generations,
                    lambda results: keep(work.generated(results, texts)),
                    Limits(strict=True, cache_on_host=self.job.cache_on_host, tell=self._tell_need),
                )

    def _tell_need(self, line: str) -> None:
        """Tell what generating will need where the user sees it: our own output goes to a log."""
        say(line)
        self.now = f"{self.now}; {line}"
        self._report()

    def _report(self) -> None:
        told = {"done": self.done, "total": self.total, "kept": self.kept, "now": self.now}
        leave_progress(self.job, self.evaluator.rank.number, told)


def _one_line(error: Exception) -> str:
    if isinstance(error, TunebookError):
        return f"{error.problem}; {error.fix}"
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:400]}"
