"""One training set-up in canonical words, and how it is read from arguments."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypedDict, Unpack

from tunebook.errors import TunebookError
from tunebook.memory import spellings

if TYPE_CHECKING:
    from collections.abc import Callable


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


class Arguments(TypedDict, total=False):
    """What `tunebook.memory.estimate` and `read_setup` take. None, or leaving one out, takes its default."""

    method: str | None
    """full, lora (default), qlora, dora; qlora alone means 4-bit."""
    quantization: str | int | None
    """none (default), 4 or nf4, nf4-dq, 8 or int8, gptq, gptq8, awq."""
    seq_len: int | None
    """Tokens of a row, 2048."""
    micro_batch: int | None
    """Rows per GPU and forward pass, 1."""
    gpus: int | None
    """GPUs of the run, 1."""
    zero_stage: int | str | None
    """0 (default) to 3; FSDP full shard is 3."""
    gradient_checkpointing: bool | str | None
    """True (default), False, or "unsloth", which moves checkpoints to the host."""
    attention: str | bool | None
    """flash, sdpa (default) or eager."""
    optimizer: str | None
    """adamw_torch (default), adamw_8bit, paged_adamw_8bit, sgd, lion, adafactor, galore, badam."""
    fused_ce: bool | str | None
    """none (default), liger or True, cce, chunked."""
    offload: Any
    """none (default), optimizer, parameters, all, activations, or several."""
    lora_rank: int | None
    """8."""
    lora_targets: Any
    """Module names; None or "all" for all linear layers, as PEFT's `all-linear`."""
    dtype: str | None
    """bf16 (default), fp16, fp32, or fp32_amp for fp32 weights under autocast."""
    adapter_bytes: int | None
    """Bytes of an adapter weight; 4 (2 under DeepSpeed) unless given."""
    upcast: bool | None
    """Whether norms, embeddings and head of a quantised model are fp32; None for the usual way."""


def read_setup(**arguments: Unpack[Arguments]) -> Setup:
    """Read arguments into one set-up.

    Raises:
        TunebookError: A word is not known, or a number is below 1.
        TypeError: There is no argument of such a name.
    """
    strangers = set(arguments) - set(Arguments.__annotations__)
    if strangers:
        raise TypeError(
            f"no argument {', '.join(sorted(strangers))}; there are {', '.join(Arguments.__annotations__)}"
        )
    method, quantization = arguments.get("method"), arguments.get("quantization")
    checkpointing, optimizer = arguments.get("gradient_checkpointing"), arguments.get("optimizer")
    upcast = arguments.get("upcast")
    way = spellings.plain(method or "lora")
    full = way.startswith("full") or way in {"fft", "finetune", "pt", "pretrain", *_PARTIAL, "lisa"}
    if not full and not any(name in way for name in ("lora", "dora", "peft", "oft", "adapter")):
        raise TunebookError(f"unknown method {method!r}", fix="write full, lora, qlora or dora")
    bits = spellings.bits(quantization)
    if bits is None and ("qlora" in way or "qdora" in way) and quantization is None:
        bits = "nf4"
    precision = spellings.precision(arguments.get("dtype"))
    zero = spellings.zero(arguments.get("zero_stage"))
    if full and bits is not None:
        raise TunebookError(
            f"method full cannot train {quantization} weights", fix="use qlora, or no quantisation"
        )
    numbers = {
        "seq_len": arguments.get("seq_len") or 2048,
        "micro_batch": arguments.get("micro_batch") or 1,
        "gpus": arguments.get("gpus") or 1,
        "lora_rank": arguments.get("lora_rank") or 8,
    }
    for name, number in numbers.items():
        if int(number) < 1:
            raise TunebookError(f"{name} is {number}", fix=f"give a whole number from 1 for {name}")
    fused = spellings.fused(arguments.get("fused_ce"))
    kernel = spellings.attention(arguments.get("attention"))
    unsloth = spellings.plain(checkpointing or "") in {"unsloth", "offload"}
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
        checkpointing=checkpointing is None or spellings.plain(checkpointing) not in spellings.NOTHING,
        attention=kernel,
        optimizer=spellings.optimizer(optimizer_word),
        fused_ce=fused,
        offload=spellings.offload(arguments.get("offload"), unsloth=unsloth),
        lora_rank=int(numbers["lora_rank"]),
        lora_targets=spellings.targets(arguments.get("lora_targets")),
        dtype=precision,
        adapter_bytes=arguments.get("adapter_bytes") or (2 if zero and precision in {"bf16", "fp16"} else 4),
    )


def signature_of(function: Callable[..., Any]) -> inspect.Signature:
    """Return the signature of a function of `**arguments: Unpack[Arguments]` with each of them by name."""
    own = [
        parameter
        for parameter in inspect.signature(function).parameters.values()
        if parameter.kind is not inspect.Parameter.VAR_KEYWORD
    ]
    named = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None)
        for name in Arguments.__annotations__
    ]
    return inspect.Signature([*own, *named])
