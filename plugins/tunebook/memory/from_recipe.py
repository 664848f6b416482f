"""Reads a recipe of either engine into the arguments of `estimate`, as that engine would set the run up."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunebook import files, paths
from tunebook.errors import TunebookError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tunebook.types import Recipe


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What a recipe says about memory, length and time."""

    model: str
    arguments: Mapping[str, Any]
    """For `tunebook.memory.estimate`, the number of GPUs left out."""
    eval_rows: int
    """Rows of an evaluation batch on one GPU."""
    accumulation: int
    epochs: float
    max_steps: int | None
    assumed: tuple[str, ...] = ()
    """What was not to be found, and is taken from its name; a line each."""


def read_run(recipe: Recipe) -> Run:
    """Read a resolved recipe.

    Raises:
        TunebookError: It names no model, or a DeepSpeed file that cannot be read.
    """
    run = _llamafactory(recipe) if recipe.engine == "llamafactory" else _axolotl(recipe)
    name = recipe.values.get("deepspeed")
    if isinstance(name, str) and name and _deepspeed_file(name, recipe) is None:
        how = f"ZeRO-{run.arguments['zero_stage']}"
        if run.arguments["offload"]:
            how += f" with {' and '.join(run.arguments['offload'])} in host memory"
        run = replace(run, assumed=(f"{name} is not here: taken for {how}, by its name",))
    return run


def _llamafactory(recipe: Recipe) -> Run:
    values = recipe.values
    deepspeed = _deepspeed(values.get("deepspeed"), recipe)
    full = values.get("finetuning_type", "lora") == "full"
    divided = bool(deepspeed["zero_stage"]) or bool(values.get("fsdp"))
    # Without DeepSpeed, FSDP or pure_bf16 the engine upcasts what it trains to fp32 (model/adapter.py).
    amp = full and not divided and not values.get("pure_bf16") and (values.get("bf16") or values.get("fp16"))
    optimizer = values.get("optim", "adamw_torch")
    for name in ("badam", "galore", "apollo"):
        optimizer = name if values.get(f"use_{name}") else optimizer
    if values.get("disable_gradient_checkpointing"):
        checkpointing: bool | str = False
    else:
        checkpointing = "unsloth" if values.get("use_unsloth_gc") or values.get("use_unsloth") else True
    bits = values.get("quantization_bit")
    if bits == 4:
        bits = "nf4-dq" if values.get("double_quantization", True) else "nf4"
    arguments = {
        "method": "full" if full else "dora" if values.get("use_dora") else "lora",
        "quantization": bits,
        "seq_len": values.get("cutoff_len", 2048),
        "micro_batch": values.get("per_device_train_batch_size", 8),
        "gradient_checkpointing": checkpointing,
        "attention": {"disabled": "eager", "fa2": "flash", "fa3": "flash"}.get(
            str(values.get("flash_attn")), "sdpa"
        ),
        "optimizer": optimizer,
        "fused_ce": "liger" if values.get("enable_liger_kernel") else None,
        "lora_rank": values.get("lora_rank", 8),
        "lora_targets": values.get("lora_target", "all"),
        "dtype": "fp32_amp" if amp else "fp16" if values.get("fp16") else "bf16" if _half(values) else "fp32",
        # It prepares a quantised model itself, and upcasts norms only when asked to.
        "upcast": bool(values.get("upcast_layernorm", False)),
        **deepspeed,
    }
    if values.get("fsdp"):
        arguments["zero_stage"] = 3
    return Run(
        model=_model(recipe, "model_name_or_path"),
        arguments=arguments,
        eval_rows=int(values.get("per_device_eval_batch_size", 8)),
        accumulation=int(values.get("gradient_accumulation_steps", 1)),
        epochs=float(values.get("num_train_epochs", 3)),
        max_steps=_positive(values.get("max_steps")),
    )


def _axolotl(recipe: Recipe) -> Run:
    values = recipe.values
    deepspeed = _deepspeed(values.get("deepspeed"), recipe)
    adapter = values.get("adapter")
    bits = "nf4" if values.get("load_in_4bit") else "int8" if values.get("load_in_8bit") else None
    fused = None
    plugins = " ".join(map(str, values.get("plugins") or ()))
    # The plugin is on by default where it is named.
    if values.get("cut_cross_entropy", "cut_cross_entropy" in plugins):
        fused = "cce"
    elif values.get("liger_fused_linear_cross_entropy"):
        fused = "liger"
    elif values.get("chunked_cross_entropy"):
        fused = "chunked"
    attention = "sdpa"
    if values.get("flash_attention") or "flash" in str(values.get("attn_implementation")):
        attention = "flash"
    elif values.get("eager_attention") or values.get("attn_implementation") == "eager":
        attention = "eager"
    batch = int(values.get("micro_batch_size") or 1)
    arguments = {
        "method": "full" if not adapter else "dora" if values.get("peft_use_dora") else "lora",
        "quantization": bits if adapter else None,
        "seq_len": values.get("sequence_len") or 512,
        "micro_batch": batch,
        "gradient_checkpointing": values.get("gradient_checkpointing", False),
        "attention": attention,
        "optimizer": str(values.get("optimizer", "adamw_torch")),
        "fused_ce": fused,
        "lora_rank": values.get("lora_r") or 8,
        "lora_targets": "all" if values.get("lora_target_linear") else values.get("lora_target_modules"),
        "dtype": "fp16"
        if values.get("fp16") or values.get("float16")
        else "bf16"
        if _half(values)
        else "fp32",
        # FlashAttention needs half precision: the engine undoes the upcast of a quantised model for it.
        "upcast": False if attention == "flash" else None,
        **deepspeed,
    }
    if values.get("activation_offloading"):
        arguments["offload"] = [*arguments["offload"], "activations"]
    if values.get("fsdp") or values.get("fsdp_config"):
        arguments["zero_stage"] = 3
    return Run(
        model=_model(recipe, "base_model"),
        arguments=arguments,
        eval_rows=int(values.get("eval_batch_size") or batch),
        accumulation=int(values.get("gradient_accumulation_steps") or 1),
        epochs=float(values.get("num_epochs") or 1),
        max_steps=_positive(values.get("max_steps")),
    )


def _half(values: Mapping[str, Any]) -> bool:
    named = values.get("bf16") or values.get("pure_bf16") or values.get("bfloat16")
    return named is True or str(named).lower() in {"auto", "full", "true"}


def _positive(value: Any) -> int | None:
    return int(value) if value is not None and int(value) > 0 else None


def _model(recipe: Recipe, key: str) -> str:
    if not recipe.values.get(key):
        raise TunebookError(f"{recipe.path}: names no model", fix=f"set {key}")
    return str(recipe.values[key])


def _deepspeed(value: Any, recipe: Recipe) -> dict[str, Any]:
    """Return stage and offload of a DeepSpeed configuration, given as a file or in place."""
    if not value:
        return {"zero_stage": 0, "offload": []}
    if isinstance(value, dict):
        config = value
    else:
        path = _deepspeed_file(value, recipe)
        if path is None:
            return _by_name(str(value), recipe)
        try:
            config = files.read_json(path)
        except ValueError as err:
            raise TunebookError(f"{path}: is no JSON: {err}", fix="correct the file") from err
    zero = config.get("zero_optimization") or {}
    offload = [
        name
        for key, name in (("offload_optimizer", "optimizer"), ("offload_param", "parameters"))
        if (zero.get(key) or {}).get("device") in {"cpu", "nvme"}
        or (key == "offload_optimizer" and zero.get("cpu_offload"))
    ]
    return {"zero_stage": int(zero.get("stage", 0)), "offload": offload}


def _deepspeed_file(value: str, recipe: Recipe) -> Path | None:
    above = recipe.path.resolve().parents
    places = (Path(value), paths.home() / value, *(folder / value for folder in above))
    return next((place for place in places if place.is_file()), None)


def _by_name(value: str, recipe: Recipe) -> dict[str, Any]:
    """As both engines name their files: `ds_z3_offload_config.json`, `zero3_bf16_cpuoffload_params.json`."""
    name = Path(value).name.lower()
    stage = re.search(r"z(?:ero)?[-_]?(?:stage)?[-_]?([0-3])", name)
    if stage is None:
        raise TunebookError(
            f"{recipe.path}: deepspeed names {value}, which does not exist", fix="correct the path"
        )
    offload: list[str] = []
    if "offload" in name:
        offload = ["optimizer", "parameters"] if stage[1] == "3" else ["optimizer"]
        offload = ["parameters"] if "offload_param" in name else offload
    return {"zero_stage": int(stage[1]), "offload": offload}


# Steps, tokens and time of a run, as the Hugging Face Trainer counts them.


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """How long a run is."""

    rows: int
    steps: int
    """Optimizer steps."""
    rows_per_step: int
    """The effective batch."""
    tokens: int
    """Tokens of all steps if every row had the length limit: an upper bound."""


def schedule(
    *,
    rows: int,
    micro_batch: int,
    accumulation: int,
    gpus: int,
    epochs: float,
    max_steps: int | None,
    seq_len: int,
) -> Schedule:
    """Count the optimizer steps of a run.

    Args:
        rows: Training rows, packing left out of account.
        max_steps: Ends the run early, as `max_steps` does; None for all epochs.

    >>> schedule(
    ...     rows=78271, micro_batch=2, accumulation=8, gpus=1, epochs=3, max_steps=None, seq_len=1024
    ... ).steps
    14676
    """
    batches = math.ceil(rows / (micro_batch * gpus))
    steps = math.ceil(max(1, math.ceil(batches / accumulation)) * epochs)
    seen = math.ceil(rows * epochs)
    if max_steps is not None:
        steps = max_steps
        seen = max_steps * micro_batch * accumulation * gpus
    return Schedule(
        rows=rows, steps=steps, rows_per_step=micro_batch * accumulation * gpus, tokens=seen * seq_len
    )
