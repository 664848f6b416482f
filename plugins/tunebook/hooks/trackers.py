"""Examples and final figures for the experiment trackers that the run reports to.

The trainer's own callbacks log the figures, since they are ordinary metrics. What they cannot log is text:
which answers were wrong, and how. And a figure that W&B shows in its overview has to be in its summary.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tunebook.scoring.examples import COLUMNS, markdown, telling_rows
from tunebook.types import EvalRecord


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
