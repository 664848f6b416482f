"""Check of the room on disk for what a run is sure to write."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tunebook import files
from tunebook.errors import TunebookError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

LEAST_BYTES = 1 << 30
"""Room that every run must find: adapters, logs and evaluation records are small, but not nothing."""

# Full training keeps two Adam states of 4 bytes beside each weight of 2, so an optimizer's file is four
# times as large as the weights. Smaller optimizers exist: the estimate leaves out what is uncertain above
# it (further checkpoints up to save_total_limit), and counts one checkpoint and the final model.
_OPTIMIZER_PER_WEIGHT = 4


def check_disk(output_dir: Path, values: Mapping[str, Any], model: Path | None) -> None:
    """Check that one checkpoint and the final model fit.

    Args:
        output_dir: Where the run writes; need not exist.
        values: The resolved recipe.
        model: The folder of the base model; None where it is not on this machine.

    Raises:
        TunebookError: They do not.
    """
    needed = max(LEAST_BYTES, estimate_bytes(values, weight_bytes(model) if model else 0))
    free = files.free_bytes(output_dir)
    if free < needed:
        raise TunebookError(
            f"no room on disk: {output_dir} has {free / 2**30:.1f} GiB free, and one checkpoint with the "
            f"final model needs about {needed / 2**30:.1f} GiB",
            fix="free some space, or set output_dir to a larger disk",
        )


def estimate_bytes(values: Mapping[str, Any], weights: int) -> int:
    """Return the bytes of one checkpoint and the final model; 0 where only adapters are saved.

    Args:
        values: The recipe.
        weights: Bytes of the base model's weight files.
    """
    if values.get("finetuning_type", "lora") != "full":
        return 0
    optimizer = 0 if values.get("save_only_model") else _OPTIMIZER_PER_WEIGHT
    return weights * (2 + optimizer)


def weight_bytes(model: Path) -> int:
    """Return the bytes of the weight files in a model's folder."""
    weights = list(model.glob("*.safetensors")) or list(model.glob("*.bin"))
    return sum(path.stat().st_size for path in weights)
