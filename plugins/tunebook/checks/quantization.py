"""Quantisation, ZeRO-3, unsloth and full fine-tuning: pairs that an engine refuses after it has started."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

from tunebook.engines.axolotl.rules import PLUGIN

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tunebook.checks.findings import Finding
    from tunebook.checks.recipe import CheckedRecipe


_ADAPTERS = ("lora", "oft")


def check_quantization(recipe: CheckedRecipe) -> Iterator[Finding]:
    """`quantized-full`, `quantized-zero3`, `unsloth-zero3`, `zero3-conflict`, `optimizer-conflict`."""
    if recipe.engine == "axolotl":
        yield from _axolotl(recipe)
        return
    if recipe.get("quantization_bit") is not None:
        yield from _quantized(recipe)
    if recipe.command == "train":
        yield from _zero3(recipe)
        yield from _methods(recipe)


def _quantized(recipe: CheckedRecipe) -> Iterator[Finding]:
    bits, method = recipe.get("quantization_bit"), str(recipe.effective("quantization_method"))
    how = recipe.effective("finetuning_type")
    if how not in _ADAPTERS:
        yield recipe.error(
            "quantization_bit",
            "quantized-full",
            f"a quantised model trains with lora or oft only, not with finetuning_type: {how}",
            fix="remove quantization_bit, or set finetuning_type: lora",
        )
    for key, fix in (
        ("pissa_init", "remove pissa_init; scripts/pissa_init.py of LLaMA-Factory prepares such a model"),
        ("resize_vocab", "remove resize_vocab"),
        ("fp8", "remove one of them"),
    ):
        if recipe.get(key):
            yield recipe.error(key, "quantized-full", f"`{key}` does not go with quantization_bit", fix=fix)
    adapters = recipe.get("adapter_name_or_path")
    if isinstance(adapters, str) and "," in adapters:
        yield recipe.error(
            "adapter_name_or_path",
            "quantized-full",
            "a quantised model takes one adapter",
            fix="merge them first, without quantization_bit",
        )
    if recipe.zero_stage == 3 and (method != "bnb" or bits != 4):
        yield recipe.error(
            "quantization_bit",
            "quantized-zero3",
            f"ZeRO-3 can shard 4-bit bnb weights only, not {bits}-bit {method}",
            fix="set quantization_bit: 4 with quantization_method: bnb, or use ZeRO-2",
        )
    if recipe.command == "train" and recipe.get("quantization_device_map") == "auto":
        yield recipe.error(
            "quantization_device_map",
            "quantized-zero3",
            "a device map is for inference only",
            fix="remove quantization_device_map",
        )


def _zero3(recipe: CheckedRecipe) -> Iterator[Finding]:
    if recipe.zero_stage != 3:
        return
    for key, why in (
        ("use_unsloth", "unsloth has its own model code, which ZeRO-3 cannot shard"),
        ("predict_with_generate", "LLaMA-Factory refuses to generate under ZeRO-3"),
        ("pure_bf16", "LLaMA-Factory refuses it under ZeRO-3"),
        ("pissa_init", "LLaMA-Factory refuses it under ZeRO-3"),
    ):
        if recipe.get(key):
            yield recipe.error(
                key,
                "unsloth-zero3" if key == "use_unsloth" else "zero3-conflict",
                why,
                fix=f"remove {key}, or use ZeRO-2",
            )


def _methods(recipe: CheckedRecipe) -> Iterator[Finding]:
    memory_savers = [key for key in ("use_galore", "use_apollo", "use_badam") if recipe.get(key)]
    for key in memory_savers:
        if recipe.effective("finetuning_type") == "lora":
            yield recipe.error(
                key,
                "optimizer-conflict",
                f"`{key}` does not go with finetuning_type: lora",
                fix="set finetuning_type: full",
            )
        if key != "use_badam" and recipe.get("deepspeed"):
            yield recipe.error(
                key, "optimizer-conflict", f"`{key}` does not go with DeepSpeed", fix="remove one of them"
            )
    if recipe.get("bf16") and recipe.get("fp16"):
        yield recipe.error(
            "fp16",
            "two-precisions",
            "bf16 and fp16 cannot both be true",
            fix="remove one of them; bf16 needs no loss scaling",
        )
    if recipe.effective("finetuning_type") != "lora":
        for key in ("loraplus_lr_ratio", "use_rslora", "use_dora", "pissa_init"):
            if recipe.get(key):
                yield recipe.error(
                    key,
                    "lora-option",
                    f"`{key}` is for LoRA only",
                    fix=f"remove {key}, or set finetuning_type: lora",
                )


def _axolotl(recipe: CheckedRecipe) -> Iterator[Finding]:
    if recipe.get("load_in_8bit") and recipe.zero_stage == 3:
        yield recipe.error(
            "load_in_8bit",
            "quantized-zero3",
            "ZeRO-3 can shard 4-bit weights only",
            fix="set load_in_4bit: true with adapter: qlora, or use ZeRO-2",
        )


# LoRA targets and Axolotl plugins: names that are ignored where they are wrong.

_MODULES = (
    *("q_proj", "k_proj", "v_proj", "o_proj", "qkv_proj", "out_proj", "gate_proj", "up_proj", "down_proj"),
    *("gate_up_proj", "query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h", "W_pack", "c_attn"),
    *("c_proj", "fc1", "fc2", "lm_head", "embed_tokens", "in_proj", "x_proj", "dt_proj", "wqkv"),
    *("wo", "w1", "w2", "w3"),
)
_SURE = 0.85


def check_adapters(recipe: CheckedRecipe) -> Iterator[Finding]:
    """`lora-target`, `plugin-path`."""
    key = "lora_target" if recipe.engine == "llamafactory" else "lora_target_modules"
    value = recipe.get(key)
    named = value.split(",") if isinstance(value, str) else value if isinstance(value, list) else []
    if recipe.engine == "axolotl" and isinstance(value, str):
        named = []  # a regular expression
    for number, part in enumerate(named):
        name = str(part).strip().rpartition(".")[2]
        close = difflib.get_close_matches(name, _MODULES, n=1, cutoff=_SURE)
        if name in _MODULES or not close or not name.isidentifier():
            continue
        path = f"{key}[{number}]" if isinstance(value, list) else key
        right = ",".join(
            close[0] if str(other).strip() == str(part).strip() else str(other) for other in named
        )
        yield recipe.warning(
            path,
            "lora-target",
            f"few models have a module {name}, and one that is not found is left untrained",
            fix=f"did you mean {close[0]}?",
            edit=recipe.rewrite(path, close[0] if isinstance(value, list) else right),
        )
    if recipe.engine == "axolotl":
        yield from _plugins(recipe)


def _plugins(recipe: CheckedRecipe) -> Iterator[Finding]:
    plugins = recipe.get("plugins", [])
    known = [*recipe.schema["plugins"], PLUGIN]
    for number, plugin in enumerate(plugins if isinstance(plugins, list) else []):
        path, name = f"plugins[{number}]", str(plugin)
        if name in known or f"axolotl.integrations.{name}" in known:
            continue
        if "." not in name:
            yield recipe.error(
                path, "plugin-path", f"{name!r} names no class", fix="write package.module.Class"
            )
            continue
        close = difflib.get_close_matches(name, known, n=1, cutoff=0.85)
        if close:
            yield recipe.error(
                path,
                "plugin-path",
                f"no such plugin: {name}; Axolotl goes on without a plugin it cannot import",
                fix=f"did you mean {close[0]}?",
                edit=recipe.rewrite(path, close[0]),
            )
