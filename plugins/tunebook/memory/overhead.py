"""What is on a GPU beside tensors: CUDA context, communication buffers, the allocator's unused blocks."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tunebook.memory.options import Setup
    from tunebook.memory.shapes import Shape

CONTEXT = 0.5e9
"""Bytes of the CUDA context and libraries on an A100 or later."""
CONTEXT_FP16 = 0.15e9
"""The same on a T4; cards older than Ampere are the ones that train in fp16."""
NCCL = 0.8e9
"""Bytes of NCCL's channels, for more than one GPU."""
SLACK = {"flash": 0.18, "sdpa": 0.18, "eager": 0.33}
"""Share of the moving tensors that the caching allocator holds unused, by attention kernel."""
LOOSE, LOOSE_TOKENS = 0.7, 2048
"""The same for adapters in bf16 under checkpointing, of as many tokens at most: rows of changing length
leave gaps that nothing fits into. Fitted to runs on rows of one length, which leave fewer, and of many."""
STEADY = 0.08
"""Share of the moving tensors that the caching allocator holds unused without checkpointing, where nothing is
allocated twice."""


def context(setup: Setup) -> float:
    """Bytes of context and communication."""
    return (CONTEXT_FP16 if setup.dtype == "fp16" else CONTEXT) + (NCCL if setup.gpus > 1 else 0.0)


def slack(moving: float, setup: Setup) -> float:
    """Bytes that the caching allocator reserves and does not use, for `moving` bytes of short-lived tensors.

    Very long rows are few large blocks, which fit without gaps: the share falls off beyond 32k tokens.
    """
    share = SLACK[setup.attention] if setup.checkpointing or setup.attention == "eager" else STEADY
    # Full training's optimizer step leaves blocks that serve again; fp16 was measured on rows of one length.
    if setup.checkpointing and not setup.full and setup.dtype == "bf16" and setup.attention != "eager":
        share = max(share, LOOSE * min(1.0, LOOSE_TOKENS / setup.tokens))
    return share * moving * min(1.0, (32768 / setup.tokens) ** 2)


def buffers(shape: Shape, setup: Setup, trainable: int) -> float:
    """Bytes of ZeRO's buckets and gathered parameters, and of the matrix that is being dequantised."""
    total = 0.0
    if setup.bits is not None:
        total += 2.0 * shape.largest_matrix
    if setup.zero_stage in (1, 2) and setup.gpus > 1:
        total += 2 * 2 * min(trainable, 5e8)
    if setup.zero_stage == 3:
        # Gathered at once: DeepSpeed's stage3_max_live_parameters, two layers at the least.
        layer = max(block.params for block in shape.blocks)
        total += (
            2 * min(shape.params, max(1e9, 2 * layer))
            if setup.gpus > 1 or "parameters" in setup.offload
            else 0
        )
    return total
