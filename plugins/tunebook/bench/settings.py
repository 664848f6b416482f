"""Turns a recipe into one that only trains, for a few steps: no evaluation, no saving, no trackers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tunebook.engines.axolotl.rules import PLUGIN
from tunebook.errors import TunebookError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tunebook.types import EngineName

_DROPPED = {
    "llamafactory": (
        *("eval_dataset", "val_size", "eval_steps", "eval_strategy", "do_eval", "do_predict", "save_steps"),
        *("load_best_model_at_end", "metric_for_best_model", "greater_is_better", "early_stopping_steps"),
        *("resume_from_checkpoint", "num_train_epochs", "predict_with_generate", "run_name"),
    ),
    "axolotl": (
        *("test_datasets", "eval_steps", "evals_per_epoch", "eval_strategy", "save_steps", "saves_per_epoch"),
        *("load_best_model_at_end", "metric_for_best_model", "greater_is_better", "early_stopping_patience"),
        *("resume_from_checkpoint", "auto_resume_from_checkpoints", "wandb_project", "mlflow_tracking_uri"),
        *("tunebook_dataset_dir", "tunebook_eval_datasets"),
    ),
}
_SET: dict[str, dict[str, Any]] = {
    "llamafactory": {"save_strategy": "no", "report_to": "none", "logging_steps": 1000, "plot_loss": False},
    "axolotl": {"save_strategy": "no", "val_set_size": 0.0, "logging_steps": 1000},
}
_ATTENTION_KEY = {"llamafactory": "flash_attn", "axolotl": "attn_implementation"}


def bench_values(
    values: Mapping[str, Any], engine: EngineName, *, steps: int, attention: str | None, synthetic: bool
) -> dict[str, Any]:
    """Return the recipe to measure.

    Args:
        values: A resolved recipe.
        engine: Whose it is.
        steps: Optimizer steps.
        attention: The engine's own name for an attention implementation; None for what the recipe says.
        synthetic: Random weights of the model's size: only its configuration and tokenizer are needed.

    Raises:
        TunebookError: The engine cannot make random weights.
    """
    kept = {key: value for key, value in values.items() if key not in _DROPPED[engine]}
    kept |= _SET[engine] | {"max_steps": steps}
    if attention is not None:
        kept[_ATTENTION_KEY[engine]] = attention
    if engine == "axolotl":
        kept["plugins"] = [plugin for plugin in values.get("plugins") or [] if plugin != PLUGIN]
    if synthetic and engine == "llamafactory":
        kept["train_from_scratch"] = True
    elif synthetic:
        raise TunebookError(
            "Axolotl makes no random weights by its recipe", fix="bench the LLaMA-Factory twin of the recipe"
        )
    return {key: value for key, value in kept.items() if value not in ([], None)}
