"""Memory of reading a prompt and of answering it, without training: the two passes of an evaluation."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

from tunebook.memory.shapes import attention_widths, text_part

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tunebook.memory.shapes import Shape


WHOLE_UP_TO = 32_768
"""Tokens of a batch, padding included, up to which it is read in one piece."""
PIECE_TOKENS = 2_048
"""Tokens of all rows that are read at a time beyond that. Enough to keep matrices busy; with the sdpa kernel
each of them costs a line of the mask, as long as all tokens so far."""
SMALLEST_PIECE = 256
"""Tokens of each row, however many rows there are."""
LOGITS_AT_A_TIME = 2**27
"""Logits that the output head makes at a time: 256 MiB in bf16, 512 MiB in fp32; 883 positions of Qwen3."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PassMemory:
    """Bytes of one batch beside the weights."""

    cache: float
    """Keys and values of all layers."""
    layer: float
    """The live tensors of one layer, and the copy of its cache that grows."""
    attention: float
    """Mask, repeated keys and values, or scores of one layer, as the kernel needs them."""
    logits: float
    largest_layer: float = 0.0
    """Part of `cache` and of `layer`, which `on_host` needs."""

    def on_host(self) -> PassMemory:
        """The same with keys and values in host memory; those of one layer and the next stay on the GPU."""
        return replace(self, cache=0.0, layer=self.layer + self.largest_layer, largest_layer=0.0)

    @property
    def total(self) -> float:
        """The sum."""
        return self.cache + self.layer + self.attention + self.logits


def piece(rows: int, tokens: int) -> int | None:
    """Tokens of each row that are read at a time; None to read the batch in one piece.

    It depends on the batch only and not on the machine, so that an evaluation can be repeated.

    >>> piece(1, 200_000), piece(4, 50_000), piece(16, 512)
    (2048, 512, None)
    """
    return None if rows * tokens <= WHOLE_UP_TO else max(SMALLEST_PIECE, PIECE_TOKENS // rows)


def generation_memory(
    shape: Shape,
    config: Mapping[str, Any],
    *,
    rows: int,
    prompt: int,
    new_tokens: int,
    attention: str,
    padded: bool,
    element: float = 2.0,
) -> PassMemory:
    """Memory of generating for one batch, with its prompt read in pieces where the model allows it.

    Args:
        prompt: Tokens of the longest prompt of the batch.
        attention: `flash`, `sdpa` or `eager`.
        padded: The rows differ in length. The sdpa kernel then needs a mask, and keys for every query head.
        element: Bytes of an activation and of a cached key.
    """
    step = (piece(rows, prompt) if reads_in_pieces(config) else None) or prompt
    total = prompt + new_tokens
    masked = padded or step < prompt or has_window(config, total)
    copy = largest_layer(config, rows=rows, tokens=total, element=element)
    return PassMemory(
        cache=cache_bytes(config, rows=rows, tokens=total, element=element),
        layer=_layer(shape, rows * step, element) + copy,
        attention=_attention(shape, rows, step, total, attention, masked, element),
        logits=rows * shape.vocab * (element + 4),
        largest_layer=copy,
    )


def answer_memory(
    shape: Shape,
    config: Mapping[str, Any],
    *,
    rows: int,
    tokens: int,
    answer_tokens: int,
    step: int | None,
    attention: str,
    padded: bool,
    element: float = 2.0,
) -> PassMemory:
    """Memory of one batch of the answer pass: whole (`step` None), or `step` tokens of each row at a time.

    Whole, it needs the activations of one layer for all tokens and no cache; in pieces, those of a piece and
    the cache of all layers. Which is less depends on the model.
    """
    pieces = step is not None and step < tokens
    read = step if step is not None and pieces else tokens
    masked = padded or pieces or has_window(config, tokens)
    logits = min(rows * answer_tokens * shape.vocab, LOGITS_AT_A_TIME)
    copy = largest_layer(config, rows=rows, tokens=tokens, element=element) if pieces else 0.0
    return PassMemory(
        cache=cache_bytes(config, rows=rows, tokens=tokens, element=element) if pieces else 0.0,
        layer=_layer(shape, rows * read, element) + copy,
        attention=_attention(shape, rows, read, tokens, attention, masked, element),
        logits=logits * (element + 4),
    )


def answer_piece(
    shape: Shape, config: Mapping[str, Any], *, rows: int, tokens: int, attention: str, padded: bool
) -> int | None:
    """Tokens of each row that the answer pass reads at a time; None where whole takes less memory.

    With a flash kernel, Qwen3-4B reads 200,000 tokens whole: 15 GB for a layer, against 29 GB of cache.
    Gemma 3, most of whose layers keep a window, reads them in pieces.
    """
    step = piece(rows, tokens)
    if step is None or not reads_in_pieces(config):
        return None
    whole, pieces = (
        answer_memory(
            shape, config, rows=rows, tokens=tokens, answer_tokens=1, step=choice, attention=attention,
            padded=padded,
        ).total
        for choice in (None, step)
    )  # fmt: skip
    return step if pieces < whole else None


def _layer(shape: Shape, tokens: int, element: float) -> float:
    """Live tensors of the widest layer: half of what its backward pass holds."""
    return tokens * max(block.live_elements(shape.hidden) for block in shape.blocks) * element / 2


def _attention(
    shape: Shape, rows: int, queries: int, keys: int, attention: str, masked: bool, element: float
) -> float:
    scores = float(rows) * queries * keys
    if attention == "eager":
        # Scores, their fp32 softmax, its copy in the model's type.
        return scores * shape.heads * (2 * element + 4)
    if attention == "sdpa" and masked:
        width = max(block.query_width for block in shape.blocks)
        # The mask as booleans and as numbers; keys and values repeated for every query head.
        return scores * (1 + element) + 2.0 * rows * keys * width * element
    return 0.0


# The key-value cache of a causal language model, layer by layer, from its `config.json`.

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
    config = text_part(config)
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

    A layer with a sliding window keeps only its window, one of linear attention a state of fixed size.

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
    return all(kind in _GROWING for kind in layer_kinds(text_part(config)))


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
