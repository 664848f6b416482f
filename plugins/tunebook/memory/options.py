"""One training set-up in canonical words, and how it is read from arguments."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tunebook.errors import TunebookError
from tunebook.memory import spellings


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """One training set-up in canonical words."""

    full: bool
    """All weights are trained; False: adapters are."""
    dora: bool
    bits: str | None
    """nf4, nf4-dq, int8, gptq4, gptq8, 2bit, or None for weights that are not quantised."""
    upcast: bool
    """Norms, embeddings and head are held in fp32 (PEFT's `prepare_model_for_kbit_training`)."""
    seq_len: int
    micro_batch: int
    gpus: int
    zero_stage: int
    checkpointing: bool
    attention: str
    """flash, sdpa or eager."""
    optimizer: str
    fused_ce: str | None
    """liger, cce, chunked, or None: the logits of all positions are made."""
    offload: frozenset[str]
    """Of optimizer, parameters, activations."""
    lora_rank: int
    lora_targets: tuple[str, ...] | None
    """None for all linear layers."""
    dtype: str
    """bf16, fp16, fp32, or amp: fp32 weights under autocast."""
    adapter_bytes: int
    """Bytes of one adapter weight: 4 where the engine holds adapters in fp32."""

    @property
    def tokens(self) -> int:
        """Positions in one micro-batch on one GPU."""
        return self.seq_len * self.micro_batch


_PARTIAL = ("badam", "galore", "apollo", "lomo")
"""Methods that are full training with an optimizer of this name."""


def read_setup(
    *,
    method: str | None = None,
    quantization: str | int | None = None,
    seq_len: int | None = None,
    micro_batch: int | None = None,
    gpus: int | None = None,
    zero_stage: int | None = None,
    gradient_checkpointing: bool | str | None = None,
    attention: str | None = None,
    optimizer: str | None = None,
    fused_ce: bool | str | None = None,
    offload: Any = None,
    lora_rank: int | None = None,
    lora_targets: Any = None,
    dtype: str | None = None,
    adapter_bytes: int | None = None,
    upcast: bool | None = None,
) -> Setup:
    """Read the arguments of `tunebook.memory.estimate`; None takes the default that stands there.

    Raises:
        TunebookError: A word is not known, or a number is below 1.
    """
    way = spellings.plain(method or "lora")
    full = way.startswith("full") or way in {"fft", "finetune", "pt", "pretrain", *_PARTIAL, "lisa"}
    if not full and not any(name in way for name in ("lora", "dora", "peft", "oft", "adapter")):
        raise TunebookError(f"unknown method {method!r}", fix="write full, lora, qlora or dora")
    bits = spellings.bits(quantization)
    if bits is None and ("qlora" in way or "qdora" in way) and quantization is None:
        bits = "nf4"
    precision = spellings.precision(dtype)
    zero = spellings.zero(zero_stage)
    if full and bits is not None:
        raise TunebookError(
            f"method full cannot train {quantization} weights", fix="use qlora, or no quantisation"
        )
    numbers = {
        "seq_len": seq_len or 2048,
        "micro_batch": micro_batch or 1,
        "gpus": gpus or 1,
        "lora_rank": lora_rank or 8,
    }
    for name, number in numbers.items():
        if int(number) < 1:
            raise TunebookError(f"{name} is {number}", fix=f"give a whole number from 1 for {name}")
    fused = spellings.fused(fused_ce)
    kernel = spellings.attention(attention)
    unsloth = spellings.plain(gradient_checkpointing or "") in {"unsloth", "offload"}
    optimizer_word = way if way in _PARTIAL and optimizer is None else optimizer
    return Setup(
        full=full,
        dora="dora" in way,
        bits=bits,
        # PEFT's preparation is the rule for quantised models; Unsloth and fused losses need half precision.
        upcast=bits is not None and (not (unsloth or fused) if upcast is None else upcast),
        seq_len=int(numbers["seq_len"]),
        micro_batch=int(numbers["micro_batch"]),
        gpus=int(numbers["gpus"]),
        zero_stage=zero,
        checkpointing=gradient_checkpointing is None
        or spellings.plain(gradient_checkpointing) not in spellings.NOTHING,
        attention=kernel,
        optimizer=spellings.optimizer(optimizer_word),
        fused_ce=fused,
        offload=spellings.offload(offload, unsloth=unsloth),
        lora_rank=int(numbers["lora_rank"]),
        lora_targets=spellings.targets(lora_targets),
        dtype=precision,
        adapter_bytes=adapter_bytes or (2 if zero and precision in {"bf16", "fp16"} else 4),
    )
