"""What Axolotl refuses of adapters, kernels, optimizers and sharding (validation.py, peft.py)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tunebook.checks.number_like import as_number
from tunebook.checks.refusals import CONFLICT, MISSING, Refusal, any_of, nested, together

if TYPE_CHECKING:
    from tunebook.checks.subject import Subject

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
    )


def _fsdp_version(subject: Subject) -> str:
    """`1` or `2`; empty without FSDP."""
    if not subject.get("fsdp_config"):
        return ""
    inner = nested(subject, "fsdp_config", "fsdp_version") or nested(subject, "fsdp_config", "version")
    return str(subject.get("fsdp_version") or inner or 1)


def _offloads(subject: Subject) -> bool:
    return any(nested(subject, "fsdp_config", key) for key in ("offload_params", "fsdp_offload_params"))


def _attention(subject: Subject) -> str:
    return str(subject.get("attn_implementation") or ("flash" if subject.get("flash_attention") else ""))


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


def _one_rank(key: str) -> Refusal:
    return Refusal(
        "fsdp-conflict",
        f"fsdp_config.{key}",
        lambda s: _fsdp_version(s) == "2" and s.get("load_in_4bit") and nested(s, "fsdp_config", key),
        "FSDP2 cannot load 4-bit weights on one rank alone",
        f"write {key}: false",
        write="false",
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
            "keep attn_implementation alone"),
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
            f"one fused loss alone, of {', '.join(_LOSSES)}", "keep one of them"),
    Refusal(MISSING, "activation_offloading",
            lambda s: s.get("activation_offloading") and not s.get("gradient_checkpointing"),
            "it moves checkpoints, and there are none", "add gradient_checkpointing: true"),
    Refusal(MISSING, "selective_checkpointing",
            lambda s: s.get("selective_checkpointing") and not s.get("gradient_checkpointing"),
            "it chooses checkpoints, and there are none", "add gradient_checkpointing: true"),
    Refusal(CONFLICT, "gradient_checkpointing",
            lambda s: "mpt" in str(s.get("base_model")).lower() and s.get("gradient_checkpointing"),
            "MPT has no checkpointing", "remove gradient_checkpointing"),
    Refusal("reentrant-checkpointing", "gradient_checkpointing_kwargs.use_reentrant", lambda s: (
                s.get("unfrozen_parameters") and nested(s, "gradient_checkpointing_kwargs", "use_reentrant")),
            "reentrant checkpointing does not go with a partly frozen model", "set use_reentrant: false"),
    Refusal(MISSING, "torch_compile_options",
            lambda s: s.get("torch_compile_options") is not None and not s.get("torch_compile"),
            "nothing is compiled", "add torch_compile: true"),
    Refusal(MISSING, "fp8_config", lambda s: s.get("fp8_config") is not None and not s.get("fp8"),
            "it is for fp8", "add fp8: true, or remove fp8_config"),
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
            "Muon goes with FSDP2 alone", "add fsdp_version: 2"),
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
            "it is for FSDP2", "add fsdp_config and fsdp_version: 2, or remove fp32_norms"),
)  # fmt: skip

METHOD: tuple[Refusal, ...] = (*_ADAPTERS, *_SPEED, *_DIVIDED)
"""All rows of this module."""
