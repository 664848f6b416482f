"""Keys that the engine does not know."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Any, NamedTuple

from tunebook.engines.axolotl.rules import OPTIONS, PLUGIN

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from tunebook.checks.findings import Finding
    from tunebook.checks.recipe import CheckedRecipe
    from tunebook.types import EngineName


Spec = dict[str, Any]

# Argument classes each of LLaMA-Factory's commands reads (llamafactory/hparams/parser.py).
GROUPS = {
    "train": frozenset({"model", "data", "training", "finetuning", "generating"}),
    "export": frozenset({"model", "data", "finetuning", "generating"}),
    "chat": frozenset({"model", "data", "finetuning", "generating"}),
    "eval": frozenset({"model", "data", "evaluation", "finetuning"}),
}

# Axolotl rewrites older forms of these before it looks at their keys (mode="before" in its schema), or passes
# them on as they are.
_FREE_FORM = frozenset({"fsdp_config", "special_tokens", "accelerator_config", "deepspeed"})

# With USE_MCA=1 LLaMA-Factory reads Megatron's own arguments as well, which are in no snapshot.
_MEGATRON = frozenset({"tensor_model_parallel_size", "pipeline_model_parallel_size"})

_SURE, _LIKELY = 0.8, 0.6


class Known(NamedTuple):
    """The keys a mapping may have."""

    names: dict[str, str]
    """Every spelling -> the key's own name."""
    specs: Mapping[str, Spec]
    open_ended: bool
    """A plugin may add keys that we do not know: then only what looks like a known key is wrong."""


class Entry(NamedTuple):
    """A key of the recipe that the engine knows."""

    path: str
    name: str
    value: Any
    spec: Spec


def top_level(recipe: CheckedRecipe) -> Known:
    """Return the keys that the recipe itself may have."""
    schema = recipe.schema
    if recipe.engine == "llamafactory":
        groups = GROUPS[recipe.command]
        specs = {key: spec for key, spec in schema["keys"].items() if groups & set(spec["groups"])}
        return _known(specs, open_ended=bool(_MEGATRON & set(recipe.values)))
    plugins = recipe.get("plugins", [])
    plugins = [str(plugin) for plugin in plugins] if isinstance(plugins, list) else []
    specs, open_ended = dict(schema["keys"]), False
    for plugin in plugins:
        path = plugin if plugin in schema["plugins"] else f"axolotl.integrations.{plugin}"
        specs |= schema["plugins"].get(path, {})
        open_ended |= plugin != PLUGIN and path not in schema["plugins"]
    if PLUGIN in plugins:
        specs |= {OPTIONS[0]: {"types": ["string"]}, OPTIONS[1]: {"types": ["array"]}}
    return _known(specs, open_ended=open_ended)


def entries(recipe: CheckedRecipe) -> Iterator[Entry]:
    """Yield every key that the engine knows, those of mappings below included."""
    for item in _walk(recipe, recipe.values, top_level(recipe), ""):
        if isinstance(item, Entry):
            yield item


def check_keys(recipe: CheckedRecipe) -> Iterator[Finding]:
    """`unknown-key`, `renamed-key`, `other-command`: keys that are refused, or ignored in silence."""
    for item in _walk(recipe, recipe.values, top_level(recipe), ""):
        if not isinstance(item, Entry):
            yield _unknown(recipe, *item)


def _known(specs: Mapping[str, Spec], *, open_ended: bool) -> Known:
    names = {spelling: key for key, spec in specs.items() for spelling in (key, *spec.get("aliases", ()))}
    return Known(names, specs, open_ended)


class _Stranger(NamedTuple):
    path: str
    key: str
    value: Any
    known: Known


def _walk(
    recipe: CheckedRecipe, values: Mapping[str, Any], known: Known, prefix: str
) -> Iterator[Entry | _Stranger]:
    for key, value in values.items():
        path, name = f"{prefix}{key}", known.names.get(str(key))
        if name is None:
            stranger = _Stranger(path, str(key), value, known)
            if not known.open_ended or _closest(stranger.key, known, _SURE):
                yield stranger
            continue
        spec = known.specs[name]
        yield Entry(path, name, value, spec)
        models = spec.get("models")
        if not models or name in _FREE_FORM:
            continue
        below = _together([recipe.schema["models"].get(model, {}) for model in models])
        for number, part in enumerate(value if isinstance(value, list) else [value]):
            if isinstance(part, dict) and below:
                place = f"{path}[{number}]." if isinstance(value, list) else f"{path}."
                yield from _walk(recipe, part, _known(below, open_ended=known.open_ended), place)


def _together(models: Sequence[Mapping[str, Spec]]) -> dict[str, Spec]:
    """The keys of a mapping that may be any of `models`: each takes what it takes in one of them."""
    merged: dict[str, Spec] = {}
    for model in models:
        for key, spec in model.items():
            other = merged.get(key)
            if other is None:
                merged[key] = spec
                continue
            both = {**other, **spec, "types": sorted({*other["types"], *spec["types"]})}
            if "choices" in other and "choices" in spec:
                both["choices"] = [*other["choices"], *spec["choices"]]
            else:
                both.pop("choices", None)
            merged[key] = both
    return merged


def _unknown(recipe: CheckedRecipe, path: str, key: str, value: Any, known: Known) -> Finding:
    refused = recipe.engine == "llamafactory"
    version = recipe.schema["version"]
    effect = f"LLaMA-Factory {version} refuses it" if refused else f"Axolotl {version} ignores it in silence"
    spec = recipe.schema["keys"].get(key)
    if refused and spec is not None:
        owner = "eval" if spec["groups"] == ["evaluation"] else "train"
        return recipe.error(
            path,
            "other-command",
            f"{key} is a key of `llamafactory-cli {owner}`; `{recipe.command}` refuses it",
            fix=f"remove it, or give the file to `llamafactory-cli {owner}`",
        )
    renamed = RENAMED[recipe.engine].get(key) if path == key else None
    if renamed is not None:
        return recipe.error(
            path,
            "renamed-key",
            f"no such key: {renamed.why}; {effect}",
            fix=f"write {renamed.to}" if renamed.to else f"remove {key}",
            edit=recipe.rename(path, renamed.to) if renamed.to and renamed.same_value else None,
        )
    close = _closest(key, known, _LIKELY)
    sure = close and difflib.SequenceMatcher(None, key, close).ratio() >= _SURE
    return recipe.finding(
        path,
        rule="unknown-key",
        # A key without a value changes nothing where the engine does not refuse it.
        severity="hint" if value is None and not refused else "error",
        message=f"no such key; {effect}",
        fix=f"did you mean {close}?" if close else f"remove {key}",
        edit=recipe.rename(path, close) if close and sure else None,
    )


def _closest(key: str, known: Known, cutoff: float) -> str | None:
    return next(iter(difflib.get_close_matches(key, known.names, n=1, cutoff=cutoff)), None)


# Keys that another version, tool or engine calls by another name.


class Renamed(NamedTuple):
    """What to write instead of a key."""

    to: str
    """The key as the engine has it now; empty where nothing takes its place."""
    why: str
    same_value: bool = True
    """Whether the value may stay as it is, so that the fix is mechanical."""


_IN_TRANSFORMERS_5 = "transformers 5 removed the old name"
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
        "checkpoint_dir": Renamed("adapter_name_or_path", "LLaMA-Factory renamed it"),
        "max_source_length": Renamed("cutoff_len", "LLaMA-Factory has one length for both", same_value=False),
        "max_target_length": Renamed("cutoff_len", "LLaMA-Factory has one length for both", same_value=False),
        "quantization_type": Renamed("", "LLaMA-Factory removed it"),
        "use_flash_attn": Renamed("flash_attn", "LLaMA-Factory renamed it", same_value=False),
        "dpo_beta": Renamed("pref_beta", "LLaMA-Factory renamed it"),
        "dpo_loss": Renamed("pref_loss", "LLaMA-Factory renamed it"),
        "dpo_ftx": Renamed("pref_ftx", "LLaMA-Factory renamed it"),
        "name_module_trainable": Renamed("freeze_trainable_modules", "LLaMA-Factory renamed it"),
        "num_layer_trainable": Renamed("freeze_trainable_layers", "LLaMA-Factory renamed it"),
        "image_dir": Renamed("media_dir", "LLaMA-Factory renamed it"),
        "image_resolution": Renamed("image_max_pixels", "LLaMA-Factory renamed it"),
        "video_resolution": Renamed("video_max_pixels", "LLaMA-Factory renamed it"),
        "reserved_label_len": Renamed("", "LLaMA-Factory removed it"),
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
