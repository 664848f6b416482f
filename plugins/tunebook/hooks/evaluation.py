"""The evaluation of a trainer's sets: the passes, the figures, and what is left behind."""

from __future__ import annotations

import math
import operator
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from tunebook.hooks import answers, examples, leavings
from tunebook.hooks.answers import RowResult
from tunebook.hooks.batches import Batch, Batches
from tunebook.hooks.evaluation_left import leave
from tunebook.hooks.preparation import EngineWords, EvaluationSet, Prepared, prepare
from tunebook.hooks.room import halving, read_at_a_time
from tunebook.hooks.shards import FILLER, deal, gather, in_step, largest, rank_of
from tunebook.hooks.texts import Texts
from tunebook.hooks.trackers import track
from tunebook.hooks.wrappers import innermost, takes_index_tensor, takes_position_ids
from tunebook.scoring import figures
from tunebook.types import EvalRecord

if TYPE_CHECKING:
    from tunebook.hooks.generation import Generated


class Evaluator:
    """Evaluates the sets of one trainer. Made by `attach`.

    Args:
        trainer: A Hugging Face trainer, or a subclass.
        sets: By the prefix the trainer gives a set's metrics: `eval`, or `eval_<dataset>`.
        words: The engine's names for what our messages mention.
        output_dir: The run's folder.
        texts: The decoder.
    """

    def __init__(
        self,
        trainer: Any,
        sets: Mapping[str, EvaluationSet],
        words: EngineWords,
        output_dir: Path,
        texts: Texts,
    ) -> None:
        self.trainer = trainer
        self.sets = sets
        self.words = words
        self.output_dir = output_dir
        self.texts = texts
        self.rank = rank_of(trainer)
        self._prepared: dict[str, Prepared] = {}
        self._current: Prepared | None = None
        self._collected: list[RowResult] = []
        self._on_batch: Callable[[list[RowResult]], None] = self._collected.extend
        self._keep_answers_only: bool | None = None
        self._takes_position_ids: bool | None = None
        self._names: dict[str, tuple[str, ...]] = {}

    def prepare(self, prefix: str, dataset: Any) -> Prepared:
        """Read a set, once per run, and say what there is to say about it."""
        if prefix not in self._prepared:
            prepared = prepare(self.sets[prefix], dataset, self.texts, self.words)
            self._prepared[prefix] = prepared
            for note in prepared.notes:
                leavings.say(note)
        return self._prepared[prefix]

    def change_texts(self, texts: Texts) -> None:
        """Decode in another way from now on; the sets are to be prepared anew."""
        self.texts = texts
        self._prepared.clear()

    def forget_model(self) -> None:
        """Look at the trainer's model again: it is another one now."""
        self._keep_answers_only = self._takes_position_ids = None

    def run(self, stock_loop: Callable[..., Any], dataset: Any, description: str, prefix: str) -> Any:
        """Evaluate one set inside the trainer's own loop.

        Args:
            stock_loop: The trainer's `evaluation_loop`. It prepares the model, moves the progress bar and
                calls `prediction_step`; it gets our batches, and nothing to gather.
            dataset: The tokenised rows.
            description: As the trainer passed it.
            prefix: A key of `sets`.

        Returns:
            The trainer's own output record, with every row counted once.
        """
        started = time.perf_counter()
        prepared = self.prepare(prefix, dataset)
        output = self._answer_pass(stock_loop, prepared, dataset, description, prefix)
        results = sorted(gather(self._collected, self.rank), key=lambda result: result.row)
        if [result.row for result in results] != list(range(len(prepared.rows))):
            raise RuntimeError(f"{len(results)} results for the {len(prepared.rows)} rows of {prefix!r}")
        generated: Mapping[int, Generated] = {}
        generating = time.perf_counter()
        if prepared.mode == "generate":
            from tunebook.hooks.generation import generate

            generated = generate(self.trainer, dataset, prepared, self.texts, self.rank)
        finished = time.perf_counter()
        step = _step_of_weights(self.trainer)
        found = examples.records(prepared, dataset, self.texts, results, generated, step)
        values = self._figures(prepared, results, found, generated)
        if generated:
            values["generation_seconds"] = finished - generating
        metrics = {f"{prefix}_{name}": value for name, value in self._same_names(prepared, values).items()}
        if self.trainer.is_world_process_zero():
            leave(self.trainer, self.output_dir, prepared, found, values, step, time.perf_counter() - started)
            track(self.trainer, prepared.chosen.name, found, metrics, figures.signatures(prepared.metrics))
        return output._replace(metrics={**output.metrics, **metrics}, num_samples=len(prepared.rows))

    def step(self, model: torch.nn.Module, batch: Batch) -> None:
        """One forward pass, called from the trainer's `prediction_step`."""
        assert self._current is not None
        collective = in_step(model)
        found = halving(lambda part: self._forward(model, part, collective), batch, collective=collective)
        self._on_batch([result for result in found if result.row != FILLER])

    def _forward(self, model: torch.nn.Module, batch: Batch, collective: bool) -> list[RowResult]:
        assert self._current is not None
        inputs = self.trainer._prepare_inputs(dict(batch.inputs))
        device = inputs["input_ids"].device
        if self._takes_position_ids is None:  # once: it reads a signature and a whole configuration
            self._takes_position_ids = takes_position_ids(model)
        if not self._takes_position_ids:
            inputs.pop("position_ids")
        batch = batch._replace(inputs=inputs, labels=batch.labels.to(device))
        with self.trainer.compute_loss_context_manager():
            found: list[RowResult] = answers.forward(
                model,
                batch,
                keep_answers_only=self._answers_only(model),
                class_ids=self._current.class_ids,
                # How often a rank reads depends on its own rows; where passes are collective it reads once.
                read_at_a_time=None if collective else read_at_a_time(model, batch),
                agree=(lambda number: largest(number, device)) if collective else int,
            )
        return found

    def _answer_pass(
        self, stock_loop: Callable[..., Any], prepared: Prepared, dataset: Any, description: str, prefix: str
    ) -> Any:
        batches = deal([row.length for row in prepared.rows], self.trainer.args.eval_batch_size, self.rank)
        self._collected = []
        return self.answer_batches(
            stock_loop, prepared, dataset, batches, self._collected.extend, description, prefix
        )

    def answer_batches(
        self,
        stock_loop: Callable[..., Any],
        prepared: Prepared,
        dataset: Any,
        batches: list[list[int]],
        on_batch: Callable[[list[RowResult]], None],
        description: str,
        prefix: str,
    ) -> Any:
        """Send this rank's batches through the trainer's own loop.

        Args:
            stock_loop: The trainer's `evaluation_loop`.
            prepared: What is known of the rows.
            dataset: The tokenised rows.
            batches: Row indices, and `FILLER` where another rank has a row more.
            on_batch: Called once a batch, as soon as it is done, with its results in order, fillers left out.
            description: For the trainer's messages.
            prefix: Of the trainer's metrics.

        Returns:
            The trainer's output record.
        """
        # Of size 1, not None: Axolotl's patched fetcher takes every index for a list.
        loader = torch.utils.data.DataLoader(
            Batches(dataset, prepared.rows, batches, pad_id=self.texts.pad_id),
            batch_size=1,
            collate_fn=operator.itemgetter(0),
        )
        self._current = prepared
        self._on_batch = on_batch
        try:
            return stock_loop(loader, description, prediction_loss_only=True, metric_key_prefix=prefix)
        finally:
            self._current = None

    def _answers_only(self, model: torch.nn.Module) -> bool:
        if self._keep_answers_only is None:
            self._keep_answers_only = takes_index_tensor(model)
            if not self._keep_answers_only:
                leavings.say(
                    f"{type(innermost(model)).__name__} does not take an index tensor as "
                    "`logits_to_keep`: evaluation computes logits at every position, as the engine does"
                )
        return self._keep_answers_only

    def _figures(
        self,
        prepared: Prepared,
        results: Sequence[RowResult],
        found: Sequence[EvalRecord],
        generated: Mapping[int, Generated],
    ) -> dict[str, float]:
        return figures.set_figures(
            prepared.metrics,
            found,
            [figures.RowLoss(result.nll, result.tokens, result.hits) for result in results],
            loss_batch_size=self.trainer.args.eval_batch_size,
            answers_cut=sum(row.cut for row in prepared.rows),
            generation_cuts=[one.cut for one in generated.values()],
        )

    def _same_names(self, prepared: Prepared, values: Mapping[str, float]) -> dict[str, float]:
        """The figures for the trainer: the same names at every evaluation, NaN where one is undefined.

        The model card is written at the very end, and fails on a name that the first evaluation lacked.
        """
        reported = figures.reported_names(prepared.metrics)
        undefined = {reported[m.name][figure] for m in prepared.metrics for figure in m.may_be_undefined}
        undefined.add("perplexity")
        names = self._names.setdefault(
            prepared.chosen.name, tuple(dict.fromkeys([*values, *sorted(undefined)]))
        )
        late = [name for name in values if name not in names]
        if late:
            leavings.say(
                f"{prepared.chosen.name}: {', '.join(late)} had no value at the first evaluation; "
                "from now on only in eval_metrics.jsonl"
            )
        return {name: values.get(name, math.nan) for name in names}


def _step_of_weights(trainer: Any) -> int:
    """Optimizer steps behind the weights being evaluated.

    After training with `load_best_model_at_end` these are the best checkpoint's, not the last step's.
    """
    state = trainer.state
    if not trainer.is_in_train and trainer.args.load_best_model_at_end and state.best_model_checkpoint:
        return int(state.best_global_step)
    return int(state.global_step)
