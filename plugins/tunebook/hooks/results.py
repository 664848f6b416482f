"""What comes of an evaluation: records and figures, in the run's folder, on the terminal and in trackers."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tunebook.files import append_jsonl, write_atomic
from tunebook.hooks.forward import RowResult
from tunebook.hooks.generation import GeneratedIds
from tunebook.hooks.preparation import Prepared
from tunebook.hooks.ranks import say
from tunebook.metrics.statistics import half_width
from tunebook.runs.folder import FOLDER
from tunebook.scoring import figures
from tunebook.scoring.examples import COLUMNS, markdown, scored, telling_rows
from tunebook.types import EvalRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class SetEvaluation:
    """One evaluation of one set, done."""

    prepared: Prepared
    step: int
    """Optimizer steps of the weights."""
    records: list[EvalRecord]
    """One for each scored row, in the set's order."""
    values: dict[str, float]
    """Every figure by name; may be NaN or infinite."""

    @property
    def name(self) -> str:
        """Of the set."""
        return self.prepared.chosen.name


def evaluation_of(
    prepared: Prepared,
    results: Sequence[RowResult],
    generated: Mapping[int, GeneratedIds],
    *,
    step: int,
    loss_batch_size: int,
) -> SetEvaluation:
    """Score every row that is to be scored, and compute every figure.

    Args:
        prepared: The set.
        results: Of the answer pass, one for each row, in order.
        generated: By row; empty in answer mode.
        step: Optimizer steps taken.
        loss_batch_size: See `figures.Loss.loss`.
    """
    generates = prepared.mode == "generate"
    records = [
        _record(prepared, index, results[index], generated[index] if generates else None, step)
        for index in prepared.scored
    ]
    values = figures.set_figures(
        prepared.metrics,
        records,
        [figures.RowLoss(result.nll, result.tokens, result.hits) for result in results],
        loss_batch_size=loss_batch_size,
        answers_cut=sum(row.cut for row in prepared.rows),
        generation_cuts=[one.cut for one in generated.values()],
    )
    if prepared.chosen.beside is not None:
        del values["loss"]  # the name of the engine's own, which is another number
    return SetEvaluation(prepared=prepared, step=step, records=records, values=values)


def _record(
    prepared: Prepared, index: int, result: RowResult, generated: GeneratedIds | None, step: int
) -> EvalRecord:
    row, detokenizer = prepared.rows[index], prepared.detokenizer
    if generated is not None:
        prediction = detokenizer.answer(generated.ids)
    else:
        prediction = detokenizer.teacher_forced_answer(result.argmax_ids, row.answer_ids)
    unscored = EvalRecord(
        dataset=prepared.chosen.name,
        index=index,
        step=step,
        prompt=prepared.prompt(index),
        prediction=prediction,
        reference=prepared.references[index],
        mode=prepared.mode,
        scores={},
        nll=result.nll,
        reference_tokens=result.tokens,
        answer_cut=row.cut,
    )
    return scored(
        unscored,
        prepared.metrics,
        classes_of=prepared.classes_of,
        class_logprobs=result.class_logprobs,
        generation_cut=generated is not None and generated.cut,
    )


def write_results(trainer: Any, output_dir: Path, found: SetEvaluation, seconds: float) -> None:
    """Write the line of figures and the records of an evaluation, and print the figures that matter.

    Args:
        trainer: Whose evaluation it was.
        output_dir: The run's folder.
        found: The evaluation.
        seconds: How long it took.
    """
    prepared, values = found.prepared, found.values
    stderr = figures.standard_errors(prepared.metrics, found.records)
    reasons = figures.unparsed_reasons(found.records)
    chosen = figures.selection(prepared.metrics)
    n = len(found.records) if prepared.metrics else len(prepared.rows)
    line = {
        "dataset": found.name,
        "step": found.step,
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
    }
    append_jsonl(output_dir / FOLDER / "eval_metrics.jsonl", line)
    records = "".join(json.dumps(asdict(record), ensure_ascii=False) + "\n" for record in found.records)
    write_atomic(output_dir / FOLDER / f"eval_records-{found.name}-{found.step}.jsonl", records)
    lead = ["loss", "perplexity"]
    if prepared.metrics:
        reported = figures.reported_names(prepared.metrics)[prepared.metrics[0].name]
        lead = [chosen.figure, *list(reported.values())[:2], "loss"]
    say(f"step {found.step}, {found.name}: {_headline(values, stderr, lead, n, seconds)}")


def _headline(
    values: Mapping[str, float], stderr: Mapping[str, float], lead: Iterable[str], n: int, seconds: float
) -> str:
    """The line a person reads while training: the figures to lead with, then what qualifies them.

    `±` is half the width of the 95 % interval, as in reports.
    """
    parts = []
    for name in dict.fromkeys(lead):
        if name in values:
            known = f" ± {half_width(values[name], stderr[name], n):.3f}" if name in stderr else ""
            parts.append(f"{name} {values[name]:.4f}{known}")
    if "majority_accuracy" in values:
        parts.append(f"majority {values['majority_accuracy']:.3f}")
    if values.get("unparsed_rate"):
        parts.append(f"unparsed {values['unparsed_rate']:.1%}")
    return ", ".join([*parts, f"n {n}", f"{seconds:.1f} s"])


def send_to_trackers(trainer: Any, found: SetEvaluation, logged: Mapping[str, float]) -> None:
    """Send an evaluation's examples to W&B and TensorBoard, where the run reports to them.

    The trainer's own callbacks log the figures, since they are ordinary metrics. What they cannot log is
    text: which answers were wrong, and how. And W&B shows in its overview only what is in its summary.

    Args:
        trainer: The engine's trainer, on the first rank.
        found: The evaluation.
        logged: The figures under the names that the trainer logs, e.g. `eval_accuracy`.
    """
    rows = telling_rows(found.records)
    if "wandb" in trainer.args.report_to:
        published = figures.signatures(found.prepared.metrics)
        signatures = {f"eval_{metric}_signature": text for metric, text in published.items()}
        _to_wandb(trainer, found.name, rows, {**logged, **signatures})
    for callback in trainer.callback_handler.callbacks:
        writer = getattr(callback, "tb_writer", None)
        if writer is not None and rows:
            writer.add_text(f"eval/{found.name}/examples", markdown(rows), trainer.state.global_step)


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
