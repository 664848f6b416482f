"""`attach`: makes a Hugging Face trainer evaluate with tunebook's metrics.

The seam is `evaluation_loop`. Metrics returned from it exist before the trainer logs, so the terminal,
`log_history`, TensorBoard, W&B, early stopping, the choice of the best checkpoint, result files and the
model card all get them. A callback's `on_evaluate` comes too late for half of these.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunebook.errors import TunebookError
from tunebook.hooks.batches import Batch
from tunebook.hooks.decoding import Detokenizer, stop_ids
from tunebook.hooks.evaluator import Evaluator, Loop
from tunebook.hooks.preferences import chosen_rows
from tunebook.hooks.preparation import EngineWords, EvaluationSet
from tunebook.hooks.ranks import say
from tunebook.metrics.figures import GENERATION_CUT
from tunebook.scoring.figures import reported_figures

if TYPE_CHECKING:
    import torch


class _EvaluatesAnswers:
    """Mixed in before the trainer's own class: sends evaluations of our sets through the evaluator."""

    tunebook: Evaluator

    def evaluation_loop(
        self,
        dataloader: Any,
        description: str,
        prediction_loss_only: bool | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> Any:
        """As the trainer's own; other loops, such as prediction, go straight to it."""
        stock: Any = super().evaluation_loop  # type: ignore[misc]
        if metric_key_prefix not in self.tunebook.sets:
            return stock(dataloader, description, prediction_loss_only, ignore_keys, metric_key_prefix)
        loop = self.loop(description, metric_key_prefix)
        if self.tunebook.sets[metric_key_prefix].beside is None:
            return self.tunebook.run(loop, metric_key_prefix)
        output = stock(dataloader, description, prediction_loss_only, ignore_keys, metric_key_prefix)
        ours = self.tunebook.run(loop, metric_key_prefix).metrics
        return output._replace(metrics={**ours, **output.metrics})

    def loop(self, description: str, prefix: str) -> Loop:
        """The `evaluation_loop` of the trainer's own class, to be given a loader of our batches."""
        stock: Any = super().evaluation_loop  # type: ignore[misc]
        return functools.partial(
            stock, description=description, prediction_loss_only=True, metric_key_prefix=prefix
        )

    def prediction_step(self, model: torch.nn.Module, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        """One of our batches gives nothing back to the loop: no loss to gather, no logits to keep."""
        if isinstance(inputs, Batch):
            self.tunebook.step(model, inputs)
            return None, None, None
        stock: Any = super().prediction_step  # type: ignore[misc]
        return stock(model, inputs, *args, **kwargs)


def attach(trainer: Any, sets: Mapping[str, EvaluationSet], *, words: EngineWords, output_dir: Path) -> None:
    """Evaluate the trainer's sets at answer positions, or by generation, and report our metrics.

    Args:
        trainer: A `transformers.Trainer` or a subclass, built, not yet training.
        sets: By metric prefix: `{"eval": ...}` for one set, `{"eval_<name>": ...}` for several.
        words: The engine's names for what our messages mention.
        output_dir: The run's folder.

    Raises:
        TunebookError: The best-model metric is one that nobody will produce, or a set cannot be evaluated.
    """
    _check_best_metric(trainer.args, sets)
    detokenizer = Detokenizer(trainer.processing_class, stop_ids(trainer.processing_class, trainer.model))
    trainer.tunebook = Evaluator(trainer, sets, words, output_dir, detokenizer)
    # The class of this one object, not the engine's class: other trainers in the process stay as they are.
    cls = type(trainer)
    trainer.__class__ = type(cls.__name__, (_EvaluatesAnswers, cls), {"__module__": cls.__module__})
    for prefix in sets:
        name = prefix.removeprefix("eval_")
        datasets = trainer.eval_dataset
        rows = datasets[name] if isinstance(datasets, dict) else datasets
        if sets[prefix].beside is not None:
            rows, note = chosen_rows(rows, sets[prefix].name, words.length_limit)
            say(note)
        _check_generates(trainer.args, prefix, trainer.tunebook.prepare(prefix, rows).mode)


def _check_best_metric(args: Any, sets: Mapping[str, EvaluationSet]) -> None:
    """Fail now on a best-model metric that would fail at the first evaluation, or select the worst model."""
    key = _best_metric(args)
    if key is None:
        return
    produced = {
        f"{prefix}_{name}": figure
        for prefix, chosen in sets.items()
        for name, figure in reported_figures(
            [metric for metric, _ in chosen.metrics],
            # Without a mode the rows decide, which are read later: see `_check_generates`.
            generates=any(spec.mode != "answer" for _, spec in chosen.metrics),
        ).items()
    }
    for chosen in sets.values():
        produced |= {f"eval_{name}": figure for name, figure in (chosen.beside or {}).items()}
    if key not in produced and any(
        not m.figures_complete for chosen in sets.values() for m, _ in chosen.metrics
    ):
        return  # a user's function: its figures are known when it has run
    if key not in produced:
        raise TunebookError(
            f"metric_for_best_model is {args.metric_for_best_model!r}, which no evaluation will report",
            fix="choose one of: "
            + ", ".join(name.removeprefix("eval_") for name, one in produced.items() if not one.descriptive),
        )
    if produced[key].smaller_is_better and args.greater_is_better:
        # transformers takes every name that does not end in "loss" for one where greater is better.
        args.greater_is_better = False
        say(f"{args.metric_for_best_model}: smaller is better; greater_is_better set to false")


def _check_generates(args: Any, prefix: str, mode: str) -> None:
    """Fail now where the best model is chosen by what is measured only where answers are generated."""
    if _best_metric(args) == f"{prefix}_{GENERATION_CUT.name}" and mode != "generate":
        raise TunebookError(
            f"metric_for_best_model is {args.metric_for_best_model!r}, and no answer is generated",
            fix='write "mode": "generate" beside the metric\'s name, or choose another figure',
        )


def _best_metric(args: Any) -> str | None:
    wanted: str | None = args.metric_for_best_model
    return wanted if wanted is None or wanted.startswith("eval_") else f"eval_{wanted}"
