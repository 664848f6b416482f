"""Adds the terms up: GPU memory of one training step and of one evaluation batch, before a run."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Unpack

from tunebook.memory.families import read_shape
from tunebook.memory.inference import generation_memory, piece, reads_in_pieces
from tunebook.memory.options import read_setup, signature_of
from tunebook.memory.terms import (
    ELEMENT,
    activations,
    buffers,
    context,
    count_lora,
    embeddings_trained,
    evaluation_logits,
    slack,
    states,
    training_logits,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tunebook.memory.options import Arguments, Setup
    from tunebook.memory.shapes import Shape

GIB = 2**30
LOW, HIGH = 0.85, 1.25
"""The interval around the total: 86 % of published measurements fall into it (docs/memory.md)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryEstimate:
    """GPU memory of one set-up."""

    terms: Mapping[str, float]
    """Bytes per GPU by name; they add up to `total`."""
    total: float
    """Bytes per GPU that the process holds at its peak: tensors, the allocator's unused blocks, context."""
    low: float
    high: float
    host: float
    """Bytes of host memory for what is offloaded, all GPUs of the machine together."""
    params: int
    trainable: int
    adapter_file: int
    """Bytes of `adapter_model.safetensors`; 0 in full fine-tuning."""
    optimizer_file: int
    """Bytes of the saved optimizer states, all ranks together."""

    @property
    def gb(self) -> float:
        """The total in GB, 10^9 bytes."""
        return self.total / 1e9

    @property
    def gib(self) -> float:
        """The total in GiB, 2^30 bytes: what `nvidia-smi` calls by its MiB."""
        return self.total / GIB

    def fits(self, gpu_gb: float, margin: float = 0.0) -> bool:
        """Whether it fits a card of `gpu_gb` GiB, as cards are sold, with `margin` of it kept free."""
        return self.total <= gpu_gb * GIB * (1 - margin)


def estimate(config: Mapping[str, Any], **arguments: Unpack[Arguments]) -> MemoryEstimate:
    """Estimate the memory of one training step.

    Args:
        config: A Hugging Face `config.json`.
        **arguments: See `tunebook.memory.Arguments`: method, quantization, seq_len, micro_batch, gpus,
            zero_stage, gradient_checkpointing, attention, optimizer, fused_ce, offload, lora_rank,
            lora_targets, dtype, adapter_bytes, upcast.

    Raises:
        TunebookError: The architecture or one of the words is not known.
        TypeError: There is no argument of such a name.
    """
    return estimate_setup(read_shape(config), read_setup(**arguments))


# `help` and whoever fills in a table by names see the arguments one by one.
estimate.__signature__ = signature_of(estimate)  # type: ignore[attr-defined]


def estimate_setup(shape: Shape, setup: Setup) -> MemoryEstimate:
    """As `estimate`, for what has been read already."""
    trainable, whole = _trainable(shape, setup)
    held = states(shape, setup, trainable, whole)
    acts = activations(shape, setup)
    head = training_logits(shape, setup)
    # The peak is in the loss, in a layer's backward pass or in the optimizer's step: never in two at once.
    backward = max(acts.layer, head)
    moving = acts.kept + backward
    step = max(0.0, held.step - moving)
    terms = {
        "weights": held.weights,
        "adapters": held.adapters,
        "gradients": held.gradients,
        "optimizer": held.optimizer,
        "activations": acts.kept,
        "layer": backward if acts.layer >= head else 0.0,
        "logits": backward if head > acts.layer else 0.0,
        "optimizer step": step,
        "buffers": buffers(shape, setup, trainable),
        "allocator": slack(moving, setup),
        "context": context(setup),
    }
    total = sum(terms.values())
    return MemoryEstimate(
        terms=terms,
        total=total,
        low=total * LOW,
        high=total * HIGH,
        host=held.host + acts.host * setup.gpus,
        params=shape.params,
        trainable=trainable + whole,
        adapter_file=0 if setup.full else trainable * setup.adapter_bytes + whole * ELEMENT[setup.dtype],
        optimizer_file=_optimizer_file(shape, setup, trainable, whole),
    )


def _trainable(shape: Shape, setup: Setup) -> tuple[int, int]:
    """Return what is trained in the method's way, and what is trained whole beside adapters."""
    if setup.full:
        return shape.params, 0
    whole = shape.embedding_params + shape.head_params if embeddings_trained(setup) else 0
    return count_lora(shape, setup), whole


def _optimizer_file(shape: Shape, setup: Setup, trainable: int, whole: int) -> int:
    one_gpu = replace(setup, gpus=1, offload=frozenset(), optimizer=setup.optimizer.removeprefix("paged-"))
    return int(states(shape, one_gpu, trainable, whole).optimizer)


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationEstimate:
    """Bytes per GPU of one evaluation batch within a training run."""

    resident: float
    """Weights, adapters and optimizer states, which stay; gradients are released."""
    layer: float
    logits: float
    """The head's output, in the model's type."""
    logits_float: float
    """Its fp32 copy for the loss."""
    context: float
    cache: float = 0.0
    """Keys and values of the tokens read and written."""
    attention: float = 0.0
    """Mask and repeated keys, as the kernel needs them."""
    optimizer: float = 0.0
    """The part of `resident` that an evaluation after training does not hold."""
    read_at_a_time: int | None = None
    """Tokens of each row that are read at a time; None: all of them."""

    @property
    def total(self) -> float:
        """The sum."""
        moving = self.layer + self.cache + self.attention + self.logits + self.logits_float
        return self.resident + moving + self.context

    @property
    def after_training(self) -> float:
        """The same without the optimizer's states: what `tunebook eval` holds."""
        return self.total - self.optimizer


def evaluate_setup(
    shape: Shape, setup: Setup, *, rows: int, answer_tokens: int | None = None
) -> EvaluationEstimate:
    """Estimate one evaluation batch during training.

    Args:
        rows: `per_device_eval_batch_size`.
        answer_tokens: Positions of a row that the head is run on; None for all, as the engines do.
    """
    trainable, whole = _trainable(shape, setup)
    held = states(shape, setup, trainable, whole)
    batch = replace(setup, micro_batch=rows, checkpointing=True)
    half, full = evaluation_logits(shape, rows=rows, seq_len=setup.seq_len, answer_tokens=answer_tokens)
    return EvaluationEstimate(
        resident=held.weights + held.adapters + held.optimizer,
        # Without a backward pass a layer frees as it goes: about half of what training holds.
        layer=activations(shape, batch).layer / 2,
        logits=half,
        logits_float=full,
        context=context(setup),
        optimizer=held.optimizer,
    )


def generate_setup(
    shape: Shape, config: Mapping[str, Any], setup: Setup, *, rows: int, new_tokens: int
) -> EvaluationEstimate:
    """Estimate generating for one batch of prompts at the length limit.

    Args:
        config: The model's `config.json`, for the windows of its layers.
        rows: Prompts of a batch.
        new_tokens: Of an answer; the prompts fill what it leaves of the length limit.
    """
    trainable, whole = _trainable(shape, setup)
    held = states(shape, setup, trainable, whole)
    prompt = max(1, setup.seq_len - new_tokens)
    found = generation_memory(
        shape,
        config,
        rows=rows,
        prompt=prompt,
        new_tokens=new_tokens,
        attention=setup.attention,
        padded=rows > 1,
    )
    return EvaluationEstimate(
        resident=held.weights + held.adapters + held.optimizer,
        layer=found.layer,
        logits=found.logits / 3,
        logits_float=found.logits * 2 / 3,
        context=context(setup),
        cache=found.cache,
        attention=found.attention,
        optimizer=held.optimizer,
        read_at_a_time=piece(rows, prompt) if reads_in_pieces(config) else None,
    )
