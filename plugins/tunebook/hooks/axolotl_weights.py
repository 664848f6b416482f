"""Which weights `axolotl evaluate` has loaded, and how many optimizer steps stand behind them.

Axolotl evaluates the recipe's `base_model`, and with `adapter` a freshly made adapter on it, unless it is
told otherwise on the command line. Nothing in its output says that what was trained is not what was scored.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tunebook.errors import TunebookError
from tunebook.hooks.leavings import say
from tunebook.models.checkpoints import checkpoint_folders


def steps_of_weights(cfg: Any) -> int:
    """Return the optimizer steps behind the loaded weights; 0 for a model as it was published.

    Raises:
        TunebookError: A fresh adapter was made, or the bare base was loaded although a model trained from it
            lies in the output folder.
    """
    output_dir = Path(cfg.output_dir)
    if cfg.adapter and not cfg.lora_model_dir:
        raise TunebookError(
            f"`adapter: {cfg.adapter}` without `lora_model_dir`: a fresh adapter would be scored",
            fix=f"add `--lora-model-dir {output_dir}`, or a checkpoint in it; to score the base model, "
            "remove `adapter` and set another `output_dir`",
        )
    loaded = Path(cfg.lora_model_dir or cfg.base_model)
    if loaded.resolve().is_relative_to(output_dir.resolve()):
        return _steps(loaded, output_dir)
    if not cfg.lora_model_dir and _holds_weights(output_dir):
        raise TunebookError(
            f"`base_model: {loaded}` would be scored, not the model that was trained into {output_dir}",
            fix=f"add `--base-model {output_dir}`, or a checkpoint in it; to score the base model, "
            "set another `output_dir`",
        )
    say(f"evaluating {loaded}, which was not trained into {output_dir}")
    return _steps(loaded, loaded)


def _holds_weights(folder: Path) -> bool:
    return any(folder.glob("*.safetensors")) or bool(checkpoint_folders(folder))


def _steps(loaded: Path, run: Path) -> int:
    """Read the step from the checkpoint; for a run's final model from the state of its last checkpoint."""
    state = _state(loaded)
    if state is not None:
        return int(state["global_step"])
    checkpoints = checkpoint_folders(run)
    state = _state(checkpoints[-1]) if checkpoints else None
    if state is None:
        return 0
    # The final model is the best checkpoint where one was chosen, the last step's otherwise.
    best = state.get("best_model_checkpoint") and state.get("best_global_step")
    return int(best or state["global_step"])


def _state(folder: Path) -> dict[str, Any] | None:
    path = folder / "trainer_state.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
