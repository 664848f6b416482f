"""What is known to run out of memory at long context, and checkpointing that trains nothing."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING

from tunebook.checks.recipe import as_number

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tunebook.checks.findings import Finding
    from tunebook.checks.recipe import CheckedRecipe


LONG = 32_768
"""Tokens above which generation during training is refused here: every new token attends to all of them."""
VERY_LONG = 65_536
"""Tokens above which one row's logits are tens of gigabytes: 65,536 x 151,936 x 2 bytes are 18.5 GiB."""

_FUSED_PLUGIN_KEYS = (
    *("cut_cross_entropy", "liger_fused_linear_cross_entropy", "chunked_cross_entropy"),
    *("tiled_mlp", "context_parallel_size", "large_head_attention"),
)


def check_memory_traps(recipe: CheckedRecipe) -> Iterator[Finding]:
    """`generation-at-length`, `reload-at-length`, `logits-at-length`, `reentrant-checkpointing`."""
    if recipe.command != "train":
        return
    length = as_number(recipe.setting("length")) or 0
    key = recipe.name("length")
    if length > LONG:
        yield from _generation(recipe, int(length))
        if recipe.get("load_best_model_at_end"):
            yield recipe.warning(
                "load_best_model_at_end",
                "reload-at-length",
                f"at {int(length):,} tokens memory is full when the best model is read back",
                fix="set it to false; `tunebook eval --checkpoints all` finds the best one",
            )
    if length > VERY_LONG and not _fuses_loss(recipe):
        yield recipe.warning(
            key,
            "logits-at-length",
            f"without a fused loss one row of {int(length):,} tokens holds "
            f"{length * 151_936 * 2 / 2**30:.0f} GiB of logits (bf16, 151,936 words)",
            fix="set enable_liger_kernel: true"
            if recipe.engine == "llamafactory"
            else "add the plugin axolotl.integrations.cut_cross_entropy.CutCrossEntropyPlugin",
        )
    yield from _reentrant(recipe)


def _generation(recipe: CheckedRecipe, length: int) -> Iterator[Finding]:
    if recipe.get("predict_with_generate"):
        yield recipe.error(
            "predict_with_generate",
            "generation-at-length",
            f"generation over {length:,} tokens during training runs out of memory",
            fix='remove it: a "metric" in the registry is measured at answer positions only',
        )
    for entry in recipe.entries(recipe.evaluation_sets):
        for spec in entry.metrics:
            if spec.mode == "generate":
                yield recipe.warning(
                    "eval_dataset" if recipe.engine == "llamafactory" else "tunebook_eval_datasets",
                    "generation-at-length",
                    f"{entry.name}: {spec.name} generates during training, over {length:,} tokens",
                    fix='set "max_samples" beside the metric, or evaluate after training',
                )


def _fuses_loss(recipe: CheckedRecipe) -> bool:
    if recipe.engine == "llamafactory":
        return bool(
            recipe.get("enable_liger_kernel") or recipe.get("use_liger_kernel") or recipe.get("use_unsloth")
        )
    plugins = str(recipe.get("plugins", ""))
    by_key = any(recipe.get(key) for key in _FUSED_PLUGIN_KEYS)
    return by_key or "cut_cross_entropy" in plugins or "liger" in plugins.lower()


def _reentrant(recipe: CheckedRecipe) -> Iterator[Finding]:
    options = recipe.get("gradient_checkpointing_kwargs", {})
    reentrant = options.get("use_reentrant") if isinstance(options, dict) else None
    if recipe.engine == "axolotl":
        if recipe.get("adapter") == "qlora" and reentrant is False and recipe.zero_stage == 3:
            yield recipe.warning(
                "gradient_checkpointing_kwargs.use_reentrant",
                "reentrant-checkpointing",
                "qlora with ZeRO-3 and use_reentrant: false may end with a CheckpointError",
                fix="write use_reentrant: true",
                edit=recipe.rewrite("gradient_checkpointing_kwargs.use_reentrant", "true"),
            )
        return
    lora = recipe.effective("finetuning_type") in ("lora", "oft")
    # LLaMA-Factory's own checkpointing makes the inputs require gradients, and so does the Trainer's since
    # transformers 5; before that, only without reentrance.
    by_trainer = recipe.get("gradient_checkpointing") and recipe.get("disable_gradient_checkpointing")
    if not (lora and by_trainer) or reentrant is False:
        return
    if not recipe.transformers("5"):
        yield recipe.error(
            "gradient_checkpointing",
            "reentrant-checkpointing",
            "reentrant checkpointing under LoRA before transformers 5: "
            "element 0 of tensors does not require grad",
            fix="remove both keys (LLaMA-Factory checkpoints by itself), or add "
            "gradient_checkpointing_kwargs: {use_reentrant: false}",
        )


# Context length, rope scaling and remote code against the model.

# `max_position_embeddings` of models that are often trained and need not be on this machine.
_CONTEXT: dict[str, int] = {
    **{f"Qwen/Qwen3-{size}": 40_960 for size in ("0.6B", "1.7B", "4B", "8B", "14B", "32B", "30B-A3B")},
    **{f"Qwen/Qwen3-4B-{kind}-2507": 262_144 for kind in ("Instruct", "Thinking")},
    **{f"Qwen/Qwen3-30B-A3B-{kind}-2507": 262_144 for kind in ("Instruct", "Thinking")},
    **{f"Qwen/Qwen2.5-{size}-Instruct": 32_768 for size in ("0.5B", "1.5B", "3B", "7B", "14B", "32B", "72B")},
    **{
        f"google/gemma-{size}": 8_192
        for size in ("2b", "2b-it", "7b", "7b-it", "2-2b-it", "2-9b-it", "2-27b-it")
    },
    "google/gemma-3-1b-it": 32_768,
}
_INTO_CONFIG = "write the scaling into the model's config.json and remove rope_scaling"
_INFERENCE_FACTOR = 2.0  # llamafactory/model/model_utils/rope.py, where the model is not to be trained

# Architectures whose code is in transformers; what a name on a hub begins with.
_IN_TRANSFORMERS = re.compile(
    r"^(?:qwen(?:1\.5|2|2\.5|3|3\.5|3\.6)?-(?!vl|audio|omni)|(?:meta-)?llama-[23]|gemma-|mistral-|mixtral-|smollm|phi-4-mini|olmo-2)",
    re.IGNORECASE,
)


def check_context(recipe: CheckedRecipe) -> Iterator[Finding]:
    """`context-too-long`, `rope-at-inference`, `rope-not-needed`, `trust-remote-code`."""
    length = as_number(recipe.setting("length"))
    limit = _limit(recipe)
    if recipe.engine == "llamafactory":
        yield from _rope(recipe, length, limit)
    elif (
        limit
        and length
        and length > limit
        and not recipe.get("overrides_of_model_config")
        and not recipe.get("model_config")
    ):
        yield _too_long(recipe, int(length), limit)
    yield from _remote_code(recipe)


def _limit(recipe: CheckedRecipe) -> int | None:
    own = recipe.model_config.get("max_position_embeddings")
    return own if isinstance(own, int) else _CONTEXT.get(str(recipe.get(recipe.name("model"))))


def _rope(recipe: CheckedRecipe, length: float | None, limit: int | None) -> Iterator[Finding]:
    scaling = recipe.get("rope_scaling")
    if scaling and limit and length and length <= limit:
        yield recipe.warning(
            "rope_scaling",
            "rope-not-needed",
            f"the model reads {limit:,} tokens as it is, and cutoff_len is {int(length):,}",
            fix="remove rope_scaling",
        )
    elif scaling and recipe.transformers("5"):
        yield recipe.error(
            "rope_scaling",
            "rope-length-type",
            "LLaMA-Factory multiplies the model's length by a float, which the configs of "
            f"transformers {recipe.schema['transformers']} refuse: the model is not loaded",
            fix=_INTO_CONFIG,
        )
    elif scaling and recipe.command == "train":
        factor = (
            f"{math.ceil(length / limit)}" if limit and length else "ceil(cutoff_len / the model's length)"
        )
        if factor != f"{_INFERENCE_FACTOR:g}":
            yield recipe.warning(
                "rope_scaling",
                "rope-at-inference",
                f"LLaMA-Factory trains with factor {factor}, infers with {_INFERENCE_FACTOR:g}, "
                "and with vLLM refuses",
                fix=_INTO_CONFIG,
            )
    elif not scaling and limit and length and length > limit and recipe.command == "train":
        yield _too_long(recipe, int(length), limit)


def _too_long(recipe: CheckedRecipe, length: int, limit: int) -> Finding:
    return recipe.warning(
        recipe.name("length"),
        "context-too-long",
        f"{length:,} tokens are more than the {limit:,} that the model was made for",
        fix=f"set {recipe.name('length')}: {limit}, or take a model for longer texts",
    )


def _remote_code(recipe: CheckedRecipe) -> Iterator[Finding]:
    if recipe.values.get("trust_remote_code") is not True:
        return
    config = recipe.model_config
    name = str(recipe.get(recipe.name("model"), "")).rpartition("/")[2]
    needless = "auto_map" not in config if config else bool(_IN_TRANSFORMERS.match(name))
    if needless:
        yield recipe.hint(
            "trust_remote_code",
            "trust-remote-code",
            "this model's code is in transformers; true runs whatever code its repository holds",
            fix="remove trust_remote_code",
        )
