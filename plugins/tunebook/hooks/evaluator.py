"""Evaluates a trainer's sets: the passes over their rows, inside the trainer's own loop."""

from __future__ import annotations

import math
import operator
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch

from tunebook.hooks.batches import Batch, Batches, deal
from tunebook.hooks.decoding import Detokenizer
from tunebook.hooks.forward import RowResult, forward, innermost, takes_index_tensor, takes_position_ids
from tunebook.hooks.generation import GeneratedIds, generate
from tunebook.hooks.memory import halving, read_at_a_time
from tunebook.hooks.preparation import EngineWords, EvaluationSet, Prepared, prepare
from tunebook.hooks.ranks import FILLER, gather, in_step, largest, rank_of, say
from tunebook.hooks.results import SetEvaluation, evaluation_of, send_to_trackers, write_results
from tunebook.scoring import figures

Loop = Callable[[torch.utils.data.DataLoader[Any]], Any]
"""The trainer's own `evaluation_loop`, given everything but the loader. It prepares the model, moves the
progress bar and calls `prediction_step`; it gets our batches, and nothing to gather."""


class _Pass(NamedTuple):
    """What one pass over the answers of a set needs, while the trainer's loop runs it."""

    class_ids: list[list[int]]
    on_batch: Callable[[list[RowResult]], None]


class Evaluator:
    """Evaluates the sets of one trainer. Made by `attach`.

    Args:
        trainer: A Hugging Face trainer, or a subclass.
        sets: By the prefix the trainer gives a set's metrics: `eval`, or `eval_<dataset>`.
        words: The engine's names for what our messages mention.
        output_dir: The run's folder.
        detokenizer: Decodes prompts, references and answers.
    """

    def __init__(
        self,
        trainer: Any,
        sets: Mapping[str, EvaluationSet],
        words: EngineWords,
        output_dir: Path,
        detokenizer: Detokenizer,
    ) -> None:
        self.trainer = trainer
        self.sets = sets
        self.words = words
        self.output_dir = output_dir
        self.detokenizer = detokenizer
        self.rank = rank_of(trainer)
        self._prepared: dict[str, Prepared] = {}
        self._pass: _Pass | None = None
        self._keep_answers_only: bool | None = None
        self._takes_position_ids: bool | None = None
        self._names: dict[str, tuple[str, ...]] = {}

    def prepare(self, prefix: str, dataset: Any) -> Prepared:
        """Read a set, once per run, and print what there is to say about it."""
        if prefix not in self._prepared:
            prepared = prepare(self.sets[prefix], dataset, self.detokenizer, self.words)
            self._prepared[prefix] = prepared
            for note in prepared.notes:
                say(note)
        return self._prepared[prefix]

    def change_detokenizer(self, detokenizer: Detokenizer) -> None:
        """Decode in another way from now on; the sets are to be prepared anew."""
        self.detokenizer = detokenizer
        self._prepared.clear()

    def forget_model(self) -> None:
        """Look at the trainer's model again: it is another one now."""
        self._keep_answers_only = self._takes_position_ids = None

    def run(self, loop: Loop, prefix: str) -> Any:
        """Evaluate one set inside the trainer's own loop.

        Args:
            loop: The trainer's.
            prefix: A key of `sets`, which has been prepared.

        Returns:
            The trainer's own output record, with every row counted once.
        """
        started = time.perf_counter()
        prepared = self._prepared[prefix]
        batches = deal([row.length for row in prepared.rows], self.trainer.args.eval_batch_size, self.rank)
        collected: list[RowResult] = []
        output = self.answer_batches(loop, prepared, batches, collected.extend)
        results = sorted(gather(collected, self.rank), key=lambda result: result.row)
        if [result.row for result in results] != list(range(len(prepared.rows))):
            raise RuntimeError(f"{len(results)} results for the {len(prepared.rows)} rows of {prefix!r}")
        generated: Mapping[int, GeneratedIds] = {}
        generating = time.perf_counter()
        if prepared.mode == "generate":
            generated = generate(self.trainer, prepared, self.rank)
        finished = time.perf_counter()
        found = evaluation_of(
            prepared,
            results,
            generated,
            step=_step_of_weights(self.trainer),
            loss_batch_size=self.trainer.args.eval_batch_size,
        )
        if generated:
            found.values["generation_seconds"] = finished - generating
        logged = {f"{prefix}_{name}": value for name, value in self._same_names(found).items()}
        if self.trainer.is_world_process_zero():
            write_results(self.trainer, self.output_dir, found, time.perf_counter() - started)
            send_to_trackers(self.trainer, found, logged)
        return output._replace(metrics={**output.metrics, **logged}, num_samples=len(prepared.rows))

    def answer_batches(
        self,
        loop: Loop,
        prepared: Prepared,
        batches: list[list[int]],
        on_batch: Callable[[list[RowResult]], None],
    ) -> Any:
        """Send this rank's batches through the trainer's own loop.

        Args:
            loop: The trainer's.
            prepared: The set.
            batches: Row indices, and `FILLER` where another rank has a row more.
            on_batch: Called once a batch, as soon as it is done, with its results in order, fillers left out.

        Returns:
            The trainer's output record.
        """
        # Of size 1, not None: Axolotl's patched fetcher takes every index for a list.
        loader = torch.utils.data.DataLoader(
            Batches(
                prepared.dataset,
                prepared.rows,
                batches,
                pad_id=self.detokenizer.pad_id,
                collator=prepared.collator,
            ),
            batch_size=1,
            collate_fn=operator.itemgetter(0),
        )
        self._pass = _Pass(prepared.class_ids, on_batch)
        try:
            return loop(loader)
        finally:
            self._pass = None

    def step(self, model: torch.nn.Module, batch: Batch) -> None:
        """One forward pass, called from the trainer's `prediction_step`."""
        assert self._pass is not None
        class_ids, on_batch = self._pass
        # All ranks make the same number of passes, so none of them can be halved or read in pieces.
        collective = in_step(model)
        found = halving(
            lambda part: self._forward(model, part, class_ids, collective), batch, collective=collective
        )
        on_batch([result for result in found if result.row != FILLER])

    def _forward(
        self, model: torch.nn.Module, batch: Batch, class_ids: list[list[int]], collective: bool
    ) -> list[RowResult]:
        inputs = self.trainer._prepare_inputs(dict(batch.inputs))
        device = inputs["input_ids"].device
        if self._takes_position_ids is None:  # once: it reads a signature and a whole configuration
            self._takes_position_ids = takes_position_ids(model)
        if not self._takes_position_ids and batch.part is None:
            inputs.pop("position_ids")
        batch = batch._replace(inputs=inputs, labels=batch.labels.to(device))
        with self.trainer.compute_loss_context_manager():
            found: list[RowResult] = forward(
                model,
                batch,
                keep_answers_only=self._answers_only(model),
                class_ids=class_ids,
                read_at_a_time=None if collective or batch.part else read_at_a_time(model, batch),
                agree=(lambda number: largest(number, device)) if collective else int,
            )
        return found

    def _answers_only(self, model: torch.nn.Module) -> bool:
        if self._keep_answers_only is None:
            self._keep_answers_only = takes_index_tensor(model)
            if not self._keep_answers_only:
                say(
                    f"{type(innermost(model)).__name__} does not take an index tensor as "
                    "`logits_to_keep`: evaluation computes logits at every position, as the engine does"
                )
        return self._keep_answers_only

    def _same_names(self, found: SetEvaluation) -> dict[str, float]:
        """The figures for the trainer: the same names at every evaluation, NaN where one is undefined.

        The model card is written at the very end, and fails on a name that the first evaluation lacked.
        """
        values = found.values
        reported = figures.reported_figures(found.prepared.metrics, generates=False)
        undefined = {name for name, figure in reported.items() if figure.may_be_undefined}
        names = self._names.setdefault(found.name, tuple(dict.fromkeys([*values, *sorted(undefined)])))
        late = [name for name in values if name not in names]
        if late:
            say(
                f"{found.name}: {', '.join(late)} had no value at the first evaluation; "
                "from now on only in eval_metrics.jsonl"
            )
        return {name: values.get(name, math.nan) for name in names}


def _step_of_weights(trainer: Any) -> int:
    """Optimizer steps of the weights that are evaluated.

    After training with `load_best_model_at_end` these are the best checkpoint's, not the last step's.
    """
    state = trainer.state
    if not trainer.is_in_train and trainer.args.load_best_model_at_end and state.best_model_checkpoint:
        return int(state.best_global_step)
    return int(state.global_step)
