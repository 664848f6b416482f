"""PEFT adapters: what one changes, read from its configuration and tensors, and several as one."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tunebook.errors import TunebookError, join_errors
from tunebook.merging.tensors import LowRank, Stack, Tensor, average

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from tunebook.merging.tensors import TensorSource, Weights


# Settings under which a merged weight is not what the adapter computes, or not by the formula used here.
_NOT_MERGED = {
    "target_parameters": "it adapts parameters of experts, not layers",
    "layer_replication": "it repeats layers of the base",
    "alora_invocation_tokens": "it acts only after certain tokens (aLoRA)",
    "use_qalora": "it pools its inputs (QA-LoRA)",
    "use_bdlora": "its matrices are block-diagonal (BD-LoRA)",
    "arrow_config": "it routes between adapters (Arrow)",
    "monteclora_config": "it samples its weights (MonteCLoRA)",
}
# These initialisations also change the weights of the base that the adapter is trained on.
_CHANGES_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga")
_KNOWN = frozenset(
    {
        *("task_type", "peft_type", "auto_mapping", "peft_version", "base_model_name_or_path", "revision"),
        *("inference_mode", "r", "target_modules", "exclude_modules", "lora_alpha", "lora_dropout"),
        *("fan_in_fan_out", "bias", "use_rslora", "modules_to_save", "init_lora_weights", "lora_bias"),
        *("layers_to_transform", "layers_pattern", "rank_pattern", "alpha_pattern", "megatron_config"),
        *("megatron_core", "trainable_token_indices", "loftq_config", "eva_config", "corda_config"),
        *("use_dora", "qalora_group_size", "ensure_weight_tying", "lora_ga_config", "velora_config"),
        *("runtime_config", "ephemeral_gpu_offload"),
    }
)
_PREFIX = "base_model.model."
_SHOWN = 5  # what is wrong with one layer is wrong with hundreds
_LAYER = re.compile(
    r"(?P<module>.+)\.(?P<part>lora_A|lora_B|lora_embedding_A|lora_embedding_B|lora_magnitude_vector)"
    r"(?P<kind>\.weight|\.bias)?"
)
_TOKENS = re.compile(r"(?P<module>.+?)(?:\.token_adapter)?\.trainable_tokens_delta")


@dataclass(frozen=True, slots=True, kw_only=True)
class Adapter:
    """An adapter, by the names of the base's layers."""

    layers: Mapping[str, LowRank]
    """By layer, e.g. `model.layers.0.self_attn.q_proj`."""
    biases: Mapping[str, tuple[TensorSource, float]] = field(default_factory=dict)
    """By layer: what LoRA adds to its bias, and the factor."""
    saved: Mapping[str, TensorSource] = field(default_factory=dict)
    """Tensors of the base that the adapter replaces, by name (`modules_to_save`, resized embeddings)."""
    tokens: Mapping[str, tuple[tuple[int, ...], TensorSource]] = field(default_factory=dict)
    """By layer: rows that the adapter replaces (`trainable_token_indices`)."""


def read_adapter(folder: Path, config: Mapping[str, Any], weights: Weights) -> Adapter:
    """Read what an adapter changes.

    Args:
        folder: Of the adapter, for messages.
        config: Its `adapter_config.json`.
        weights: Of its `adapter_model.safetensors`.

    Raises:
        TunebookError: It is of a kind that cannot be merged into weights, or damaged.
    """
    faults = _settings_faults(folder, config)
    parts: dict[str, dict[str, TensorSource]] = {}
    saved: dict[str, TensorSource] = {}
    tokens: dict[str, tuple[tuple[int, ...], TensorSource]] = {}
    for key, source in weights.tensors.items():
        name = key.removeprefix(_PREFIX).replace(".modules_to_save.", ".")
        if layer := _LAYER.fullmatch(name):
            parts.setdefault(layer["module"], {})[
                layer["part"] + (layer["kind"] or "").replace(".weight", "")
            ] = source
        elif found := _TOKENS.fullmatch(name):
            tokens[found["module"]] = (_indices(config, found["module"]), source)
        elif "lora_" in name:
            faults.append(TunebookError(f"{folder}: no rule for the tensor {key}", fix="merge it with PEFT"))
        else:
            saved[name.replace(".base_layer.", ".")] = source
    layers, biases = {}, {}
    for module, found_parts in parts.items():
        try:
            layers[module] = _layer(folder, config, module, found_parts)
        except TunebookError as fault:
            faults.append(fault)
            continue
        if "lora_B.bias" in found_parts:
            biases[module] = (found_parts["lora_B.bias"], layers[module].scale)
    if not faults and not (layers or saved or tokens):
        faults.append(TunebookError(f"{folder}: the adapter holds no tensors", fix="take another checkpoint"))
    if faults:
        raise join_errors(faults[:_SHOWN])
    return Adapter(layers=layers, biases=biases, saved=saved, tokens=tokens)


def _settings_faults(folder: Path, config: Mapping[str, Any]) -> list[TunebookError]:
    file = folder / "adapter_config.json"
    kind = config.get("peft_type")
    if kind != "LORA":
        return [TunebookError(f"{file}: peft_type is {kind}; only LORA is merged", fix="merge it with PEFT")]
    faults = [
        TunebookError(
            f"{file}: {key} is {config[key]!r}: {reason}, so it cannot be merged here",
            fix="serve base and adapter together, or merge with the library that made it",
        )
        for key, reason in _NOT_MERGED.items()
        if config.get(key)
    ]
    start = str(config.get("init_lora_weights"))
    if start.startswith(_CHANGES_BASE):
        faults.append(
            TunebookError(
                f"{file}: init_lora_weights is {start}: the adapter belongs to a base whose weights "
                "were changed at its start",
                fix="save it with path_initial_model_for_weight_conversion (PEFT), and merge that",
            )
        )
    strange = sorted(key for key in config.keys() - _KNOWN - _NOT_MERGED.keys() if config[key])
    if strange:
        faults.append(
            TunebookError(
                f"{file}: {strange[0]} is {config[strange[0]]!r}, which this version does not know",
                fix="merge it with the PEFT version that made it",
            )
        )
    return faults


def _layer(
    folder: Path, config: Mapping[str, Any], module: str, parts: Mapping[str, TensorSource]
) -> LowRank:
    embedding = "lora_embedding_A" in parts
    prefix = "lora_embedding_" if embedding else "lora_"
    missing = [name for name in (f"{prefix}A", f"{prefix}B") if name not in parts]
    if missing:
        raise TunebookError(f"{folder}: {module} has no {missing[0]}", fix="take another checkpoint")
    a, b = parts[f"{prefix}A"], parts[f"{prefix}B"]
    if len(a.shape) != 2 or len(b.shape) != 2 or a.shape[0] != b.shape[1]:
        raise TunebookError(
            f"{folder}: {module}: A of shape {a.shape} and B of shape {b.shape} are no pair of matrices",
            fix="only linear layers and embeddings are merged; merge others with PEFT",
        )
    rank, alpha = a.shape[0], _of_pattern(config, "alpha_pattern", module, "lora_alpha")
    stated = _of_pattern(config, "rank_pattern", module, "r")
    if stated != rank:
        raise TunebookError(
            f"{folder}: {module} has rank {rank} in its tensors and {stated:g} in adapter_config.json",
            fix="take the adapter_config.json that was saved with these tensors",
        )
    magnitude = parts.get("lora_magnitude_vector")
    if bool(config.get("use_dora")) != (magnitude is not None):
        raise TunebookError(
            f"{folder}: use_dora is {config.get('use_dora')!r}, but {module} has "
            f"{'a' if magnitude else 'no'} lora_magnitude_vector",
            fix="take the adapter_config.json that was saved with these tensors",
        )
    return LowRank(
        a=a,
        b=b,
        scale=alpha / math.sqrt(rank) if config.get("use_rslora") else alpha / rank,
        transposed=embedding or bool(config.get("fan_in_fan_out")),
        embedding=embedding,
        magnitude=magnitude,
    )


def _of_pattern(config: Mapping[str, Any], pattern: str, module: str, default: str) -> float:
    """As PEFT's `get_pattern_key`: the first pattern that is the module's name or its end."""
    patterns = config.get(pattern) or {}
    if not isinstance(patterns, dict):
        raise TunebookError(f"adapter_config.json: {pattern} is no mapping", fix="save the adapter again")
    for key, value in patterns.items():
        try:
            matches = re.match(rf"(.*\.)?({key})$", module)
        except re.error as err:
            raise TunebookError(
                f"adapter_config.json: {pattern}: {key!r} is no regular expression: {err}",
                fix="save the adapter again",
            ) from err
        if matches:
            return _number(value, f"{pattern}.{key}")
    return _number(config.get(default), default)


def _number(value: Any, key: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
        raise TunebookError(
            f"adapter_config.json: {key} is {value!r}, not a number of 0 or more",
            fix="save the adapter again",
        )
    return float(value)


def _indices(config: Mapping[str, Any], module: str) -> tuple[int, ...]:
    stated = config.get("trainable_token_indices") or ()
    if isinstance(stated, dict):
        stated = next((value for key, value in stated.items() if module.endswith(key)), ())
    if not isinstance(stated, list | tuple) or not all(type(one) is int for one in stated):
        raise TunebookError(
            f"adapter_config.json: trainable_token_indices is {stated!r:.80}, not a list of numbers",
            fix="save the adapter again",
        )
    return tuple(stated)


def stack_adapters(
    adapters: Sequence[Adapter], weights: Sequence[float], config: Mapping[str, Any]
) -> tuple[list[Tensor], dict[str, Any]]:
    """Plan one adapter that computes exactly the weighted sum of several; its ranks are the sums of ranks.

    The average of A and B of two adapters is not the average of what they do: `mean(B) @ mean(A)` has terms
    of one adapter's B with the other's A. Side by side they have none: `[w1 s1 B1 | w2 s2 B2] @ [A1 ; A2]`.

    Args:
        adapters: With the same layers, as `differences` has proved.
        weights: One for each, summing to one.
        config: The first adapter's configuration.

    Returns:
        Its tensors, and its `adapter_config.json`.

    Raises:
        TunebookError: They are DoRA, whose change of a weight is not linear in the adapter.
    """
    first = adapters[0]
    if any(low.magnitude is not None for adapter in adapters for low in adapter.layers.values()):
        raise TunebookError(
            "adapters with use_dora cannot become one adapter: their change is no product of two matrices",
            fix="merge them into their base, where their weighted sum is exact: --as model",
        )
    tensors: list[Tensor] = []
    ranks: dict[str, int] = {}
    for module in first.layers:
        layers = [adapter.layers[module] for adapter in adapters]
        ranks[module] = sum(low.rank for low in layers)
        tensors += _stacked(module, layers, weights, embedding=layers[0].embedding)
        biases = [adapter.biases.get(module) for adapter in adapters]
        found = [(bias, w) for bias, w in zip(biases, weights, strict=True) if bias is not None]
        if found:
            # A bias is added with the layer's scale, which is one here.
            sources = [bias[0] for bias, _ in found]
            factors = [bias[1] * w for bias, w in found]
            tensors.append(average(f"{_PREFIX}{module}.lora_B.bias", sources, factors))
    for name in first.saved:
        tensors.append(average(_PREFIX + name, [adapter.saved[name] for adapter in adapters], list(weights)))
    for module in first.tokens:
        name = f"{_PREFIX}{module}.token_adapter.trainable_tokens_delta"
        tensors.append(average(name, [adapter.tokens[module][1] for adapter in adapters], list(weights)))
    common = max(ranks.values(), default=0)
    others = {module: rank for module, rank in ranks.items() if rank != common}
    settings = {
        **config,
        # With alpha = rank the scale is one: each adapter's own scale is in its part of B.
        "r": common,
        "lora_alpha": common,
        "use_rslora": False,
        "rank_pattern": others,
        "alpha_pattern": dict(others),
        "init_lora_weights": True,
    }
    return tensors, settings


def _stacked(
    module: str, layers: Sequence[LowRank], weights: Sequence[float], *, embedding: bool
) -> list[Tensor]:
    a_name, b_name = (
        ("lora_embedding_A", "lora_embedding_B") if embedding else ("lora_A.weight", "lora_B.weight")
    )
    factors = [w * low.scale for w, low in zip(weights, layers, strict=True)]
    return [
        _stack(f"{_PREFIX}{module}.{a_name}", 0, [low.a for low in layers], [1.0] * len(layers)),
        _stack(f"{_PREFIX}{module}.{b_name}", 1, [low.b for low in layers], factors),
    ]


def _stack(name: str, axis: int, sources: Sequence[TensorSource], factors: Sequence[float]) -> Tensor:
    shape = list(sources[0].shape)
    shape[axis] = sum(source.shape[axis] for source in sources)
    # In fp32, whatever the inputs are stored in: a product with a weight has more digits than bf16 keeps.
    return Tensor(
        name=name,
        dtype="F32",
        shape=tuple(shape),
        made_of=Stack(axis=axis, parts=tuple(zip(sources, factors, strict=True))),
    )
