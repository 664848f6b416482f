"""What one recipe asks of a node: GPU memory, host memory and disk, by `tunebook.memory`'s estimate."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

from tunebook import memory
from tunebook.doctor.facts import Needs
from tunebook.errors import TunebookError
from tunebook.memory.from_recipe import read_run

if TYPE_CHECKING:
    from tunebook.memory import MemoryEstimate, Setup
    from tunebook.types import Recipe

_LLAMAFACTORY_ATTENTION = {"fa2": "flash", "fa3": "flash", "disabled": "eager", "sdpa": "sdpa"}


def needs_of(recipe: Recipe, gpus: int) -> Needs:
    """Estimate what a resolved recipe needs on a node with that many GPUs; 0 is taken for one.

    Raises:
        TunebookError: The recipe names no model, or a DeepSpeed file that cannot be read.
    """
    run = read_run(recipe)
    gpus = max(1, gpus)
    known = Needs(
        recipe=recipe.name,
        engine=recipe.engine,
        model=run.model,
        values=recipe.values,
        gpus=gpus,
        offload="optimizer" in (run.arguments.get("offload") or ()),
        attention=_attention(recipe),
    )
    try:
        setup = memory.read_setup(**run.arguments, gpus=gpus)
        found = memory.estimate_setup(memory.read_shape(memory.find_config(run.model)), setup)
    except TunebookError as error:
        return replace(known, unknown=error.problem)
    return replace(
        known,
        gpu_bytes=found.total,
        gpu_bytes_low=found.low,
        host_bytes=found.host,
        disk_bytes=disk_bytes(recipe, found, setup),
    )


def disk_bytes(recipe: Recipe, found: MemoryEstimate, setup: Setup) -> float:
    """Return the bytes of the checkpoints that are kept and of what is being written beside them.

    An old checkpoint goes when the new one is whole, so one more than `save_total_limit` is on disk then.
    Without that limit two are counted: the run keeps all of them, and how many is not known here.
    """
    weights = 4 if setup.dtype in {"amp", "fp32"} else 2
    model = found.params * weights if setup.full else found.adapter_file
    checkpoint = model + (0 if recipe.values.get("save_only_model") else found.optimizer_file)
    kept = int(recipe.values.get("save_total_limit") or 1)
    return float(checkpoint * kept + max(checkpoint, model))


def _attention(recipe: Recipe) -> str:
    values = recipe.values
    if recipe.engine == "llamafactory":
        return _LLAMAFACTORY_ATTENTION.get(str(values.get("flash_attn")), "auto")
    named = str(values.get("attn_implementation") or "")
    if values.get("flash_attention") or named.startswith("flash_attention"):
        return "flash"
    return "eager" if values.get("eager_attention") or named == "eager" else named or "auto"


def gib(size: float) -> str:
    """Return bytes as GiB in words, rounded up: what is asked for must not look smaller than it is."""
    return f"{math.ceil(size / 2**30 * 10) / 10:g} GiB"
