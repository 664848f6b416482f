"""The tensors of a base model with one adapter merged in, or the weighted sum of several."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from tunebook.errors import TunebookError, join_errors
from tunebook.merging.tensors import FLOATS, LowRank, NewRows, Tensor, Term

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tunebook.merging.adapters import Adapter
    from tunebook.merging.tensors import TensorSource, Weights

HEAD = "lm_head.weight"
_SHOWN = 5
_EMBEDDINGS = ("embed_tokens.weight", "wte.weight", "word_embeddings.weight", "embed_in.weight")


@dataclass(frozen=True, slots=True, kw_only=True)
class Merged:
    """The tensors of the model, and what must change in its `config.json`."""

    tensors: list[Tensor]
    config: dict[str, Any]
    """Keys to set; empty where the base's configuration holds as it is."""
    notes: list[str]


def merge_into_base(
    base: Weights, config: Mapping[str, Any], adapters: Sequence[Adapter], weights: Sequence[float]
) -> Merged:
    """Plan the tensors of `base + sum of weight * change`, where the weights sum to one.

    An input embedding and an output layer that share their weights in the base are written separately where
    an adapter changes one of them, or both differently: PEFT computes with them separately too.

    Args:
        base: The base's weights.
        config: The base's `config.json`.
        adapters: One, or several.
        weights: One for each adapter.

    Raises:
        TunebookError: An adapter names a layer that the base lacks, or of another shape.
    """
    sources = dict(base.tensors)
    embedding = _embedding(sources)
    tied = embedding is not None and (HEAD not in sources or is_tied(config))
    if tied and embedding is not None:
        sources[HEAD] = sources[embedding]
    rename = _renaming(sources, adapters)
    changed = [_renamed(adapter, rename) for adapter in adapters]
    faults = [fault for adapter in changed for fault in _faults(sources, adapter)]
    if faults:
        raise join_errors(faults[:_SHOWN])
    tensors = [
        _tensor(name, source, changed, weights, head_of=embedding if tied else None)
        for name, source in sources.items()
    ]
    made = {tensor.name: tensor for tensor in tensors}
    settings: dict[str, Any] = {}
    notes = []
    if tied and embedding is not None:
        if _same(made[HEAD], made[embedding]):
            tensors = [tensor for tensor in tensors if tensor.name != HEAD or HEAD in base.tensors]
        else:
            settings["tie_word_embeddings"] = False
            notes.append(
                "input embedding and output layer shared their weights in the base; the adapter changes them "
                "differently, so they are written separately (tie_word_embeddings: false)"
            )
    rows = made[embedding].shape[0] if embedding else None
    if embedding and rows != base.tensors[embedding].shape[0]:
        if HEAD in made and made[HEAD].shape[0] != rows:
            raise TunebookError(
                f"the adapter resizes {embedding} to {rows} rows, and not {HEAD}",
                fix="save both with it: additional_target (LLaMA-Factory), lora_modules_to_save (Axolotl)",
            )
        settings["vocab_size"] = rows
        notes.append(f"the vocabulary was resized from {base.tensors[embedding].shape[0]} to {rows} rows")
    return Merged(tensors=tensors, config=settings, notes=notes)


def is_tied(config: Mapping[str, Any]) -> bool:
    """Whether the configuration says that output layer and input embedding share their weights."""
    inner = config.get("text_config")
    if "tie_word_embeddings" not in config and isinstance(inner, dict):
        return bool(inner.get("tie_word_embeddings"))
    return bool(config.get("tie_word_embeddings"))


def _embedding(sources: Mapping[str, TensorSource]) -> str | None:
    return next((name for end in _EMBEDDINGS for name in sources if name.endswith(end)), None)


def _tensor(
    name: str,
    source: TensorSource,
    adapters: Sequence[Adapter],
    weights: Sequence[float],
    *,
    head_of: str | None,
) -> Tensor:
    terms = [
        _term(name, source, adapter, weight, head_of)
        for adapter, weight in zip(adapters, weights, strict=True)
    ]
    if all(replace(term, weight=1.0).is_copy and term.source == source for term in terms):
        terms = [Term(weight=1.0, source=source)]
    return Tensor(name=name, dtype=source.dtype, shape=terms[0].source.shape, made_of=tuple(terms))


def _term(name: str, source: TensorSource, adapter: Adapter, weight: float, head_of: str | None) -> Term:
    module, _, kind = name.rpartition(".")
    source = adapter.saved.get(name, source)
    if kind == "bias":
        return Term(weight=weight, source=source, added=adapter.biases.get(module))
    if kind != "weight":
        return Term(weight=weight, source=source)
    low = adapter.layers.get(module)
    # Trained tokens of the input embedding are those of the output layer that shares its weights.
    tokens = adapter.tokens.get(module) or (
        adapter.tokens.get(head_of.removesuffix(".weight")) if head_of and name == HEAD else None
    )
    return Term(
        weight=weight,
        source=source,
        low_rank=low and _oriented(low, source.shape),
        rows=NewRows(indices=tokens[0], values=tokens[1]) if tokens else None,
    )


def _oriented(low: LowRank, shape: tuple[int, ...]) -> LowRank:
    """The shape decides where it can: GPT-2's layers are stored as (in, out), its output layer is not."""
    out, into = low.b.shape[0], low.a.shape[1]
    return low if out == into else replace(low, transposed=shape == (into, out))


def _same(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors are made alike, or of equal bytes."""
    assert isinstance(one.made_of, tuple)
    assert isinstance(other.made_of, tuple)
    pairs = list(zip(one.made_of, other.made_of, strict=False))
    return len(one.made_of) == len(other.made_of) and all(
        replace(a, source=b.source) == b and _equal(a.source, b.source) for a, b in pairs
    )


def _equal(one: TensorSource, other: TensorSource) -> bool:
    if one == other:
        return True
    if (one.shape, one.dtype) != (other.shape, other.dtype):
        return False
    return _digest(one) == _digest(other)


def _digest(source: TensorSource) -> bytes:
    digest, left = hashlib.sha256(), source.bytes
    with source.file.open("rb") as stream:
        stream.seek(source.start)
        while left:
            block = stream.read(min(left, 1 << 24))
            digest.update(block)
            left -= len(block)
    return digest.digest()


def _faults(sources: Mapping[str, TensorSource], adapter: Adapter) -> list[TunebookError]:
    wanted: list[tuple[str, set[tuple[int, ...]] | None]] = [(name, None) for name in adapter.saved]
    for module, low in adapter.layers.items():
        out, into = low.b.shape[0], low.a.shape[1]
        name = f"{module}.weight"
        wanted.append((name, None if name in adapter.saved else {(out, into), (into, out)}))
    wanted += [(f"{module}.bias", {bias.shape}) for module, (bias, _) in adapter.biases.items()]
    wanted += [(f"{module}.weight", None) for module in adapter.tokens]
    absent = sorted({name for name, _ in wanted if name not in sources})
    faults = []
    if absent:
        shown = ", ".join(absent[:3]) + (", ..." if len(absent) > 3 else "")
        faults.append(
            TunebookError(
                f"the base has no {shown} ({len(absent)} of {len(wanted)} tensors that the adapter changes)",
                fix="give the model that the adapter was trained on with --base; experts that are stored "
                "apart are not merged",
            )
        )
    for name, shapes in wanted:
        source = sources.get(name)
        if source is None:
            continue
        if shapes is not None and source.shape not in shapes:
            stated = " or ".join(str(shape) for shape in sorted(shapes))
            faults.append(
                TunebookError(
                    f"{name} has shape {source.shape} in the base, and the adapter is for {stated}",
                    fix="give the model that the adapter was trained on with --base",
                )
            )
        if source.dtype not in FLOATS:
            faults.append(
                TunebookError(
                    f"{name} is stored as {source.dtype}: the base is quantised, and rounding would lose "
                    "the adapter",
                    fix="give the unquantised model with --base",
                )
            )
    return faults


def _renaming(sources: Mapping[str, TensorSource], adapters: Sequence[Adapter]) -> tuple[str, str] | None:
    """The beginnings by which layers are called in the adapter and in the base, where they differ.

    Models that see pictures call their text layers `model.language_model.` in memory, and some are stored
    as `language_model.model.` or `model.`.
    """
    names = {name for adapter in adapters for name in _names(adapter)}
    if all(name in sources for name in names):
        return None
    starts = ("model.language_model.", "language_model.model.", "model.")
    for ours in starts:
        for theirs in starts:
            moved = {theirs + name.removeprefix(ours) if name.startswith(ours) else name for name in names}
            if ours != theirs and moved <= sources.keys():
                return ours, theirs
    return None


def _names(adapter: Adapter) -> list[str]:
    modules = [*adapter.layers, *adapter.tokens]
    return [
        *adapter.saved,
        *(f"{module}.weight" for module in modules),
        *(f"{m}.bias" for m in adapter.biases),
    ]


def _renamed(adapter: Adapter, rename: tuple[str, str] | None) -> Adapter:
    if rename is None:
        return adapter
    ours, theirs = rename

    def new(name: str) -> str:
        return theirs + name.removeprefix(ours) if name.startswith(ours) else name

    return replace(
        adapter,
        layers={new(name): value for name, value in adapter.layers.items()},
        biases={new(name): value for name, value in adapter.biases.items()},
        saved={new(name): value for name, value in adapter.saved.items()},
        tokens={new(name): value for name, value in adapter.tokens.items()},
    )
