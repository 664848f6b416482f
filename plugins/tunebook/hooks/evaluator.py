"""The evaluation of a trainer's sets: the passes, the figures, and what is left behind."""

from __future__ import annotations

import math
import operator
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from tunebook.hooks import forward
from tunebook.hooks.batches import Batch, Batches
from tunebook.hooks.decoding import Texts
from tunebook.hooks.forward import RowResult, innermost, takes_index_tensor, takes_position_ids
from tunebook.hooks.generation import Generated
from tunebook.hooks.memory import halving, read_at_a_time
from tunebook.hooks.preparation import EngineWords, EvaluationSet, Prepared, prepare
from tunebook.hooks.ranks import FILLER, deal, gather, in_step, largest, rank_of
from tunebook.hooks.results import append_figures, headline, say, write_records
from tunebook.scoring import figures
from tunebook.scoring.examples import COLUMNS, markdown, record_of, telling_rows
from tunebook.types import EvalRecord


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
                say(note)
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
        found = records(prepared, dataset, self.texts, results, generated, step)
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
            found: list[RowResult] = forward.forward(
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
                say(
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
        reported = figures.reported_figures(prepared.metrics, generates=False)
        undefined = {name for name, figure in reported.items() if figure.may_be_undefined}
        names = self._names.setdefault(
            prepared.chosen.name, tuple(dict.fromkeys([*values, *sorted(undefined)]))
        )
        late = [name for name in values if name not in names]
        if late:
            say(
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


# What an evaluation leaves in the run's folder and in the log.


def leave(
    trainer: Any,
    output_dir: Path,
    prepared: Prepared,
    found: Sequence[EvalRecord],
    values: Mapping[str, float],
    step: int,
    seconds: float,
) -> None:
    """Write the line of figures and the records of one evaluation, and say the figures that matter.

    Args:
        trainer: Whose evaluation it was.
        output_dir: The run's folder.
        prepared: The set.
        found: The records, by row.
        values: The figures.
        step: Optimizer steps behind the weights.
        seconds: How long the evaluation took.
    """
    stderr = figures.standard_errors(prepared.metrics, found)
    reasons = figures.unparsed_reasons(found)
    first = prepared.metrics[0] if prepared.metrics else None
    names = figures.reported_names(prepared.metrics)[first.name] if first else {}
    chosen = figures.selection(prepared.metrics)
    n = len(found) if first else len(prepared.rows)
    append_figures(
        output_dir,
        {
            "dataset": prepared.chosen.name,
            "step": step,
            "epoch": trainer.state.epoch,
            "in_training": trainer.is_in_train,
            "mode": prepared.mode,
            "n": n,
            "n_unparsed": sum(reasons.values()),
            "unparsed_reasons": reasons,
            "answers_cut": int(values["answers_cut"]),
            "metric": [metric.name for metric in prepared.metrics],
            "signatures": figures.signatures(prepared.metrics),
            "select_by": chosen.figure,
            "larger_is_better": chosen.larger_is_better,
            "values": {name: value for name, value in values.items() if math.isfinite(value)},
            "not_finite": [name for name, value in values.items() if not math.isfinite(value)],
            "stderr": stderr,
            "seconds": round(seconds, 3),
            "tokens": sum(row.length for row in prepared.rows),
        },
    )
    write_records(output_dir, prepared.chosen.name, step, found)
    lead = [chosen.figure, *list(names.values())[:2], "loss"] if first else ["loss", "perplexity"]
    line = headline(values, stderr, lead, n, seconds)
    say(f"step {step}, {prepared.chosen.name}: {line}")


# Examples and final figures for the experiment trackers that the run reports to.
#
# The trainer's own callbacks log the figures, since they are ordinary metrics. What they cannot log is text:
# which answers were wrong, and how. And a figure that W&B shows in its overview has to be in its summary.


def track(
    trainer: Any,
    name: str,
    records: Sequence[EvalRecord],
    metrics: Mapping[str, float],
    signatures: Mapping[str, str],
) -> None:
    """Send one evaluation's examples to W&B and TensorBoard, where the run reports to them.

    Args:
        trainer: The engine's trainer, on the first rank.
        name: The evaluation set.
        records: All of its scored rows.
        metrics: The figures under the names that the trainer logs, e.g. `eval_accuracy`.
        signatures: By metric: what is to be published with its figures.
    """
    rows = telling_rows(records)
    if "wandb" in trainer.args.report_to:
        _to_wandb(trainer, name, rows, {**metrics, **_named(signatures)})
    for callback in trainer.callback_handler.callbacks:
        writer = getattr(callback, "tb_writer", None)
        if writer is not None and rows:
            writer.add_text(f"eval/{name}/examples", markdown(rows), trainer.state.global_step)


def _named(signatures: Mapping[str, str]) -> dict[str, str]:
    return {f"eval_{metric}_signature": signature for metric, signature in signatures.items()}


def _to_wandb(
    trainer: Any, name: str, rows: Sequence[tuple[Any, ...]], summary: Mapping[str, float | str]
) -> None:
    import wandb

    if wandb.run is None:  # the callback starts the run when training starts
        return
    if rows:
        table = wandb.Table(columns=list(COLUMNS), data=[list(row) for row in rows])
        # Beside the step, not as the step: the trainer's callback logs so, and W&B counts its own.
        wandb.log({f"eval/{name}/examples": table, "train/global_step": trainer.state.global_step})
    if not trainer.is_in_train:
        wandb.run.summary.update({key.replace("eval_", "eval/", 1): value for key, value in summary.items()})


# From what the passes found to one record per example.


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
