"""The key-value cache of a causal language model, layer by layer, from its `config.json`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from tunebook.memory.shapes import attention_widths

if TYPE_CHECKING:
    from collections.abc import Mapping

_STATE_BYTES = 4
"""Recurrent states are kept in fp32."""
_GROWING = frozenset({"full_attention", "sliding_attention", "chunked_attention", "attention"})
"""Layers whose cache is keys and values of single tokens, so that a prompt may be read in pieces."""


class CachedLayers(NamedTuple):
    """Equal layers of a cache."""

    layers: int
    elements: int
    """Elements of keys and values per token."""
    window: int | None
    """Tokens kept at most; None for all of them."""
    state: int
    """Elements per row that do not depend on its length: the state of linear attention."""


def cached_layers(config: Mapping[str, Any]) -> list[CachedLayers]:
    """Read what each kind of layer keeps for the tokens it has seen.

    Args:
        config: A Hugging Face `config.json`, or `model.config.to_dict()`. Of a vision-language model the
            text part is read.

    Raises:
        KeyError: A size is missing.
    """
    config = _text_part(config)
    kinds = layer_kinds(config)
    shared = int(config.get("num_kv_shared_layers") or 0)
    kinds = kinds[: len(kinds) - shared] if shared else kinds
    found = []
    for kind in dict.fromkeys(kinds):
        if kind in _GROWING:
            window = None
            if kind == "sliding_attention":
                window = int(config["sliding_window"])
            elif kind == "chunked_attention":
                window = int(config["attention_chunk_size"])
            found.append(CachedLayers(kinds.count(kind), _elements(config), window, 0))
        else:
            found.append(CachedLayers(kinds.count(kind), 0, None, _state(config)))
    return found


def cache_bytes(config: Mapping[str, Any], *, rows: int, tokens: int, element: float = 2.0) -> float:
    """Bytes of the cache: 2 x layers x key-value heads x head size x element x tokens x rows.

    A layer with a sliding window keeps its window alone, one of linear attention a state of fixed size.

    Args:
        tokens: Per row, prompt and answer together, padding included.
        element: Bytes of one key or value; 2 in bf16 and fp16.

    >>> qwen3_4b = {"model_type": "qwen3", "num_hidden_layers": 36, "hidden_size": 2560,
    ...             "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128}
    >>> cache_bytes(qwen3_4b, rows=1, tokens=200_000) / 1e9
    29.4912
    """
    total = 0.0
    for layers in cached_layers(config):
        kept = tokens if layers.window is None else min(tokens, layers.window)
        total += layers.layers * rows * (layers.elements * kept * element + layers.state * _STATE_BYTES)
    return total


def largest_layer(config: Mapping[str, Any], *, rows: int, tokens: int, element: float = 2.0) -> float:
    """Bytes of the largest single layer of the cache: what is copied when the cache grows by a piece."""
    return max(
        rows * layers.elements * element * (tokens if layers.window is None else min(tokens, layers.window))
        for layers in cached_layers(config)
    )


def reads_in_pieces(config: Mapping[str, Any]) -> bool:
    """Whether a prompt may be read piece by piece.

    Layers of linear attention hold a state: transformers 5.5 begins it anew with each piece that has more
    than one token, without a word, so such models read their prompts whole.
    """
    return all(kind in _GROWING for kind in layer_kinds(_text_part(config)))


def has_window(config: Mapping[str, Any], tokens: int) -> bool:
    """Whether some layer sees less than `tokens` tokens."""
    return any(layers.window is not None and layers.window < tokens for layers in cached_layers(config))


def layer_kinds(config: Mapping[str, Any]) -> list[str]:
    """The kind of each layer, as `layer_types` names it or as the library would fill it in.

    >>> layer_kinds({"model_type": "gemma2", "num_hidden_layers": 2, "sliding_window": 4096})
    ['sliding_attention', 'full_attention']
    """
    if config.get("layer_types"):
        return [str(kind) for kind in config["layer_types"]]
    layers = int(config.get("num_hidden_layers") or config["n_layer"])
    kind = str(config.get("model_type") or "")
    if kind.startswith(("qwen3_next", "qwen3_5")):
        every = int(config.get("full_attention_interval") or 4)
        return ["linear_attention" if (layer + 1) % every else "full_attention" for layer in range(layers)]
    if any(
        config.get(key) for key in ("mamba_d_state", "ssm_state_size", "state_size", "attn_layer_indices")
    ):
        return ["recurrent"] * layers
    every = {"gemma2": 2, "gemma3_text": 6, "gemma3": 6, "cohere2": 4, "olmo3": 4}.get(kind, 0)
    every = int(config.get("sliding_window_pattern") or every)
    if every and config.get("sliding_window"):
        return ["sliding_attention" if (layer + 1) % every else "full_attention" for layer in range(layers)]
    if kind.startswith("qwen"):
        if not config.get("use_sliding_window"):
            return ["full_attention"] * layers
        first = int(config.get("max_window_layers") or 0)
        return ["sliding_attention" if layer >= first else "full_attention" for layer in range(layers)]
    return ["sliding_attention" if config.get("sliding_window") else "full_attention"] * layers


def _text_part(config: Mapping[str, Any]) -> Mapping[str, Any]:
    inner = config.get("text_config") or config.get("llm_config")
    if not isinstance(inner, dict) or "hidden_size" not in inner:
        return config
    # A composite model may leave the kind of its text part to the library's default.
    return {**inner, "model_type": inner.get("model_type") or f"{config.get('model_type', '')}_text"}


def _elements(config: Mapping[str, Any]) -> int:
    if config.get("kv_lora_rank"):
        # Latent attention: the library caches keys and values of all heads, unfolded.
        sizes = (int(config[f"{part}_head_dim"]) for part in ("qk_rope", "qk_nope", "v"))
        return int(config["num_attention_heads"]) * sum(sizes)
    return 2 * attention_widths(config)[2]


def _state(config: Mapping[str, Any]) -> int:
    """Elements of the recurrent and the convolution state of a layer of gated delta net; 0 of other kinds."""
    if "linear_num_value_heads" not in config:
        return 0
    keys = int(config["linear_num_key_heads"]) * int(config["linear_key_head_dim"])
    values = int(config["linear_num_value_heads"]) * int(config["linear_value_head_dim"])
    convolution = (2 * keys + values) * int(config.get("linear_conv_kernel_dim") or 4)
    return values * int(config["linear_key_head_dim"]) + convolution
