"""Memory of reading a prompt and of answering it, without training: the two passes of an evaluation."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from tunebook.memory.caches import cache_bytes, has_window, largest_layer, reads_in_pieces

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
    """Part of `cache` and of `layer`, told for `on_host`."""

    def on_host(self) -> PassMemory:
        """The same with keys and values in host memory; those of one layer and the next stay on the GPU."""
        return replace(self, cache=0.0, layer=self.layer + self.largest_layer, largest_layer=0.0)

    @property
    def total(self) -> float:
        """The sum."""
        return self.cache + self.layer + self.attention + self.logits


def piece(rows: int, tokens: int) -> int | None:
    """Tokens of each row that are read at a time; None to read the batch in one piece.

    A function of the batch alone and not of the machine, so that an evaluation can be repeated.

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
    """Live tensors of the widest layer: half of what `activations` counts for its backward pass."""
    widest = max(
        8 * shape.hidden
        + 3 * block.query_width
        + 4 * block.key_width
        + (4 if block.gated else 3) * block.mlp_width
        for block in shape.blocks
    )
    return tokens * widest * element / 2


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
