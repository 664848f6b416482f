"""What the forward pass leaves for the backward pass, and the peak of the layer that is being recomputed."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, NamedTuple

from tunebook.errors import TunebookError
from tunebook.memory.inference import LOGITS_AT_A_TIME

if TYPE_CHECKING:
    from tunebook.memory.options import Setup
    from tunebook.memory.shapes import Block, Linear, Shape


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
    elements = block.live_elements(shape.hidden)
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


# The output head: its logits are the largest tensor of most fine-tuning runs.

TRAINING = 14
"""Bytes per logit: bf16 logits 2, their fp32 copy 4, log-softmax 4, gradient 4."""
EVALUATION_HALF = 2
"""Bytes per logit in evaluation: the head's own output."""
EVALUATION_FLOAT = 4
"""Bytes per logit in evaluation: the fp32 copy for the loss."""


def training_logits(shape: Shape, setup: Setup) -> float:
    """Bytes of the logits and their loss at the peak of a training step.

    Plain cross-entropy takes 14 bytes per logit, 16 with an fp32 head. Liger's fused loss (arXiv:2410.10989)
    takes chunks of tokens; cut cross-entropy (arXiv:2411.09009) makes no logits at all.
    """
    tokens, vocab, hidden = setup.tokens, shape.vocab, shape.hidden
    if setup.fused_ce == "cce":
        return 4.0 * tokens * hidden
    if setup.fused_ce == "chunked":
        # torchtune: logits in eight chunks, the bf16 ones whole.
        return 2.0 * tokens * vocab + 4.0 * tokens * vocab / 8
    if setup.fused_ce == "liger":
        chunk = tokens / float(2 ** math.ceil(math.log2(max(vocab / hidden, 1))))
        head_gradient = vocab * hidden * 2 if setup.full else 0
        return chunk * vocab * 6.0 + tokens * hidden * 2.0 + head_gradient
    if setup.bits in {"gptq4", "gptq8"}:
        # These models run in fp16 throughout, the loss too: logits, shifted copy, log-softmax, gradient.
        return 8.0 * tokens * vocab
    fp32_head = setup.upcast or setup.dtype == "fp32"
    return float(TRAINING + (2 if fp32_head else 0)) * tokens * vocab


def evaluation_logits(
    shape: Shape, *, rows: int, seq_len: int, answer_tokens: int | None
) -> tuple[float, float]:
    """Bytes of the logits of one evaluation batch: the head's output, and its fp32 copy for the loss.

    Args:
        rows: `per_device_eval_batch_size`.
        answer_tokens: Positions of a row that the head is run on; None for all, as the engines do.
    """
    if answer_tokens is None:
        logits = rows * seq_len * shape.vocab
    else:
        # The head runs on a bounded number of answer positions at a time.
        logits = min(rows * min(answer_tokens, seq_len) * shape.vocab, LOGITS_AT_A_TIME)
    return float(logits * EVALUATION_HALF), float(logits * EVALUATION_FLOAT)


# What is on a GPU beside tensors: CUDA context, communication buffers, the allocator's unused blocks.

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


# What stays on a GPU from step to step: weights, gradients, optimizer states; how ZeRO divides them.

_QUANTISED = {
    # bitsandbytes: half a byte and one fp32 scale for 64 weights; with double quantisation the scale takes
    # 1/64 byte and a little (QLoRA, arXiv:2305.14314, section 3).
    "nf4": 0.5 + 4 / 64, "nf4-dq": 0.5 + 1 / 64 + 4 / (64 * 256),
    # LLM.int8() (arXiv:2208.07339): a byte, and one scale for each output row.
    "int8": 1.0,
    # GPTQ and AWQ, groups of 128: a scale in fp16 and a zero point for each group.
    "gptq4": 0.52, "gptq8": 1.02, "2bit": 0.28,
}  # fmt: skip
ELEMENT = {"bf16": 2, "fp16": 2, "fp32": 4, "amp": 4}
"""Bytes of one weight, by `Setup.dtype`."""


class States(NamedTuple):
    """Bytes per GPU; `host` in host memory, for all GPUs together."""

    weights: float
    adapters: float
    gradients: float
    optimizer: float
    step: float
    """Temporary tensors of the optimizer step; they are gone when activations are at their peak."""
    host: float


def weight_bytes(shape: Shape, setup: Setup) -> float:
    """Bytes of the whole model's weights as they are held in training, undivided."""
    element = ELEMENT[setup.dtype] if setup.full else min(ELEMENT[setup.dtype], 4)
    if setup.bits is None:
        return float(shape.params * element)
    rest = shape.params - shape.linear_params
    return shape.linear_params * _QUANTISED[setup.bits] + rest * (4 if setup.upcast else element)


def optimizer_bytes(shape: Shape, setup: Setup, element: int) -> float:
    """Bytes of optimizer state for one parameter, averaged over the model.

    Args:
        element: Bytes of the parameter that is trained; states are held in its type.
    """
    name = setup.optimizer.removeprefix("paged-")
    if name.endswith("8"):
        # One byte each, and an fp32 scale for a block of 256 (arXiv:2110.02861).
        return {"adam8": 2.0, "lion8": 1.0}.get(name, 2.0) * (1 + 4 / 256)
    if name in {"galore", "apollo"} and setup.full:
        # Moments of rank 128 (arXiv:2403.03507); embeddings and head keep whole ones.
        outside = 1 - shape.linear_params / shape.params
        return 2 * element * (outside + (1 - outside) * 128 * 1.5 / shape.hidden)
    per_element = {"adam": 2, "lion": 1, "sgdm": 1, "sgd": 0, "adafactor": 0.01, "lomo": 0, "badam": 2}
    return per_element.get(name, 2) * element


def states(shape: Shape, setup: Setup, trainable: int, whole: int = 0) -> States:
    """Weights, gradients and optimizer states per GPU (ZeRO, arXiv:1910.02054, section 3).

    Args:
        trainable: Parameters that are trained: all, or the adapters'.
        whole: Parameters of embedding and head that are trained beside the adapters.
    """
    share = [1 / setup.gpus if setup.zero_stage >= stage else 1.0 for stage in (3, 2, 1)]
    weights = weight_bytes(shape, setup) * share[0]
    element = ELEMENT[setup.dtype] if setup.full else setup.adapter_bytes
    adapters = 0.0 if setup.full else trainable * element * share[0]
    moved = trainable
    if setup.full and setup.optimizer == "badam":
        # One block of layers is trained at a time, with an fp32 copy (arXiv:2404.02827).
        moved = max(block.params for block in shape.blocks)
    gradients = 0.0 if setup.optimizer == "lomo" else moved * element * share[1]
    held = optimizer_bytes(shape, setup, element)
    step = 0.0
    if setup.zero_stage and element == 2:
        # DeepSpeed keeps an fp32 copy of what it trains; its moments are fp32 too.
        held = 4 + (held if setup.optimizer.endswith("8") else 2 * held)
        step = 6 * min(trainable * share[2], 1.5e9) if setup.full else 0.0
    elif setup.full and setup.optimizer == "badam":
        held = 12.0
    elif setup.full and setup.optimizer in {"adam", "lion"}:
        # torch's multi-tensor step makes one temporary of the size of the parameters.
        step = trainable * element * share[0]
    optimizer = moved * held * share[2]
    if whole:
        # Copies in the model's own type, with gradients, moments and the step's temporary.
        size = ELEMENT[setup.dtype]
        adapters += whole * size * share[0]
        gradients += whole * size * share[1]
        optimizer += whole * optimizer_bytes(shape, setup, size) * share[2]
        step += whole * size * share[2]
    host = 0.0
    if "optimizer" in setup.offload or setup.optimizer.startswith("paged-"):
        # With the states go the fp32 gradients that the host's step reads.
        host += (optimizer + (4 * trainable * share[2] if "optimizer" in setup.offload else 0)) * setup.gpus
        optimizer, step = 0.0, 0.0
        if setup.full and setup.zero_stage >= 2:
            gradients = 0.0
    if "parameters" in setup.offload and setup.zero_stage == 3:
        host += weights * setup.gpus
        weights = 0.0
    return States(weights, adapters, gradients, optimizer, step, host)


# Trainable parameters of LoRA, counted as PEFT counts them.

# Several families fuse what others keep apart: a target of one spelling means the matrix that holds it.
_SAME = (
    {
        "q_proj",
        "k_proj",
        "v_proj",
        "c_attn",
        "query_key_value",
        "qkv_proj",
        "wqkv",
        "w_pack",
        "wq",
        "wk",
        "wv",
        "attn",
    },
    {"o_proj", "out_proj", "dense", "wo", "output_proj", "proj"},
    {"gate_proj", "up_proj", "w1", "w3", "gate_up_proj", "dense_h_to_4h", "fc1", "c_fc", "fc_1", "fc_2"},
    {"down_proj", "w2", "dense_4h_to_h", "fc2"},
)
_EMBEDDINGS = {"embed_tokens", "wte", "embed_in", "word_embeddings", "embedding"}


def count_lora(shape: Shape, setup: Setup) -> int:
    """Count the trainable parameters of LoRA (arXiv:2106.09685): `r * (in + out)` for each adapted matrix.

    DoRA (arXiv:2402.09353) adds one magnitude for each output.

    Raises:
        TunebookError: No matrix of the model has one of the target names.
    """
    total = 0
    for block in shape.blocks:
        for linear in chosen(block.linears, setup.lora_targets):
            each = setup.lora_rank * (linear.inputs + linear.outputs) + (linear.outputs if setup.dora else 0)
            total += block.count * linear.copies * each
    if "lm_head" in {_plain(name) for name in setup.lora_targets or ()} and not embeddings_trained(setup):
        total += setup.lora_rank * (shape.hidden + shape.vocab)
    if not total:
        names = sorted({linear.name for block in shape.blocks for linear in block.linears})
        raise TunebookError(
            f"no layer of {shape.model_type} is called {', '.join(setup.lora_targets or ())}",
            fix=f"its linear layers are {', '.join(names)}",
        )
    return total


def embeddings_trained(setup: Setup) -> bool:
    """Whether the targets name the embedding: it and the head are then trained whole (`modules_to_save`)."""
    return bool({_plain(name) for name in setup.lora_targets or ()} & _EMBEDDINGS)


def chosen(linears: tuple[Linear, ...], targets: tuple[str, ...] | None) -> list[Linear]:
    """Return the matrices that the targets name; None names all."""
    if targets is None:
        return list(linears)
    if any(set("()[]*|\\") & set(name) for name in targets):
        # PEFT matches a single string with the whole path of a module, as a regular expression.
        return [linear for linear in linears if any(_matches(pattern, linear.name) for pattern in targets)]
    plain = {_plain(name) for name in targets}
    own = {linear.name.lower() for linear in linears}
    for group in _SAME:
        if plain & group and not plain & group & own:
            plain |= group
    return [linear for linear in linears if linear.name.lower() in plain]


def _matches(pattern: str, name: str) -> bool:
    paths = (
        f"{root}layers.0.{part}{name}"
        for root in ("model.", "model.language_model.", "language_model.model.", "")
        for part in ("self_attn.", "mlp.", "")
    )
    return any(re.fullmatch(pattern, path) for path in (name, *paths))


def _plain(name: str) -> str:
    return name.rsplit(".", 1)[-1].lower()
