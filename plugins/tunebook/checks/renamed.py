"""Keys that another version, tool or engine calls by another name."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from tunebook.types import EngineName


class Renamed(NamedTuple):
    """What to write instead of a key."""

    to: str
    """The key as the engine has it now; empty where nothing takes its place."""
    why: str
    same_value: bool = True
    """Whether the value may stay as it is, so that the mend is mechanical."""


_IN_TRANSFORMERS_5 = "transformers 5 took the old name away"
_TRL = "this is the name in TRL"
_AXOLOTL = "this is Axolotl's name"
_LLAMAFACTORY = "this is LLaMA-Factory's name"
_TRAINER = "this is the Trainer's name"
_PEFT = "this is PEFT's name"
_FSDP = "transformers 5 reads it inside fsdp_config alone"

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
        "checkpoint_dir": Renamed("adapter_name_or_path", "LLaMA-Factory renamed it"),
        "max_source_length": Renamed("cutoff_len", "LLaMA-Factory has one length for both", same_value=False),
        "max_target_length": Renamed("cutoff_len", "LLaMA-Factory has one length for both", same_value=False),
        "quantization_type": Renamed("", "LLaMA-Factory took it away"),
        "use_flash_attn": Renamed("flash_attn", "LLaMA-Factory renamed it", same_value=False),
        "dpo_beta": Renamed("pref_beta", "LLaMA-Factory renamed it"),
        "dpo_loss": Renamed("pref_loss", "LLaMA-Factory renamed it"),
        "dpo_ftx": Renamed("pref_ftx", "LLaMA-Factory renamed it"),
        "name_module_trainable": Renamed("freeze_trainable_modules", "LLaMA-Factory renamed it"),
        "num_layer_trainable": Renamed("freeze_trainable_layers", "LLaMA-Factory renamed it"),
        "image_dir": Renamed("media_dir", "LLaMA-Factory renamed it"),
        "image_resolution": Renamed("image_max_pixels", "LLaMA-Factory renamed it"),
        "video_resolution": Renamed("video_max_pixels", "LLaMA-Factory renamed it"),
        "reserved_label_len": Renamed("", "LLaMA-Factory took it away"),
        # Of other tools.
        "max_seq_length": Renamed("cutoff_len", _TRL),
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
    },
}


def twins() -> list[tuple[str, str]]:
    """Return the keys of LLaMA-Factory and of Axolotl for one setting, whose values mean the same to both."""
    other = (_TRAINER, _LLAMAFACTORY)
    return [
        (key, renamed.to)
        for key, renamed in RENAMED["axolotl"].items()
        if renamed.same_value and renamed.why in other
    ]
