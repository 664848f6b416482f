"""Figures of a timed training: speed, share of waiting for data, and model FLOPs utilisation."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tunebook.bench.devices import peak_flops

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tunebook.memory.shapes import Shape


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """What one short training says; None for what cannot be known."""

    steps: int
    """Those counted; the first ones, in which kernels are chosen and memory is taken, are left out."""
    step_seconds: float
    """Median."""
    step_seconds_p90: float
    tokens_per_second: float
    """Tokens that are no padding, of all ranks."""
    rows_per_second: float
    loading_share: float
    """Of the time, from 0 to 1: waiting for the data loader."""
    attention: str | None
    device: str
    ranks: int
    peak_allocated_bytes: int | None
    """Of the first rank's GPU, by torch's allocator."""
    peak_reserved_bytes: int | None
    peak_resident_bytes: int
    """Host memory of the first rank's process."""
    flops_per_token: float | None
    mfu: float | None
    """Model FLOPs utilisation, from 0 to 1, of the device's dense bf16 peak."""


def figures_of(found: Mapping[str, Any], *, warmup: int, shape: Shape | None, full: bool) -> Figures:
    """Work out the figures of what `hooks.timing` has left.

    Args:
        found: Its JSON.
        warmup: Steps to leave out at the beginning.
        shape: The model, or None where its architecture is not known.
        full: Whether all weights are trained: without, no gradient of frozen weights is computed.

    Raises:
        ValueError: No step is left.
    """
    steps = found["steps"][warmup:]
    if not steps:
        raise ValueError(f"{len(found['steps'])} steps were made, and {warmup} of them are left out")
    seconds = [step["seconds"] for step in steps]
    total, tokens = sum(seconds), sum(step["tokens"] for step in steps)
    rows = found["rows_per_step"] * len(steps)
    per_token = None
    # Of a mixture of experts a token meets a few only, and the shape says how many there are.
    if (
        shape is not None
        and tokens
        and not any(one.copies > 1 for block in shape.blocks for one in block.linears)
    ):
        per_token = flops_per_token(shape, length=tokens / rows, full=full)
    peak = peak_flops(found["device"])
    speed = tokens / total
    return Figures(
        steps=len(steps),
        step_seconds=statistics.median(seconds),
        step_seconds_p90=sorted(seconds)[min(len(seconds) - 1, int(0.9 * len(seconds)))],
        tokens_per_second=speed,
        rows_per_second=rows / total,
        loading_share=sum(step["loading"] for step in steps) / total,
        attention=found["attention"],
        device=found["device"],
        ranks=found["ranks"],
        peak_allocated_bytes=found["peak_allocated_bytes"],
        peak_reserved_bytes=found["peak_reserved_bytes"],
        peak_resident_bytes=found["peak_resident_bytes"],
        flops_per_token=per_token,
        mfu=None if peak is None or per_token is None else speed * per_token / (peak * found["ranks"]),
    )


def flops_per_token(shape: Shape, *, length: float, full: bool) -> float:
    """Floating-point operations of the model for one token of training, recomputation not counted.

    Two for each weight in the forward pass, two for the gradient of what comes in, and two for that of the
    weight where it is trained; attention adds the same for its two products over, on average, half the row.

    Args:
        shape: The model.
        length: Tokens of a row, on average.
        full: Whether all weights are trained.

    Source: Chowdhery et al., "PaLM", 2022, appendix B (https://arxiv.org/abs/2204.02311), which counts the
    whole row for attention; causal kernels compute half.
    """
    weights = shape.linear_params + (shape.head_params or shape.embedding_params)
    width = sum(block.count * block.query_width for block in shape.blocks if block.attention)
    passes = 6 if full else 4
    # Two products (scores, values), two operations each, half the row: 2 * width * length a forward pass.
    return passes * weights + 3 * 2 * width * length
