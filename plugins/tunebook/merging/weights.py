"""The tensors of a folder's safetensors files, known from their headers alone."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tunebook.errors import TunebookError
from tunebook.models import safetensors

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

ITEM_BYTES = (
    dict.fromkeys(("F64", "I64", "U64", "C64"), 8)
    | dict.fromkeys(("F32", "I32", "U32"), 4)
    | dict.fromkeys(("F16", "BF16", "I16", "U16"), 2)
    | dict.fromkeys(("F8_E4M3", "F8_E5M2", "I8", "U8", "BOOL"), 1)
)
"""Bytes of one element by the name that safetensors gives its type."""
FLOATS = frozenset({"F64", "F32", "F16", "BF16"})
"""Types in which weights can be added and averaged."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorSource:
    """Where a tensor's bytes stand."""

    file: Path
    dtype: str
    """As safetensors names it, e.g. `BF16`."""
    shape: tuple[int, ...]
    start: int
    """First byte in the file; its bytes are contiguous, row by row."""

    @property
    def bytes(self) -> int:
        """How many bytes it takes."""
        return math.prod(self.shape) * ITEM_BYTES[self.dtype]


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightFile:
    """One safetensors file."""

    path: Path
    bytes: int
    header_sha256: str
    """Of the header: names, types, shapes and places of all tensors. The values are not hashed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """All weights of a folder."""

    files: tuple[WeightFile, ...]
    tensors: Mapping[str, TensorSource]

    @property
    def bytes(self) -> int:
        """Size of the files together."""
        return sum(file.bytes for file in self.files)


def model_weights(folder: Path) -> Weights | None:
    """Read the headers of a model's weights, `model.safetensors` or the shards that its index names.

    Returns:
        None where there are none of this format.

    Raises:
        TunebookError: A file is missing or cut off.
    """
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        try:
            table = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
            names = sorted(set(table.values()))
        except (ValueError, KeyError, AttributeError, TypeError) as err:
            raise TunebookError(f"{index}: is cut off or no index of shards", fix="copy it again") from err
        found = _read([folder / name for name in names])
        missing = sorted(table.keys() - found.tensors.keys())
        if missing:
            raise TunebookError(
                f"{index}: names {len(missing)} tensors that are in no shard, the first {missing[0]}",
                fix="copy the model again",
            )
        return found
    single = folder / "model.safetensors"
    return _read([single]) if single.is_file() else None


def adapter_weights(folder: Path) -> Weights | None:
    """Read the header of `adapter_model.safetensors`; None where there is no such file.

    Raises:
        TunebookError: It is cut off.
    """
    path = folder / "adapter_model.safetensors"
    return _read([path]) if path.is_file() else None


def _read(paths: list[Path]) -> Weights:
    tensors: dict[str, TensorSource] = {}
    files = []
    for path in paths:
        if not path.is_file():
            raise TunebookError(f"{path}: is missing", fix="copy the shard again; the index names it")
        file, found = _read_file(path)
        files.append(file)
        tensors.update(found)
    return Weights(files=tuple(files), tensors=tensors)


def _read_file(path: Path) -> tuple[WeightFile, dict[str, TensorSource]]:
    try:
        header = safetensors.read_whole(path)
    except safetensors.DamagedHeaderError as damage:
        raise TunebookError(f"{path}: {damage}", fix="copy it again, or take another checkpoint") from damage
    tensors = {
        name: TensorSource(
            file=path,
            dtype=entry["dtype"],
            shape=tuple(entry["shape"]),
            start=header.data_start + entry["data_offsets"][0],
        )
        for name, entry in header.tensors.items()
    }
    unknown = sorted({source.dtype for source in tensors.values()} - ITEM_BYTES.keys())
    if unknown:
        raise TunebookError(
            f"{path}: holds tensors of type {unknown[0]}", fix="use a model in bf16, fp16 or fp32"
        )
    return WeightFile(path=path, bytes=header.file_bytes, header_sha256=header.sha256), tensors
