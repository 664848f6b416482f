"""Says what a run was: model, method, data, and its settings by group."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from tunebook.redact import redact
from tunebook.report.records import Setting

if TYPE_CHECKING:
    from collections.abc import Mapping

_GROUPS = {
    "model": r"model_name_or_path|base_model|template|quantization|load_in_|flash_attn|attn_impl|rope|liger|"
    r"adapter_name|trust_remote",
    "method": r"stage|finetuning_type|adapter$|lora|peft|target_modules|^r$|freeze|galore|badam|rl$",
    "data": r"dataset|cutoff|sequence_len|packing|max_samples|num_samples|val_s|preprocessing|mask_|train_on|"
    r"enable_thinking|media",
    "optimisation": r"learning_rate|lr_|warmup|optim|weight_decay|adam|grad|batch|epoch|max_steps|bf16|fp16|"
    r"tf32|seed|neftune|deepspeed|fsdp|ddp",
    "evaluation": r"eval|metric|greater|best|early|compute_acc|predict|generat",
    "output": r"output|save|logging|report_to|plot|overwrite|run_name|wandb|resume|tensorboard",
}


def settings(values: Mapping[str, Any]) -> tuple[Setting, ...]:
    """The settings by group, in the order in which they stand in the recipe."""
    # Here, where key and value still stand together: later the key would not tell that it is a secret.
    made = [Setting(key=key, value=redact(value, key), group=_group(key)) for key, value in values.items()]
    order = [*_GROUPS, "other"]
    return tuple(sorted(made, key=lambda setting: order.index(setting.group)))


def _group(key: str) -> str:
    # `eval_dataset` belongs to the evaluation, though it names data; so does `per_device_eval_batch_size`.
    if "eval" in key:
        return "evaluation"
    return next((group for group, pattern in _GROUPS.items() if re.search(pattern, key)), "other")


def model(values: Mapping[str, Any]) -> str | None:
    """The model's name: a hub id as it stands, of a local path the last part."""
    for key in ("model_name_or_path", "base_model", "base_model_name_or_path"):
        name = values.get(key)
        if isinstance(name, str) and name:
            is_hub_id = name.count("/") == 1 and not name.startswith((".", "/", "~"))
            return name if is_hub_id else name.rstrip("/").rsplit("/", 1)[-1]
    return None


def method(values: Mapping[str, Any]) -> str | None:
    """The method in the field's words: `LoRA SFT`, `QLoRA SFT`, `full SFT`, ..."""
    kind = values.get("finetuning_type") or values.get("adapter") or values.get("peft_type")
    if kind is None:
        # Axolotl trains all weights where the configuration names no adapter.
        return "full" if "base_model" in values else None
    bits = values.get("quantization_bit") or (4 if values.get("load_in_4bit") else None)
    names = {"lora": "LoRA", "qlora": "QLoRA", "full": "full", "freeze": "freeze", "oft": "OFT"}
    name = names.get(str(kind).lower(), str(kind))
    if name == "LoRA" and bits:
        name = "QLoRA"
    stage = values.get("stage") or values.get("rl")
    return f"{name} {str(stage).upper()}" if stage else name


def trained_on(values: Mapping[str, Any]) -> str | None:
    """The training data's names, joined by `, `."""
    data = values.get("dataset") or values.get("datasets")
    if isinstance(data, str):
        return ", ".join(part.strip() for part in data.split(","))
    if isinstance(data, list):
        names = [_dataset_name(entry) for entry in data]
        return ", ".join(name for name in names if name) or None
    return None


def _dataset_name(entry: object) -> str | None:
    path = entry.get("path") if isinstance(entry, dict) else entry
    return path.rstrip("/").rsplit("/", 1)[-1] if isinstance(path, str) else None
