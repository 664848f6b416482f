"""What Axolotl refuses of basics, data and evaluation (validation.py, config.py of its schemas)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tunebook.checks.recipe import as_number
from tunebook.checks.refusal import CONFLICT, MISSING, Refusal, any_of, nested, together

if TYPE_CHECKING:
    from tunebook.checks.recipe import CheckedRecipe


# What Axolotl refuses of adapters, kernels, optimizers and sharding (validation.py, peft.py).

_NO_LORA_KERNELS = ("lora_mlp_kernel", "lora_qkv_kernel", "lora_o_kernel")
_LOSSES = (
    *("cut_cross_entropy", "chunked_cross_entropy"),
    *("liger_cross_entropy", "liger_fused_linear_cross_entropy"),
)
_LEGACY_ATTENTION = (
    *("flash_attention", "sdp_attention", "eager_attention"),
    *("flex_attention", "xformers_attention", "sage_attention"),
)
_PREFERENCES = ("dpo", "kto", "orpo", "ipo")
_BITS = ("load_in_4bit", "load_in_8bit")

# Still among its keys, and refused as soon as they have a value; the first few only where it is true.
_REMOVED: dict[str, str] = {
    "max_packed_sequence_len": "write sample_packing: true and sequence_len",
    "rope_scaling": "write it under overrides_of_model_config",
    "s2_attention": "remove it",
    "flash_attn_rms_norm": "remove it",
    "dpo_use_logits_to_keep": "remove it",
    "dpo_generate_during_eval": "remove it",
    "dpo_norm_loss": "remove it",
    "rpo_alpha": "remove it",
}
_REFUSED_AT_FALSE = frozenset(
    {"dpo_use_logits_to_keep", "dpo_generate_during_eval", "dpo_norm_loss", "rpo_alpha"}
)


def _removed(key: str, fix: str) -> Refusal:
    return Refusal(
        "removed-key",
        key,
        lambda s: s.get(key) or (s.get(key) is not None and key in _REFUSED_AT_FALSE),
        "Axolotl no longer supports it, and stops",
        fix,
        since="0.17" if key in ("s2_attention", "flash_attn_rms_norm") else "0",
    )


def _fsdp_version(recipe: CheckedRecipe) -> str:
    """`1` or `2`; empty without FSDP."""
    if not recipe.get("fsdp_config"):
        return ""
    inner = nested(recipe, "fsdp_config", "fsdp_version") or nested(recipe, "fsdp_config", "version")
    return str(recipe.get("fsdp_version") or inner or 1)


def _offloads(recipe: CheckedRecipe) -> bool:
    return any(nested(recipe, "fsdp_config", key) for key in ("offload_params", "fsdp_offload_params"))


def _attention(recipe: CheckedRecipe) -> str:
    named = recipe.get("attn_implementation") if recipe.since("0.17") else None
    return str(named or ("flash" if recipe.get("flash_attention") else ""))


def _kernel(key: str) -> Refusal:
    return Refusal(
        CONFLICT,
        key,
        lambda s: (
            s.get(key)
            and (s.get("trust_remote_code") or (s.get("adapter") == "lora" and s.get("load_in_8bit")))
        ),
        "LoRA kernels go neither with 8-bit weights nor with remote code",
        f"set {key}: false",
        write="false",
    )


def _kernel_and_fsdp1(key: str) -> Refusal:
    return Refusal(
        "fsdp-conflict",
        key,
        # As the engine asks: the version inside fsdp_config does not count here.
        lambda s: s.get(key) and s.gpus > 1 and s.get("fsdp_config") and str(s.get("fsdp_version")) != "2",
        "LoRA kernels do not go with FSDP1",
        f"set {key}: false, or fsdp_version: 2",
    )


def _one_rank(key: str) -> Refusal:
    return Refusal(
        "fsdp-conflict",
        f"fsdp_config.{key}",
        lambda s: _fsdp_version(s) == "2" and s.get("load_in_4bit") and nested(s, "fsdp_config", key),
        "FSDP2 cannot load 4-bit weights on one rank only",
        f"write {key}: false",
        write="false",
        since="0.19",
    )


_ADAPTERS = (
    *(_removed(key, fix) for key, fix in _REMOVED.items()),
    together("noisy_embedding_alpha", "neftune_noise_alpha", "remove noisy_embedding_alpha"),
    together("lr_groups", "loraplus_lr_ratio"),
    together("max_memory", "gpu_memory_limit"),
    Refusal("bad-count", "neftune_noise_alpha", lambda s: (
                (as_number(s.get("neftune_noise_alpha", 1)) or 0) <= 0),
            "the noise must be above 0", "remove it to train without noise"),
    Refusal(MISSING, "adapter", lambda s: (
                s.get("adapter") == "qlora" and not any_of(s, (*_BITS, "gptq", "merge_lora"))),
            "qlora needs 4-bit weights", "add load_in_4bit: true"),
    together("gptq", "revision_of_model", "download that revision and give its folder"),
    Refusal(CONFLICT, "gptq", lambda s: s.get("adapter") == "qlora" and s.get("gptq"),
            "qlora quantises by itself; a GPTQ model is trained with adapter: lora", "set adapter: lora"),
    Refusal("quantized-full", "load_in_4bit", lambda s: s.get("load_in_4bit") and not s.get("adapter"),
            "a quantised model cannot be trained without an adapter",
            "add adapter: qlora, or remove load_in_4bit"),
    Refusal("quantized-full", "load_in_8bit", lambda s: s.get("load_in_8bit") and not s.get("adapter"),
            "a quantised model cannot be trained without an adapter",
            "add adapter: lora, or remove load_in_8bit"),
    Refusal("quantized-full", "load_in_8bit", lambda s: s.get("adapter") == "qlora" and s.get("load_in_8bit"),
            "qlora is 4-bit", "set load_in_4bit: true instead"),
    Refusal(MISSING, "peft_layers_pattern",
            lambda s: s.get("peft_layers_pattern") and not s.get("peft_layers_to_transform"),
            "it needs peft_layers_to_transform", "add peft_layers_to_transform"),
    Refusal(CONFLICT, "flash_attn_fuse_mlp",
            lambda s: s.get("flash_attn_fuse_mlp") and s.get("adapter") in ("lora", "qlora"),
            "a fused MLP has no matrices for adapters", "remove flash_attn_fuse_mlp"),
    *map(_kernel, _NO_LORA_KERNELS),
    Refusal("removed-key", "save_safetensors", lambda s: s.get("save_safetensors") is False,
            "transformers 5 always writes safetensors, and Axolotl refuses `false`",
            "remove save_safetensors"),
    *map(_kernel_and_fsdp1, _NO_LORA_KERNELS),
    Refusal(MISSING, "relora", lambda s: s.get("relora") and not s.get("jagged_restart_steps"),
            "ReLoRA needs the steps between two restarts", "add jagged_restart_steps"),
    Refusal(CONFLICT, "relora", lambda s: s.get("relora") and any_of(s, ("deepspeed", "fsdp", "fsdp_config")),
            "ReLoRA goes neither with DeepSpeed nor with FSDP", "remove one of them"),
    Refusal(MISSING, "quantize_moe_experts", lambda s: s.get("quantize_moe_experts") and not any_of(s, _BITS),
            "it needs load_in_4bit or load_in_8bit", "add load_in_4bit: true"),
    Refusal(CONFLICT, "lora_target_linear",
            lambda s: s.get("quantize_moe_experts") and s.get("lora_target_linear"),
            "all linear layers would include the quantised experts", "write lora_target_parameters instead"),
)  # fmt: skip
_SPEED = (
    Refusal(CONFLICT, "attn_implementation",
            lambda s: s.get("attn_implementation") and any_of(s, _LEGACY_ATTENTION),
            "attn_implementation does not go with the old switches, e.g. flash_attention",
            "keep only attn_implementation", since="0.17"),
    Refusal(MISSING, "scaling_softmax",
            lambda s: s.get("scaling_softmax") and not _attention(s).startswith("flex")
            and not s.get("flex_attention"),
            "it is a part of flex attention", "add attn_implementation: flex_attention"),
    Refusal(MISSING, "batch_flattening", lambda s: (
                s.get("batch_flattening") is True and not _attention(s).startswith(("flash", "kernels"))),
            "rows without padding need flash attention", "add attn_implementation: flash_attention_2"),
    Refusal(MISSING, "context_parallel_size", lambda s: (
                (as_number(s.get("context_parallel_size")) or 1) > 1
                and not _attention(s).startswith(("flash", "kernels")) and not s.get("use_glm_dsa_kernels")),
            "ring attention needs flash attention", "add attn_implementation: flash_attention_2"),
    Refusal(CONFLICT, "micro_batch_size", lambda s: (
                (as_number(s.get("context_parallel_size")) or 1) > 1 and s.get("sample_packing")
                and (as_number(s.get("micro_batch_size")) or 1) > 1 and not s.get("use_glm_dsa_kernels")),
            "packed rows over several GPUs go one at a time", "set micro_batch_size: 1"),
    Refusal(CONFLICT, "cut_cross_entropy", lambda s: sum(bool(s.get(key)) for key in _LOSSES) > 1,
            f"only one fused loss, of {', '.join(_LOSSES)}", "keep one of them"),
    Refusal(MISSING, "activation_offloading",
            lambda s: s.get("activation_offloading") and not s.get("gradient_checkpointing"),
            "it moves checkpoints, and there are none", "add gradient_checkpointing: true"),
    Refusal(MISSING, "selective_checkpointing",
            lambda s: s.get("selective_checkpointing") and not s.get("gradient_checkpointing"),
            "it chooses checkpoints, and there are none", "add gradient_checkpointing: true", since="0.18"),
    Refusal(CONFLICT, "gradient_checkpointing",
            lambda s: "mpt" in str(s.get("base_model")).lower() and s.get("gradient_checkpointing"),
            "MPT has no checkpointing", "remove gradient_checkpointing"),
    Refusal("reentrant-checkpointing", "gradient_checkpointing_kwargs.use_reentrant", lambda s: (
                s.get("unfrozen_parameters") and nested(s, "gradient_checkpointing_kwargs", "use_reentrant")),
            "reentrant checkpointing does not go with a partly frozen model", "set use_reentrant: false"),
    Refusal(MISSING, "torch_compile_options",
            lambda s: s.get("torch_compile_options") is not None and not s.get("torch_compile"),
            "nothing is compiled", "add torch_compile: true", since="0.18"),
    Refusal(MISSING, "fp8_config", lambda s: s.get("fp8_config") is not None and not s.get("fp8"),
            "it is for fp8", "add fp8: true, or remove fp8_config", since="0.19"),
    Refusal(CONFLICT, "torch_compile", lambda s: (
                s.get("rl") == "ebft" and s.get("torch_compile") is True and s.get("gradient_checkpointing")
                and nested(s, "ebft", "mode") == "strided"),
            "EBFT's attention compiles itself, and checkpointing fails over the model compiled whole",
            "remove torch_compile"),
)  # fmt: skip
_DIVIDED = (
    together("deepspeed", "fsdp"),
    Refusal(MISSING, "deepcompile", lambda s: s.get("deepcompile") and not s.get("deepspeed"),
            "it is a part of DeepSpeed", "add deepspeed"),
    Refusal("optimizer-conflict", "optimizer", lambda s: s.get("optimizer") == "muon" and s.get("deepspeed"),
            "Muon does not go with DeepSpeed", "use FSDP2, or another optimizer"),
    Refusal("optimizer-conflict", "optimizer",
            lambda s: s.get("optimizer") == "muon" and _fsdp_version(s) == "1",
            "Muon goes with FSDP2 only", "add fsdp_version: 2"),
    Refusal("optimizer-conflict", "optimizer", lambda s: (
                s.get("optimizer") == "q_galore_adamw8bit" and (s.get("adapter") or s.get("deepspeed"))),
            "Q-GaLore trains all weights, without DeepSpeed", "remove adapter and deepspeed"),
    Refusal("fsdp-conflict", "optimizer",
            lambda s: _fsdp_version(s) == "2" and s.get("optimizer") in ("adamw_8bit", "adamw_bnb_8bit"),
            "FSDP2 does not go with bitsandbytes' 8-bit Adam", "write optimizer: adamw_torch_8bit",
            write="adamw_torch_8bit"),
    Refusal("fsdp-conflict", "optimizer", lambda s: (
                _fsdp_version(s) == "1" and _offloads(s) and "8bit" in str(s.get("optimizer"))),
            "FSDP1 cannot offload an 8-bit optimizer", "add fsdp_version: 2, or another optimizer"),
    *map(_one_rank, ("cpu_ram_efficient_loading", "fsdp_cpu_ram_efficient_loading")),
    Refusal("fsdp-conflict", "rl", lambda s: (
                s.get("fsdp_version") == 2 and s.get("rl") in _PREFERENCES and any_of(s, _BITS)),
            "FSDP2 trains no quantised model by preferences", "use DeepSpeed, or fsdp_version: 1"),
    Refusal("fsdp-conflict", "fsdp_config", lambda s: (
                nested(s, "fsdp_config", "cpu_offload_pin_memory") is False
                and (_fsdp_version(s) != "2" or not _offloads(s))),
            "cpu_offload_pin_memory: false is for FSDP2 with offload_params",
            "remove it, or add fsdp_version: 2 and offload_params: true"),
    Refusal("fsdp-conflict", "fsdp", lambda s: s.get("fsdp") and "falcon" in str(s.get("base_model")).lower(),
            "Falcon does not go with FSDP", "use DeepSpeed"),
    Refusal(MISSING, "fp8_enable_fsdp_float8_all_gather",
            lambda s: s.get("fp8_enable_fsdp_float8_all_gather") and s.get("fsdp_version") != 2,
            "it is for FSDP2", "add fsdp_config and fsdp_version: 2, or remove it"),
    Refusal(MISSING, "fp32_norms", lambda s: s.get("fp32_norms") and _fsdp_version(s) != "2",
            "it is for FSDP2", "add fsdp_config and fsdp_version: 2, or remove fp32_norms", since="0.17"),
)  # fmt: skip

METHOD: tuple[Refusal, ...] = (*_ADAPTERS, *_SPEED, *_DIVIDED)
"""All rows of this module."""


_BATCH = ("micro_batch_size", "gradient_accumulation_steps")
_FIXED_BY_MISTRAL = ("chat_template", "special_tokens", "tokens", "added_tokens_overrides")
_BUILT_IN = ("lora", "qlora", "llama-adapter")
_CAUSAL_METRICS = frozenset({"sacrebleu", "comet", "ter", "chrf", "perplexity"})


def _stops_early_without_steps(recipe: CheckedRecipe) -> bool:
    saved, evaluated = as_number(recipe.get("save_steps")), as_number(recipe.get("eval_steps"))
    return bool(recipe.get("early_stopping_patience")) and (
        not saved or not evaluated or saved % evaluated != 0
    )


def _never_at_zero(recipe: CheckedRecipe) -> bool:
    return bool(
        recipe.get("val_set_size") == 0
        and not recipe.get("test_datasets")
        and recipe.get("eval_strategy") != "no"
    )


def _evaluates_nothing(key: str) -> Refusal:
    return Refusal(
        "nothing-to-evaluate",
        key,
        lambda s: s.get(key) and _never_at_zero(s),
        f"`{key}` is set, and with val_set_size: 0 there is nothing to evaluate on",
        f"give val_set_size a share, or remove {key}",
    )


def _other_strategy(word: str) -> Refusal:
    return Refusal(
        CONFLICT,
        f"{word}_strategy",
        lambda s: s.get(f"{word}_steps") and s.get(f"{word}_strategy") not in (None, "steps"),
        f"{word}_steps goes with {word}_strategy: steps only",
        f"remove {word}_steps, or set {word}_strategy: steps",
    )


def _endless(key: str) -> Refusal:
    return Refusal(
        MISSING,
        key,
        lambda s: s.get(key) and not s.get("max_steps"),
        "a stream has no length: the steps have to be given",
        "add max_steps: <number>",
    )


_BASICS = (
    Refusal(MISSING, "base_model", lambda s: not s.get("base_model"), "there is no model",
            "add base_model: <name on the hub, or folder>"),
    Refusal(MISSING, "learning_rate", lambda s: s.get("learning_rate") is None,
            "Axolotl has no learning rate of its own", "add learning_rate: 1.0e-4"),
    Refusal(MISSING, "datasets", lambda s: not s.get("datasets") and not s.get("pretraining_dataset"),
            "there is nothing to train on", "add datasets, a list of {path, type}"),
    Refusal("wrong-type", "datasets", lambda s: isinstance(s.get("datasets"), dict),
            "one dataset is a list of one too", "begin its first line with a dash: - path: ..."),
    together("batch_size", "gradient_accumulation_steps"),
    Refusal(MISSING, "batch_size",
            lambda s: s.get("batch_size") and not any_of(s, _BATCH),
            "batch_size is divided by micro_batch_size, which is not set", "add micro_batch_size"),
    Refusal(MISSING, "micro_batch_size",
            lambda s: sum(s.get(key) is not None for key in ("batch_size", *_BATCH)) < 2,
            "Axolotl wants two of micro_batch_size, gradient_accumulation_steps and batch_size",
            "add micro_batch_size and gradient_accumulation_steps", until="0.19"),
    Refusal(MISSING, "push_dataset_to_hub",
            lambda s: s.get("push_dataset_to_hub") and s.get("hf_use_auth_token") is not True,
            "it needs hf_use_auth_token: true", "add hf_use_auth_token: true"),
    Refusal("bad-choice", "datasets", lambda s: any(
                str(block.get("type")).startswith("sharegpt")
                for block in s.get("datasets", []) if isinstance(block, dict)
            ) if isinstance(s.get("datasets"), list) else False,
            "the type sharegpt is gone", "write type: chat_template, with message_property_mappings"),
    Refusal("bad-choice", "adapter",
            lambda s: s.get("adapter") not in (None, *_BUILT_IN) and not s.get("plugins"),
            "no such adapter", "write lora or qlora, or name the plugin that brings it under plugins"),
    Refusal(CONFLICT, "tokenizer_use_mistral_common",
            lambda s: s.get("tokenizer_use_mistral_common") and any_of(s, _FIXED_BY_MISTRAL),
            f"Mistral's own tokenizer is taken as it is, without {', '.join(_FIXED_BY_MISTRAL)}",
            "remove these, or tokenizer_use_mistral_common"),
    Refusal("wrong-type", "learning_rate", lambda s: (
                s.get("learning_rate") is not None and as_number(s.get("learning_rate")) is None),
            "a number is wanted", "write learning_rate: 1.0e-4"),
    Refusal(MISSING, "chat_template",
            lambda s: s.get("chat_template") == "jinja" and not s.get("chat_template_jinja"),
            "there is no Jinja template", "add chat_template_jinja"),
)  # fmt: skip
_CADENCE = (
    Refusal("two-evaluation-sets", "val_set_size",
            lambda s: s.get("test_datasets") and as_number(s.get("val_set_size")),
            "`test_datasets` and `val_set_size` cannot both be set", "remove one of them"),
    *map(_evaluates_nothing, ("eval_steps", "eval_strategy")),
    together("saves_per_epoch", "save_steps"),
    together("evals_per_epoch", "eval_steps"),
    *map(_other_strategy, ("save", "eval")),
    Refusal(CONFLICT, "evals_per_epoch",
            lambda s: s.get("evals_per_epoch") and s.get("eval_strategy") not in (None, "steps"),
            "evals_per_epoch goes with eval_strategy: steps only", "remove eval_strategy"),
    Refusal(MISSING, "do_bench_eval",
            lambda s: s.get("do_bench_eval") and not any_of(s, ("evals_per_epoch", "eval_steps")),
            "nothing says when", "add eval_steps or evals_per_epoch"),
    Refusal("early-stopping", "early_stopping_patience", _stops_early_without_steps,
            "early stopping needs eval_steps, and save_steps that is a multiple of it",
            "set eval_steps and an equal save_steps, in place of counts per epoch"),
    Refusal("best-without-metric", "save_strategy",
            lambda s: s.get("save_strategy") == "best" and not s.get("metric_for_best_model"),
            "`save_strategy: best` does not say by what", "add metric_for_best_model: eval_loss"),
    Refusal("two-warmups", "warmup_ratio",
            lambda s: as_number(s.get("warmup_ratio")) and as_number(s.get("warmup_steps")),
            "warmup_ratio and warmup_steps are both set; Axolotl refuses that", "remove one of them"),
    Refusal(CONFLICT, "do_causal_lm_eval",
            lambda s: s.get("do_causal_lm_eval") and s.get("eval_sample_packing"),
            "it cannot generate from packed rows", "set eval_sample_packing: false"),
    Refusal("bad-choice", "eval_causal_lm_metrics", lambda s: (
                isinstance(s.get("eval_causal_lm_metrics"), list)
                and not _CAUSAL_METRICS.issuperset(map(str, s.get("eval_causal_lm_metrics")))),
            f"Axolotl has none but {', '.join(sorted(_CAUSAL_METRICS))}", "remove the others"),
)  # fmt: skip
_DATA = (
    Refusal(CONFLICT, "eval_table_size", lambda s: (
                s.get("sample_packing") and s.get("eval_table_size")
                and s.get("eval_sample_packing") is not False),
            "a table of answers cannot be made from packed rows", "set eval_sample_packing: false"),
    *map(_endless, ("streaming", "pretraining_dataset")),
    *(
        together(key, "val_set_size", "name evaluation data under test_datasets instead")
        for key in ("streaming", "pretraining_dataset")
    ),
    Refusal(CONFLICT, "streaming", lambda s: (
                s.get("streaming") and s.get("sample_packing")
                and isinstance(s.get("datasets"), list) and len(s.get("datasets")) > 1),
            "several streams cannot be packed", "remove sample_packing, or give one dataset"),
    together("sample_packing", "rl", "remove sample_packing"),
    Refusal(MISSING, "rl", lambda s: s.get("rl") == "kto" and s.get("remove_unused_columns") is not False,
            "KTO needs columns that would be removed", "add remove_unused_columns: false"),
    Refusal(CONFLICT, "warmup_ratio", lambda s: s.get("rl") == "simpo" and s.get("warmup_ratio"),
            "SimPO's trainer takes no warmup_ratio", "write warmup_steps"),
    Refusal(CONFLICT, "dpo_loss_type", lambda s: s.get("dpo_loss_type") and s.get("rl") != "dpo",
            "it is for rl: dpo only", "remove it, or set rl: dpo", since="0.17"),
    Refusal("bad-count", "trl", lambda s: (
                s.get("rl") == "grpo" and (as_number(nested(s, "trl", "num_generations")) or 2) < 2),
            "GRPO compares the answers of a group, and one is no group", "set num_generations: 2 or more",
            since="0.17"),
)  # fmt: skip
TABLE: tuple[Refusal, ...] = (*_BASICS, *_CADENCE, *_DATA, *METHOD)
"""All rows; what needs another package's plugin is left to that plugin."""
