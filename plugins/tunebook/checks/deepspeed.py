"""The DeepSpeed configuration: by itself, and against the recipe that names it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from tunebook import files
from tunebook.checks.recipe import as_number

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from tunebook.checks.findings import Finding
    from tunebook.checks.recipe import CheckedRecipe

Fault = tuple[str, str, str]
"""Dotted key, what is wrong, the step that ends it."""

_STAGE_3_ONLY = ("offload_param", "stage3_gather_16bit_weights_on_model_save", "stage3_max_live_parameters")


def check_deepspeed(recipe: CheckedRecipe) -> Iterator[Finding]:
    """`missing-deepspeed`, `deepspeed-config`, `deepspeed-mismatch`."""
    value = recipe.get("deepspeed")
    if not isinstance(value, str) or not value:
        return
    path = recipe.locate(value)
    if path is None:
        yield recipe.error(
            "deepspeed",
            "missing-deepspeed",
            f"there is no file {value}",
            fix="check the path; it starts from the folder the engine is started in",
        )
        return
    config, fault = read_config(path)
    if fault is not None:
        yield recipe.error("deepspeed", "deepspeed-config", fault, fix="fix the file")
        return
    for key, message, fix in config_faults(config):
        yield recipe.error("deepspeed", "deepspeed-config", f"{path.name}: {key}: {message}", fix=fix)
    for key, message, fix in _against(recipe, config):
        yield recipe.error("deepspeed", "deepspeed-mismatch", f"{path.name}: {key}: {message}", fix=fix)


def read_config(path: Path) -> tuple[Mapping[str, Any], str | None]:
    """Return a configuration, and what is wrong where it is none."""
    try:
        config = files.read_json(path)
    except (OSError, UnicodeDecodeError) as err:
        return {}, f"{path.name} cannot be read: {err}"
    except json.JSONDecodeError as err:
        return {}, f"{path.name}, line {err.lineno}, is no JSON: {err.msg}"
    return (config, None) if isinstance(config, dict) else ({}, f"{path.name} holds no JSON object")


def config_faults(config: Mapping[str, Any]) -> Iterator[Fault]:
    """Yield the faults of a configuration by itself."""
    zero = config.get("zero_optimization", {})
    if not isinstance(zero, dict):
        yield ("zero_optimization", "is no object", 'write {"stage": 2}')
        return
    stage = zero.get("stage", 0)
    if stage not in (0, 1, 2, 3) or isinstance(stage, bool):
        yield ("zero_optimization.stage", f"is {stage!r}", "write 0, 1, 2 or 3, without quotes")
        return
    if stage < 3:
        for key in _STAGE_3_ONLY:
            if key in zero:
                yield (
                    f"zero_optimization.{key}",
                    f"has no effect at stage {stage}",
                    "remove it, or set stage 3",
                )
    for key in ("offload_optimizer", "offload_param"):
        part = zero.get(key)
        if isinstance(part, dict) and part.get("device") == "nvme" and not part.get("nvme_path"):
            yield (f"zero_optimization.{key}", "offloads to nvme without an nvme_path", "add nvme_path")
    halves = [
        key
        for key in ("fp16", "bf16")
        if isinstance(config.get(key), dict) and config[key].get("enabled") is True
    ]
    if len(halves) == 2:
        yield ("bf16", "and fp16 are both enabled", 'write "auto" for both')


def _against(recipe: CheckedRecipe, config: Mapping[str, Any]) -> Iterator[Fault]:
    """What the Trainer compares, and ends the run over, once the model has been loaded."""
    pairs = {
        "train_micro_batch_size_per_gpu": recipe.setting("batch"),
        "gradient_accumulation_steps": recipe.setting("accumulation"),
    }
    for key, wanted in pairs.items():
        number = as_number(config.get(key))
        if number is not None and wanted is not None and number != as_number(wanted):
            yield (
                key,
                f"is {number:g}, and the recipe says {wanted}",
                'write "auto", which takes the recipe\'s',
            )
    for key in ("bf16", "fp16"):
        part = config.get(key)
        enabled = part.get("enabled") if isinstance(part, dict) else None
        own = recipe.values.get(key)
        if isinstance(enabled, bool) and isinstance(own, bool) and enabled != own:
            shown = str(enabled).lower(), str(own).lower()
            yield (f"{key}.enabled", f"is {shown[0]}, and the recipe says {shown[1]}", 'write "auto"')
