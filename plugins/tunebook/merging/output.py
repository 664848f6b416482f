"""The folder that a merge makes: its files of weights with headers and index, and what is beside them."""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tunebook import __version__, files
from tunebook.errors import TunebookError
from tunebook.merging.inputs import read_json
from tunebook.merging.tensors import ITEM_BYTES, as_job
from tunebook.models import contract

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from tunebook.merging.tensors import Tensor


CHUNK_BYTES = 32 << 20
"""Rows are computed in pieces of so many bytes of fp32."""
LIBRARIES_BYTES = 600 << 20
"""What Python and torch take before any tensor is read: 510 MB of torch 2.13 on Linux, measured."""

# Of a piece of fp32, measured: sum and summand in double, the bytes read, the product, the rounded copy.
_PIECES = 9
_F32 = 4

_TOKENIZER = (
    *("tokenizer.json", "tokenizer_config.json", "tokenizer.model", "special_tokens_map.json"),
    *("added_tokens.json", "vocab.json", "merges.txt", "chat_template.jinja", "chat_template.json"),
    *("additional_chat_templates",),
)
_PROCESSOR = ("preprocessor_config.json", "processor_config.json", "video_preprocessor_config.json")
_OF_THE_MODEL = ("generation_config.json", "*.py", "LICENSE*", "NOTICE*", "USE_POLICY*")
# Settings of the base and its adapter, with which an engine would load a merged model wrongly.
_OF_THE_TRAINING = frozenset(
    {
        *("quantization_bit", "quantization_method", "quantization_type", "double_quantization"),
        *("load_in_4bit", "load_in_8bit", "gptq", "bnb_config_kwargs", "adapter", "adapter_name_or_path"),
        *("lora_r", "lora_alpha", "lora_dropout", "lora_target_modules", "lora_target_linear"),
        *("lora_modules_to_save", "peft_use_dora", "peft_use_rslora", "lora_rank", "lora_target"),
        *("additional_target", "use_rslora", "use_dora", "pissa_init", "finetuning_type"),
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputShard:
    """One safetensors file of the output."""

    name: str
    tensors: tuple[Tensor, ...]
    header: bytes
    """Everything before the tensors."""

    @property
    def bytes(self) -> int:
        """Size of the file."""
        return len(self.header) + sum(tensor.bytes for tensor in self.tensors)


def shards(tensors: Sequence[Tensor], limit: int | None, *, stem: str = "model") -> list[OutputShard]:
    """Lay tensors out over files of at most `limit` bytes, in the order given.

    A tensor that is larger than the limit has a file of its own. None is no limit.
    """
    groups: list[list[Tensor]] = [[]]
    size = 0
    for tensor in tensors:
        if groups[-1] and limit is not None and size + tensor.bytes > limit:
            groups.append([])
            size = 0
        groups[-1].append(tensor)
        size += tensor.bytes
    names = (
        [f"{stem}.safetensors"]
        if len(groups) == 1
        else [f"{stem}-{number:05d}-of-{len(groups):05d}.safetensors" for number in range(1, len(groups) + 1)]
    )
    return [_shard(name, group) for name, group in zip(names, groups, strict=True)]


def _shard(name: str, tensors: Sequence[Tensor]) -> OutputShard:
    # As safetensors orders them: widest elements first, so that each tensor begins at a multiple of its own.
    ordered = sorted(tensors, key=lambda tensor: (-ITEM_BYTES[tensor.dtype], tensor.name))
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    at = 0
    for tensor in ordered:
        header[tensor.name] = {
            "dtype": tensor.dtype,
            "shape": list(tensor.shape),
            "data_offsets": [at, at + tensor.bytes],
        }
        at += tensor.bytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return OutputShard(name=name, tensors=tuple(ordered), header=len(text).to_bytes(8, "little") + text)


def shard_index(found: Sequence[OutputShard]) -> dict[str, Any] | None:
    """The `model.safetensors.index.json` of several shards; None for one."""
    if len(found) == 1:
        return None
    tensors = [(tensor, shard.name) for shard in found for tensor in shard.tensors]
    return {
        "metadata": {
            "total_parameters": sum(math.prod(tensor.shape) for tensor, _ in tensors),
            "total_size": sum(tensor.bytes for tensor, _ in tensors),
        },
        "weight_map": {tensor.name: name for tensor, name in sorted(tensors, key=lambda pair: pair[0].name)},
    }


def tensors_job(found: Sequence[OutputShard], folder: str, chunk_bytes: int = CHUNK_BYTES) -> dict[str, Any]:
    """The job of `tunebook.hooks.merge`."""
    return {
        "folder": folder,
        "chunk_bytes": chunk_bytes,
        "shards": [
            {
                "name": shard.name,
                "header": shard.header.decode("latin-1"),
                "tensors": [as_job(tensor) for tensor in shard.tensors],
            }
            for shard in found
        ],
    }


def working_bytes(tensors: Sequence[Tensor], chunk_bytes: int = CHUNK_BYTES) -> int:
    """Return the memory that making the tensors takes at most, besides Python and torch.

    A few pieces of `chunk_bytes` and, for a tensor with a low-rank change, its two matrices in fp32.
    """
    most = 0
    for tensor in tensors:
        # Numbers are computed in fp32; where one row is larger than a piece, the row is the piece.
        row = math.prod(tensor.shape[1:]) * _F32
        piece = max(min(chunk_bytes, math.prod(tensor.shape) * _F32), row)
        matrices = tensor.rank * sum(tensor.shape[:2]) * _F32 if tensor.rank else 0
        most = max(most, _PIECES * piece + 2 * matrices)
    return most


def copy_files(
    target: Path, *, trained: Path, base: Path | None, config: Mapping[str, Any] | None
) -> list[str]:
    """Copy tokenizer, chat template, processor and the model's other files beside its weights.

    Args:
        target: The folder of the new model or adapter.
        trained: What was trained (of several, the first): its tokenizer and chat template are taken.
        base: The adapter's base, whose files are taken where `trained` has none; None for a model.
        config: `config.json` to write; None for an adapter.

    Returns:
        What was changed on the way, a line each.
    """
    sources = [trained] if base is None else [trained, base]
    # The files of a tokenizer belong together: all from one folder.
    for group in (_TOKENIZER, _PROCESSOR):
        for folder in sources:
            if _copy(folder, target, group):
                break
    if config is None:
        return []
    _copy(base or trained, target, _OF_THE_MODEL)
    notes = []
    settings = dict(config)
    if settings.get("use_cache") is False:
        # Engines switch the cache off to train; a model saved that way generates without one.
        settings["use_cache"] = True
        notes.append("use_cache was false, as training leaves it, and is true again")
    files.write_json(target / "config.json", settings)
    return notes


def write_contract(target: Path, found: Mapping[str, Any], adapter_config: Mapping[str, Any] | None) -> None:
    """Write the contract of what was trained as that of the merged model or adapter.

    Args:
        target: The folder of the result.
        found: The contract of what was trained.
        adapter_config: `adapter_config.json` of the result; None where it is a model.
    """
    made = {**found, "merged_with": f"tunebook {__version__}"}
    if adapter_config is None:
        made["settings"] = {k: v for k, v in found["settings"].items() if k not in _OF_THE_TRAINING}
        made["adapter"] = None
    elif found["adapter"]:
        made["adapter"] = {key: adapter_config.get(key, value) for key, value in found["adapter"].items()}
    files.write_json(target / contract.FILE, made)


def merged_config(folder: Path, changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return a model's `config.json` with changes made where the model keeps those keys.

    Raises:
        TunebookError: The file is missing or damaged.
    """
    config = read_json(folder / "config.json")
    for key, value in changes.items():
        inner = config.get("text_config")
        if isinstance(inner, dict) and key in inner:
            config["text_config"] = inner = {**inner, key: value}
        if key in config or not (isinstance(inner, dict) and key in inner):
            config[key] = value
    return config


def _copy(folder: Path, target: Path, patterns: Sequence[str]) -> bool:
    found = [path for pattern in patterns for path in sorted(folder.glob(pattern))]
    for path in found:
        if path.is_dir():
            shutil.copytree(path, target / path.name)
        else:
            # Not the link: in the hub's cache files are links into a store that may be cleaned.
            shutil.copyfile(path, target / path.name)
    return bool(found)


def refuse_existing(output: Path) -> None:
    """Refuse to write where something is.

    Raises:
        TunebookError: `output` exists.
    """
    if output.exists() or output.is_symlink():
        raise TunebookError(
            f"{output}: is there already, and is not overwritten",
            fix="choose another folder with -o, or remove it",
        )
