"""What stays on a GPU from step to step: weights, gradients, optimizer states; how ZeRO divides them."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from tunebook.memory.options import Setup
    from tunebook.memory.shapes import Shape

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
