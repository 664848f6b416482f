"""Several adapters as one adapter that computes exactly their weighted sum.

The average of A and B of two adapters is not the average of what they do: `mean(B) @ mean(A)` has terms of
one adapter's B with the other's A. Side by side they have none: `[w1 s1 B1 | w2 s2 B2] @ [A1 ; A2]`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tunebook.errors import TunebookError
from tunebook.merging.tensors import LowRank, Stack, Tensor, average

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tunebook.merging.adapters import Adapter
    from tunebook.merging.weights import TensorSource

_PREFIX = "base_model.model."


def stack_adapters(
    adapters: Sequence[Adapter], weights: Sequence[float], config: Mapping[str, Any]
) -> tuple[list[Tensor], dict[str, Any]]:
    """Plan the tensors and the `adapter_config.json` of the sum; its ranks are the sums of ranks.

    Args:
        adapters: With the same layers, as `differences` has proved.
        weights: One for each, summing to one.
        config: The first adapter's configuration.

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
        # With alpha = rank the scale is one: each adapter's own stands in its part of B.
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
