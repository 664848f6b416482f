"""What the forward pass leaves for the backward pass, and the peak of the layer that is being recomputed."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from tunebook.memory.options import Setup
    from tunebook.memory.shapes import Block, Shape

EAGER_PEAK = 14
"""Bytes per score at the peak: fp16 scores, fp32 softmax, its fp16 copy, and the gradients of these; 2 more
under autocast, for one more cast."""
EAGER_KEPT = 6
"""Bytes per score that a layer keeps without checkpointing: the fp32 softmax and its copy."""
AUTOCAST = 1.65
"""A layer under autocast with fp32 hidden states, against one in bf16: norms and casts are kept twice."""

NO_FLASH = frozenset({"chatglm"})
"""Architectures whose own modelling file makes the scores whatever kernel is asked for."""


class Activations(NamedTuple):
    """Bytes per GPU."""

    kept: float
    """Held from forward to backward by all layers."""
    layer: float
    """The live tensors of one layer in its backward pass, beside `kept`."""
    host: float
    """Checkpoints moved to host memory, for this GPU."""


def activations(shape: Shape, setup: Setup) -> Activations:
    """Activation memory of one micro-batch, after Korthikanti et al. (arXiv:2205.05198).

    With checkpointing (arXiv:1604.06174) each layer keeps its input; the backward pass rebuilds one layer.
    """
    wide = setup.dtype == "fp32"
    residual = 4 if _fp32_residual(setup) else 2
    worst = max(layer_bytes(block, shape, setup, wide=wide) for block in shape.blocks)
    scores = max(_scores(block, shape, setup) for block in shape.blocks)
    peak = EAGER_PEAK + (2 if _fp32_residual(setup) else 0)
    if setup.checkpointing:
        kept = float(setup.tokens * shape.hidden * residual * shape.layers)
        if "activations" in setup.offload:
            return Activations(0.0, worst + peak * scores, kept)
        return Activations(kept, worst + peak * scores, 0.0)
    kept = sum(
        block.count * (kept_bytes(block, shape, setup, wide=wide) + EAGER_KEPT * _scores(block, shape, setup))
        for block in shape.blocks
    )
    return Activations(kept, 0.25 * worst + (peak - EAGER_KEPT) * scores, 0.0)


def layer_bytes(block: Block, shape: Shape, setup: Setup, *, wide: bool) -> float:
    """Live tensors of one layer in its backward pass, attention scores left out."""
    mlp = (4 if block.gated else 3) * block.mlp_width
    elements = 8 * shape.hidden + 3 * block.query_width + 4 * block.key_width + mlp
    if setup.fused_ce in {"liger", "cce"} and "activations" not in setup.offload:
        # Liger's norm, rotary and SwiGLU kernels work in place and rebuild what the plain ones keep
        # (arXiv:2410.10989, section 3).
        elements = block.query_width + 2 * block.key_width + 3 * block.mlp_width
    autocast = AUTOCAST if _fp32_residual(setup) and not wide else 1.0
    return float(setup.tokens) * elements * (4 if wide else 2) * autocast


def kept_bytes(block: Block, shape: Shape, setup: Setup, *, wide: bool) -> float:
    """What one layer keeps without checkpointing, attention scores left out."""
    mlp = (4 if block.gated else 3) * block.mlp_width
    # Two norms in fp32 (8 bytes per element), their outputs, the attention's and the residual's halves.
    elements = 6 * shape.hidden + 2 * block.query_width + 2 * block.key_width + mlp
    if setup.fused_ce in {"liger", "cce"}:
        elements = 4 * shape.hidden + 2 * block.query_width + 2 * block.key_width + 3 * block.mlp_width
    autocast = 1.2 if _fp32_residual(setup) and not wide else 1.0
    return float(setup.tokens) * elements * (4 if wide else 2) * autocast


def _fp32_residual(setup: Setup) -> bool:
    """Whether hidden states between layers are fp32: fp32 norms or embeddings hand them on so."""
    return setup.dtype in {"fp32", "amp"} or (setup.upcast and not (setup.bits or "").startswith("gptq"))


def _scores(block: Block, shape: Shape, setup: Setup) -> float:
    """Elements of the attention scores of one layer, where they are made at all."""
    if not block.attention or (setup.attention != "eager" and shape.model_type not in NO_FLASH):
        return 0.0
    return float(shape.heads) * setup.seq_len**2 * setup.micro_batch
