"""The contract of a trained model: what it was taught with, and so what has to be sent to it.

`tunebook_contract.json` lies beside every adapter and every model that is saved, checkpoints included. It is
written inside the engine (`tunebook.hooks.contract`) and read here, where there is no engine.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

from tunebook import files
from tunebook.errors import TunebookError
from tunebook.models import safetensors
from tunebook.redact import redact

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from tunebook.types import EngineName

FILE = "tunebook_contract.json"
FORMAT = 1
"""It rises when a key changes its meaning or goes."""

_KEPT: dict[EngineName, frozenset[str]] = {
    "llamafactory": frozenset(
        {
            *("model_name_or_path", "model_revision", "adapter_name_or_path", "stage", "finetuning_type"),
            *("template", "default_system", "enable_thinking", "preserve_thinking", "tool_format"),
            *("mask_history", "train_on_prompt", "cutoff_len", "use_fast_tokenizer", "split_special_tokens"),
            *("resize_vocab", "add_tokens", "add_special_tokens", "trust_remote_code", "flash_attn"),
            *("rope_scaling", "quantization_bit", "quantization_method", "quantization_type"),
            *("double_quantization", "bf16", "fp16", "pure_bf16", "shift_attn", "use_unsloth"),
            *("lora_rank", "lora_alpha", "lora_dropout", "lora_target", "additional_target", "use_rslora"),
            *("use_dora", "pissa_init", "infer_dtype"),
        }
    ),
    "axolotl": frozenset(
        {
            *("base_model", "base_model_config", "revision_of_model", "tokenizer_config", "tokenizer_type"),
            *("tokenizer_use_fast", "tokenizer_legacy", "tokenizer_use_mistral_common", "model_type"),
            *("added_tokens_overrides", "special_tokens", "tokens", "resize_token_embeddings_to_32x"),
            *("trust_remote_code", "is_llama_derived_model", "is_qwen_derived_model"),
            *("is_falcon_derived_model", "is_mistral_derived_model", "chat_template", "chat_template_jinja"),
            *("chat_template_kwargs", "default_system_message", "eot_tokens", "train_on_inputs", "datasets"),
            *("sequence_len", "excess_length_strategy", "adapter", "lora_r", "lora_alpha", "lora_dropout"),
            *("lora_target_modules", "lora_target_linear", "lora_modules_to_save", "peft_use_dora"),
            *("peft_use_rslora", "lora_mlp_kernel", "lora_qkv_kernel", "lora_o_kernel"),
            *("lora_embedding_kernel", "load_in_4bit", "load_in_8bit", "gptq", "bnb_config_kwargs"),
            *("bf16", "fp16", "tf32", "attn_implementation", "flash_attention", "sdp_attention"),
            *("overrides_of_model_config", "overrides_of_model_kwargs", "learning_rate"),
            *("micro_batch_size", "gradient_accumulation_steps", "batch_size", "optimizer", "rl"),
        }
    ),
}
"""Recipe keys that decide how the model and its tokenizer are loaded and how a conversation is written.

Axolotl's schema also requires a learning rate and a batch size before it reads anything.
"""


def kept_settings(engine: EngineName, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return those keys of a recipe that a contract keeps, secrets taken out."""
    found = {key: value for key, value in values.items() if key in _KEPT[engine] and value is not None}
    return dict(redact(found))


_TEXT: Any = str | None
_MAPPING: Any = dict | None
_TOKEN: dict[str, Any] = {"id": int, "text": str}
_SHAPE: dict[str, Any] = {
    "engine": {"name": str, "version": str},
    "versions": dict,
    "base": {
        "name_or_path": str,
        "revision": _TEXT,
        "commit": _TEXT,
        "fingerprint": _MAPPING,
        "model_type": str,
        "architectures": list | None,
    },
    "template": {
        "name": _TEXT,
        "enable_thinking": bool | None,
        "default_system": _TEXT,
        "chat_template_kwargs": dict,
        "chat_template_sha256": _TEXT,
    },
    "rope": {"parameters": _MAPPING, "theta": int | float | None, "max_position_embeddings": int | None},
    "max_tokens": int | None,
    "dtype": {"weights": str, "compute": str},
    "quantization": _MAPPING,
    "adapter": _MAPPING,
    "tokens": {"stop": [_TOKEN], "vocabulary": int, "tokenizer_sha256": _TEXT},
    "settings": dict,
    "step": int | None,
}
"""Of what `hooks.contract.gather` writes: a type, the keys of a mapping, or the form of a list's entries."""


def _checked(value: Any, shape: Any, where: str) -> Any:
    """`value` with null for what is missing and may be; ValueError says what has another form."""
    if isinstance(shape, list) and isinstance(value, list):
        return [_checked(one, shape[0], where) for one in value]
    if isinstance(shape, dict) and isinstance(value, dict):
        parts = {key: _checked(value.get(key), form, f"{where}.{key}") for key, form in shape.items()}
        return {**value, **parts}
    fits = not isinstance(shape, list | dict) and isinstance(value, shape)
    if not fits or (isinstance(value, bool) and shape not in (bool, bool | None)):
        raise ValueError(f"{where.lstrip('.')} is {value!r:.80}")
    return value


def read(folder: Path) -> dict[str, Any] | None:
    """Return the contract in `folder`; None where there is none.

    Raises:
        TunebookError: It cannot be read, or was written in a format that is not known here.
    """
    path = folder / FILE
    if not path.is_file():
        return None
    try:
        found = files.read_json(path)
    except (OSError, ValueError) as err:
        raise TunebookError(
            f"{path}: cannot be read: {err}", fix="delete it, and name the recipe with --recipe"
        ) from err
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        told = found.get("format") if isinstance(found, dict) else type(found).__name__
        raise TunebookError(
            f"{path}: is of format {told!r}, and this tunebook reads format {FORMAT}",
            fix="use the tunebook that wrote it, or name the recipe with --recipe",
        )
    try:
        return dict(_checked(found, _SHAPE, ""))
    except ValueError as err:
        raise TunebookError(
            f"{path}: {err}, which tunebook has not written",
            fix="copy the file again, or delete it and name the recipe with --recipe",
        ) from err


def fingerprint(folder: Path) -> dict[str, str | None]:
    """Return SHA-256 of `config.json` and of the headers of all safetensors files of a model's folder.

    The headers name every tensor with its type and shape. Weights are not read: two models that differ in
    only their values have one fingerprint.
    """
    config = folder / "config.json"
    headers = hashlib.sha256()
    files = sorted(folder.glob("*.safetensors"))
    for file in files:
        tensors = safetensors.read_named(file).tensors
        headers.update(json.dumps([file.name, tensors], sort_keys=True).encode())
    return {
        "config_sha256": hashlib.sha256(config.read_bytes()).hexdigest() if config.is_file() else None,
        "weight_headers_sha256": headers.hexdigest() if files else None,
    }


def tokenizer_sha256(tokenizer: Mapping[str, Any]) -> str:
    """Return the SHA-256 of what a `tokenizer.json` holds, apart from how it pads and cuts.

    Those two are settings of the moment: a data loader changes them.
    """
    lasting = {key: value for key, value in tokenizer.items() if key not in ("padding", "truncation")}
    return hashlib.sha256(json.dumps(lasting, sort_keys=True).encode()).hexdigest()


def text_sha256(text: object) -> str | None:
    """Return the SHA-256 of a chat template; of several named ones, that of their listing."""
    if text is None:
        return None
    if not isinstance(text, str):
        text = json.dumps(text, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()
