"""How the output is laid out: shards, their headers, their index, and the memory that making them takes."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tunebook.merging.tensors import as_job
from tunebook.merging.weights import ITEM_BYTES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tunebook.merging.tensors import Tensor

CHUNK_BYTES = 32 << 20
"""Rows are computed in pieces of so many bytes of fp32."""
LIBRARIES_BYTES = 600 << 20
"""What Python and torch take before any tensor is read: 510 MB of torch 2.13 on Linux, measured."""

# Of a piece of fp32, measured: sum and summand in double, the bytes read, the product, the rounded copy.
_PIECES = 9
_F32 = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Shard:
    """One safetensors file of the output."""

    name: str
    tensors: tuple[Tensor, ...]
    header: bytes
    """Everything that stands before the tensors."""

    @property
    def bytes(self) -> int:
        """Size of the file."""
        return len(self.header) + sum(tensor.bytes for tensor in self.tensors)


def shards(tensors: Sequence[Tensor], limit: int | None, *, stem: str = "model") -> list[Shard]:
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


def _shard(name: str, tensors: Sequence[Tensor]) -> Shard:
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
    return Shard(name=name, tensors=tuple(ordered), header=len(text).to_bytes(8, "little") + text)


def index(found: Sequence[Shard]) -> dict[str, Any] | None:
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


def job(found: Sequence[Shard], folder: str, chunk_bytes: int = CHUNK_BYTES) -> dict[str, Any]:
    """What `tunebook.hooks.merge` is told."""
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
