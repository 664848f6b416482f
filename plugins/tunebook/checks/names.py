"""Names that are nearly right: slips of the pen, and what other versions, tools and engines call a key."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from tunebook.types import EngineName


def slip(name: str, known: Iterable[str]) -> str | None:
    """Return the name that was meant where `name` is a slip of it; None where none or several may be.

    A slip is one letter too many, too few, wrong or at its neighbour's place (two in a long name), another
    case, other separators, or the same words in another order. The numbers in it must be the same: `chatglm2`
    is no slip of `chatglm3`.

    >>> slip("leraning_rate", ["learning_rate", "lr"]), slip("qwen3_think", ["qwen3_nothink"])
    ('learning_rate', None)
    """
    allowed = 2 if len(name) >= 12 else 1 if len(name) >= 4 else 0
    plain, best, found = _plain(name), allowed + 1, set[str]()
    for other in known:
        if re.findall(r"\d+", other) != re.findall(r"\d+", name):
            continue
        same = plain == _plain(other) or sorted(_words(name)) == sorted(_words(other))
        away = 0 if same else _distance(name.lower(), other.lower(), best)
        if away < best:
            best, found = away, {other}
        elif away == best <= allowed:
            found.add(other)
    return found.pop() if len(found) == 1 else None


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _words(name: str) -> list[str]:
    return [word for word in re.split(r"[^a-z0-9]+", name.lower()) if word]


def _distance(one: str, other: str, most: int) -> int:
    """Letters added, removed, changed or swapped with a neighbour; more than `most` where there are more."""
    if abs(len(one) - len(other)) >= most + 1:
        return most + 1
    before, above = list[int](), list(range(len(other) + 1))
    for row, letter in enumerate(one, 1):
        line = [row]
        for column, against in enumerate(other, 1):
            line.append(min(above[column] + 1, line[-1] + 1, above[column - 1] + (letter != against)))
            if row > 1 and column > 1 and letter == other[column - 2] and one[row - 2] == against:
                line[-1] = min(line[-1], before[column - 2] + 1)
        before, above = above, line
        if min(above) > most:
            return most + 1
    return above[-1]


# Keys that another version, tool or engine calls by another name.


class Renamed(NamedTuple):
    """What to write instead of a key."""

    to: str
    """The key as the engine has it now; empty where nothing takes its place."""
    why: str
    same_value: bool = True
    """Whether the value may stay as it is, so that the fix is mechanical."""


_IN_TRANSFORMERS_5 = "transformers 5 removed the old name"
_LF_RENAMED = "LLaMA-Factory renamed it"
_LF_REMOVED = "LLaMA-Factory removed it"
_TRL = "this is the name in TRL"
_AXOLOTL = "this is Axolotl's name"
_LLAMAFACTORY = "this is LLaMA-Factory's name"
_TRAINER = "this is the Trainer's name"
_PEFT = "this is PEFT's name"
_FSDP = "transformers 5 reads it inside fsdp_config only"

RENAMED: dict[EngineName, dict[str, Renamed]] = {
    "llamafactory": {
        # Of earlier versions of transformers.
        "evaluation_strategy": Renamed("eval_strategy", _IN_TRANSFORMERS_5),
        "no_cuda": Renamed("use_cpu", _IN_TRANSFORMERS_5),
        "use_mps_device": Renamed("", _IN_TRANSFORMERS_5),
        "save_safetensors": Renamed("", "transformers 5 always writes safetensors"),
        "group_by_length": Renamed("train_sampling_strategy", _IN_TRANSFORMERS_5, same_value=False),
        "per_gpu_train_batch_size": Renamed("per_device_train_batch_size", _IN_TRANSFORMERS_5),
        "per_gpu_eval_batch_size": Renamed("per_device_eval_batch_size", _IN_TRANSFORMERS_5),
        "include_tokens_per_second": Renamed(
            "include_num_input_tokens_seen", _IN_TRANSFORMERS_5, same_value=False
        ),
        "fsdp_transformer_layer_cls_to_wrap": Renamed("fsdp_config", _FSDP, same_value=False),
        "fsdp_min_num_params": Renamed("fsdp_config", _FSDP, same_value=False),
        "half_precision_backend": Renamed("", _IN_TRANSFORMERS_5),
        # Of earlier versions of LLaMA-Factory.
        "checkpoint_dir": Renamed("adapter_name_or_path", _LF_RENAMED),
        "max_source_length": Renamed("cutoff_len", "LLaMA-Factory has one length for both", same_value=False),
        "max_target_length": Renamed("cutoff_len", "LLaMA-Factory has one length for both", same_value=False),
        "quantization_type": Renamed("", _LF_REMOVED),
        "use_flash_attn": Renamed("flash_attn", "LLaMA-Factory renamed it", same_value=False),
        "dpo_beta": Renamed("pref_beta", _LF_RENAMED),
        "dpo_loss": Renamed("pref_loss", _LF_RENAMED),
        "dpo_ftx": Renamed("pref_ftx", _LF_RENAMED),
        "name_module_trainable": Renamed("freeze_trainable_modules", _LF_RENAMED),
        "num_layer_trainable": Renamed("freeze_trainable_layers", _LF_RENAMED),
        "image_dir": Renamed("media_dir", _LF_RENAMED),
        "image_resolution": Renamed("image_max_pixels", _LF_RENAMED),
        "video_resolution": Renamed("video_max_pixels", _LF_RENAMED),
        "reserved_label_len": Renamed("", _LF_REMOVED),
        "visual_inputs": Renamed("", f"{_LF_REMOVED} in 0.9.0: the model's files say whether it sees"),
        "train_mm_proj_only": Renamed(
            "", f"{_LF_REMOVED} in 0.9.2; freeze_vision_tower and freeze_language_model say what is trained"
        ),
        "new_special_tokens": Renamed("add_special_tokens", "LLaMA-Factory renamed it in 0.9.3"),
        "vllm_dtype": Renamed("infer_dtype", "LLaMA-Factory renamed it in 0.8.2"),
        "orpo_beta": Renamed("pref_beta", "LLaMA-Factory renamed it in 0.8.0"),
        "badam_switch_block_every": Renamed("badam_switch_interval", "LLaMA-Factory renamed it in 0.7.0"),
        "cache_path": Renamed("tokenized_path", "LLaMA-Factory renamed it in 0.6.2", same_value=False),
        "sft_packing": Renamed("packing", "LLaMA-Factory renamed it in 0.6.0"),
        "ppo_logger": Renamed("report_to", _LF_RENAMED, same_value=False),
        "neft_alpha": Renamed("neftune_noise_alpha", _LF_RENAMED),
        "split": Renamed("", "the registry entry names its split"),
        "resume_lora_training": Renamed(
            "create_new_adapter",
            "LLaMA-Factory turned it round: true was what false is now",
            same_value=False,
        ),
        "ref_model_checkpoint": Renamed("ref_model_adapters", _LF_RENAMED),
        "reward_model_checkpoint": Renamed("reward_model_adapters", _LF_RENAMED),
        **{
            key: Renamed("", f"{_LF_REMOVED} in 0.9.5; Ray reads its own environment variables")
            for key in ("ray_run_name", "ray_storage_path", "ray_storage_filesystem", "placement_strategy")
        },
        "resources_per_worker": Renamed(
            "", f"{_LF_REMOVED} in 0.9.5; Ray reads its own environment variables"
        ),
        **{
            key: Renamed("", f"{_LF_REMOVED} in 0.9.5; KTransformers is set up by use_kt and accelerate")
            for key in (
                "kt_optimize_rule",
                "cpu_infer",
                "chunk_size",
                "kt_maxlen",
                "kt_use_cuda_graph",
                "kt_mode",
                "kt_force_think",
                "mode",
            )
        },
        # Of other tools.
        "max_seq_length": Renamed("cutoff_len", _TRL),
        "num_generations": Renamed("", f"{_TRL}, for GRPO, which LLaMA-Factory does not have"),
        "torch_dtype": Renamed("", "LLaMA-Factory takes bf16 or fp16 in training, infer_dtype elsewhere"),
        "max_eval_samples": Renamed(
            "",
            'the registry has it: "num_samples" in the entry of the evaluation set; max_samples would cut '
            "the training set as well",
        ),
        "max_train_samples": Renamed(
            "max_samples", "LLaMA-Factory has one number for all sets", same_value=False
        ),
        "max_length": Renamed("cutoff_len", _TRL),
        "dataset_text_field": Renamed("", "columns are named in dataset_info.json"),
        "lora_r": Renamed("lora_rank", _AXOLOTL),
        "r": Renamed("lora_rank", _PEFT),
        "target_modules": Renamed("lora_target", _PEFT),
        "lora_target_modules": Renamed("lora_target", _AXOLOTL),
        "sequence_len": Renamed("cutoff_len", _AXOLOTL),
        "micro_batch_size": Renamed("per_device_train_batch_size", _AXOLOTL),
        "num_epochs": Renamed("num_train_epochs", _AXOLOTL),
        "lr_scheduler": Renamed("lr_scheduler_type", _AXOLOTL),
        "optimizer": Renamed("optim", _AXOLOTL),
        "early_stopping_patience": Renamed("early_stopping_steps", _TRAINER),
        "epochs": Renamed("num_train_epochs", "the key has another name"),
        "gradient_checkpointing": Renamed(
            "disable_gradient_checkpointing", "LLaMA-Factory turns it on by itself", same_value=False
        ),
        "load_in_4bit": Renamed(
            "quantization_bit", "LLaMA-Factory takes `quantization_bit: 4`", same_value=False
        ),
        "load_in_8bit": Renamed(
            "quantization_bit", "LLaMA-Factory takes `quantization_bit: 8`", same_value=False
        ),
        "load_in_4_bit": Renamed(
            "quantization_bit", "LLaMA-Factory takes `quantization_bit: 4`", same_value=False
        ),
        "val_set_size": Renamed("val_size", _AXOLOTL),
        "attn_implementation": Renamed(
            "flash_attn", "its values are auto, disabled, sdpa, fa2, fa3", same_value=False
        ),
        "base_model": Renamed("model_name_or_path", _AXOLOTL),
        "sample_packing": Renamed("packing", _AXOLOTL),
        "train_on_inputs": Renamed("train_on_prompt", _AXOLOTL),
    },
    "axolotl": {
        "num_train_epochs": Renamed("num_epochs", _TRAINER),
        "per_device_train_batch_size": Renamed("micro_batch_size", _TRAINER),
        "per_device_eval_batch_size": Renamed("eval_batch_size", _TRAINER),
        "lr_scheduler_type": Renamed("lr_scheduler", _TRAINER),
        "optim": Renamed("optimizer", _TRAINER),
        "max_seq_length": Renamed("sequence_len", _TRL),
        "max_length": Renamed("sequence_len", _TRL),
        "cutoff_len": Renamed("sequence_len", _LLAMAFACTORY),
        "lora_rank": Renamed("lora_r", _LLAMAFACTORY),
        "lora_target": Renamed("lora_target_modules", _LLAMAFACTORY, same_value=False),
        "target_modules": Renamed("lora_target_modules", _PEFT),
        "model_name_or_path": Renamed("base_model", _LLAMAFACTORY),
        "test_dataset": Renamed("test_datasets", "the key is a plural"),
        "eval_dataset": Renamed("test_datasets", _TRAINER, same_value=False),
        "val_size": Renamed("val_set_size", _LLAMAFACTORY),
        "early_stopping_steps": Renamed("early_stopping_patience", _LLAMAFACTORY),
        "packing": Renamed("sample_packing", _LLAMAFACTORY),
        "adam_eps": Renamed("adam_epsilon", "the optimizer's own word is not read"),
        "eta_min": Renamed("cosine_min_lr_ratio", "it takes a share of learning_rate", same_value=False),
        "full_finetune": Renamed("", "leave `adapter` out for full fine-tuning"),
        "epochs": Renamed("num_epochs", "the key has another name"),
        "report_to": Renamed("", f"{_TRAINER}; use_wandb, use_mlflow, use_tensorboard and others choose"),
        "wandb_run_name": Renamed("wandb_name", "the key has another name"),
        "context_parallel_degree": Renamed("context_parallel_size", "the key has another name"),
        # Of earlier versions of Axolotl.
        "relora_steps": Renamed("jagged_restart_steps", "Axolotl renamed it in 0.12"),
        "relora_warmup_steps": Renamed("jagged_restart_warmup_steps", "Axolotl renamed it in 0.12"),
        "relora_anneal_steps": Renamed("jagged_restart_anneal_steps", "Axolotl renamed it in 0.12"),
        "flash_attn_fuse_qkv": Renamed("", "Axolotl removed it in 0.12"),
        "train_on_split": Renamed("", "Axolotl removed it in 0.9; a block of `datasets` says `split`"),
        **{
            f"vllm_{key}": Renamed("", f"Axolotl reads `{key}` below `vllm:` since 0.8")
            for key in (
                "host",
                "port",
                "device",
                "tensor_parallel_size",
                "gpu_memory_utilization",
                "dtype",
                "max_model_len",
                "enable_prefix_caching",
            )
        },
        "gptq_groupsize": Renamed("", "Axolotl removed it in 0.5: the model's files say it"),
        "gptq_model_v1": Renamed("", "Axolotl removed it in 0.5"),
        "gptq_disable_exllama": Renamed("", "Axolotl removed it"),
        "eval_table_max_new_tokens": Renamed("eval_max_new_tokens", "Axolotl renamed it"),
        "base_model_ignore_patterns": Renamed("", "Axolotl removed it"),
        "sample_packing_size": Renamed("", "Axolotl packs up to sequence_len"),
        "torch_dtype": Renamed("", "Axolotl takes bf16, fp16 or float32"),
        "quantization_config": Renamed("", "Axolotl takes load_in_4bit or load_in_8bit by themselves"),
        **{
            f"unsloth_{key}": Renamed("", "Axolotl removed it in 0.17")
            for key in ("cross_entropy_loss", "lora_mlp", "lora_qkv", "lora_o", "rms_norm", "rope")
        },
    },
}


FORMER: Mapping[str, str] = {
    "context_parallel_size": "sequence_parallel_degree",
    "dataset_num_proc": "dataset_processes",
    "eval_strategy": "evaluation_strategy",
    "generation_max_new_tokens": "eval_max_new_tokens",
    "neftune_noise_alpha": "noisy_embedding_alpha",
    "rl_beta": "dpo_beta",
    "streaming_multipack_buffer_size": "pretrain_multipack_buffer_size",
}
"""Axolotl's keys that it still takes by an earlier name, with that name."""


def twins() -> list[tuple[str, str]]:
    """Return the keys of LLaMA-Factory and of Axolotl for one setting, whose values mean the same to both."""
    other = (_TRAINER, _LLAMAFACTORY)
    return [
        (key, renamed.to)
        for key, renamed in RENAMED["axolotl"].items()
        if renamed.same_value and renamed.why in other
    ]
