"""Tensors: those of the inputs, from headers only, and how each tensor of the output is made of them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tunebook import files
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
    """Where a tensor's bytes are."""

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
            table = files.read_json(index)["weight_map"]
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


@dataclass(frozen=True, slots=True, kw_only=True)
class LowRank:
    """The change that a LoRA layer makes to a weight: `scale * B @ A`, and for DoRA a new length.

    Source: PEFT, `get_delta_weight` and the DoRA variants' `merge_safe` of peft/tuners/lora.
    """

    a: TensorSource
    """(rank, in); of an embedding (rank, tokens)."""
    b: TensorSource
    """(out, rank)."""
    scale: float
    """lora_alpha / rank, with rsLoRA lora_alpha / sqrt(rank)."""
    transposed: bool
    """The weight is stored as (in, out): embeddings, and layers with `fan_in_fan_out`."""
    embedding: bool = False
    """Its matrices are called `lora_embedding_A` and `lora_embedding_B`."""
    magnitude: TensorSource | None = None
    """DoRA's length of each output, (out,); None without DoRA."""

    @property
    def rank(self) -> int:
        """Rows of A."""
        return self.a.shape[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class NewRows:
    """Rows of an embedding that an adapter replaces (`trainable_token_indices`)."""

    indices: tuple[int, ...]
    values: TensorSource


@dataclass(frozen=True, slots=True, kw_only=True)
class Term:
    """One summand: `weight * (source + low rank)`."""

    weight: float
    source: TensorSource
    low_rank: LowRank | None = None
    rows: NewRows | None = None
    added: tuple[TensorSource, float] | None = None
    """A tensor of the same shape and its factor, e.g. the bias of a LoRA layer."""

    @property
    def is_copy(self) -> bool:
        """Whether it is the source itself, unchanged."""
        return self.weight == 1 and self.low_rank is None and self.rows is None and self.added is None


@dataclass(frozen=True, slots=True, kw_only=True)
class Stack:
    """Tensors one after the other along an axis, each times its factor."""

    axis: int
    parts: tuple[tuple[TensorSource, float], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tensor:
    """One tensor of the output."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    made_of: tuple[Term, ...] | Stack
    """The sum of terms, computed in fp32 and rounded once to `dtype`, or a stack."""

    @property
    def bytes(self) -> int:
        """How many bytes it takes."""
        return math.prod(self.shape) * ITEM_BYTES[self.dtype]

    @property
    def bytes_read(self) -> int:
        """How many bytes of the inputs are read for it."""
        if isinstance(self.made_of, Stack):
            return sum(source.bytes for source, _ in self.made_of.parts)
        return sum(term.source.bytes for term in self.made_of)

    @property
    def is_copy(self) -> bool:
        """Whether the bytes of a source are taken as they are."""
        terms = self.made_of
        return (
            not isinstance(terms, Stack)
            and len(terms) == 1
            and terms[0].is_copy
            and terms[0].source.dtype == self.dtype
        )

    @property
    def rank(self) -> int:
        """The largest rank of the low-rank changes in it; 0 without any."""
        if isinstance(self.made_of, Stack):
            return 0
        return max((term.low_rank.rank for term in self.made_of if term.low_rank), default=0)


def average(name: str, sources: list[TensorSource], weights: list[float]) -> Tensor:
    """The weighted sum of tensors of one shape, in the type of the first."""
    terms = tuple(Term(weight=w, source=s) for w, s in zip(weights, sources, strict=True))
    return Tensor(name=name, dtype=sources[0].dtype, shape=sources[0].shape, made_of=terms)


def as_job(tensor: Tensor) -> dict[str, Any]:
    """The tensor as JSON."""
    made: dict[str, Any] = {"name": tensor.name, "dtype": tensor.dtype, "shape": list(tensor.shape)}
    if isinstance(tensor.made_of, Stack):
        parts = [{"source": _source(s), "factor": factor} for s, factor in tensor.made_of.parts]
        return {**made, "copy": False, "axis": tensor.made_of.axis, "parts": parts}
    return {**made, "copy": tensor.is_copy, "terms": [_term(term) for term in tensor.made_of]}


def _term(term: Term) -> dict[str, Any]:
    low, rows, added = term.low_rank, term.rows, term.added
    return {
        "weight": term.weight,
        "source": _source(term.source),
        "low_rank": low
        and {
            "a": _source(low.a),
            "b": _source(low.b),
            "scale": low.scale,
            "transposed": low.transposed,
            "magnitude": low.magnitude and _source(low.magnitude),
        },
        "rows": rows and {"indices": list(rows.indices), "values": _source(rows.values)},
        "added": added and {"source": _source(added[0]), "factor": added[1]},
    }


def _source(source: TensorSource) -> dict[str, Any]:
    return {
        "file": str(source.file.absolute()),
        "dtype": source.dtype,
        "shape": list(source.shape),
        "start": source.start,
    }
