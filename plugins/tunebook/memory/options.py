"""One training set-up in canonical words, and how it is read from arguments."""

from __future__ import annotations

import inspect
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypedDict, Unpack

from tunebook.errors import TunebookError

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
    """full, lora (default), qlora, dora; qlora without a quantization means 4-bit."""
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
    way = plain(method or "lora")
    full = way.startswith("full") or way in {"fft", "finetune", "pt", "pretrain", *_PARTIAL, "lisa"}
    if not full and not any(name in way for name in ("lora", "dora", "peft", "oft", "adapter")):
        raise TunebookError(f"unknown method {method!r}", fix="write full, lora, qlora or dora")
    bits = read_bits(quantization)
    if bits is None and ("qlora" in way or "qdora" in way) and quantization is None:
        bits = "nf4"
    precision = read_precision(arguments.get("dtype"))
    zero = read_zero(arguments.get("zero_stage"))
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
    fused = read_fused(arguments.get("fused_ce"))
    kernel = read_attention(arguments.get("attention"))
    unsloth = plain(checkpointing or "") in {"unsloth", "offload"}
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
        checkpointing=checkpointing is None or plain(checkpointing) not in NOTHING,
        attention=kernel,
        optimizer=read_optimizer(optimizer_word),
        fused_ce=fused,
        offload=read_offload(arguments.get("offload"), unsloth=unsloth),
        lora_rank=int(numbers["lora_rank"]),
        lora_targets=read_targets(arguments.get("lora_targets")),
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


# The many spellings of one thing; an unknown one is an error, never a default.

# (a part of the spelling, what it means), the more specific parts first.
_BITS = (
    ("2bit", "2bit"), ("aqlm", "2bit"), ("gptq8", "gptq8"), ("gptqint8", "gptq8"), ("int8gptq", "gptq8"),
    ("gptq", "gptq4"), ("awq", "gptq4"), ("hqq", "gptq4"),
    ("mxfp4", "gptq4"), ("int8", "int8"), ("8bit", "int8"),
    ("bnb8", "int8"), ("fp8", "int8"), ("nf4", "nf4"), ("fp4", "nf4"), ("4bit", "nf4"), ("int4", "nf4"),
    ("bnb", "nf4"), ("bitsandbytes", "nf4"),
)  # fmt: skip
_ATTENTION = (
    ("noflash", "eager"), ("flash", "flash"), ("sdpa", "sdpa"), ("xformers", "sdpa"), ("efficient", "sdpa"),
    ("flex", "sdpa"), ("eager", "eager"), ("math", "eager"), ("disabled", "eager"),
)  # fmt: skip
_FUSED = (
    ("liger", "liger"), ("flce", "liger"), ("fused", "liger"), ("unsloth", "liger"), ("linear", "liger"),
    ("chunk", "chunked"), ("tiled", "chunked"), ("cce", "cce"), ("cut", "cce"),
)  # fmt: skip
_OFFLOAD = (
    ("optim", "optimizer"),
    ("activ", "activations"),
    ("param", "parameters"),
    ("weight", "parameters"),
)
_OPTIMIZERS = {
    # The longer names first: `galore_adamw` is GaLore.
    "galore": "galore", "apollo": "apollo", "badam": "badam", "ademamix": "adam", "lomo": "lomo",
    "adafactor": "adafactor", "adagrad": "lion", "adam": "adam", "lamb": "adam", "lion": "lion", "sgd": "sgd",
    "muon": "sgdm", "rmsprop": "lion",
}  # fmt: skip
_SHORT = {part: f"{part}_proj" for part in ("q", "k", "v", "o", "gate", "up", "down")}
# What papers and tables call several matrices at once.
_GROUPS = {
    "qkv": ("q_proj", "k_proj", "v_proj"),
    "attention": ("q_proj", "k_proj", "v_proj", "o_proj"),
    "mlp": ("gate_proj", "up_proj", "down_proj"),
}
NOTHING = {"", "none", "no", "false", "off", "0", "16", "bf16", "fp16", "null", "disabled"}


def plain(value: Any) -> str:
    """Return a spelling without case, spaces, hyphens and underscores."""
    return str(value).lower().replace("-", "").replace("_", "").replace(" ", "").strip()


def _find(word: str, table: tuple[tuple[str, str], ...]) -> str | None:
    return next((meaning for part, meaning in table if part in word), None)


def read_bits(value: Any) -> str | None:
    """Read a quantisation; None for weights that are not quantised."""
    word = plain(value)
    if word in NOTHING:
        return None
    found = {"4": "nf4", "8": "int8", "2": "2bit", "true": "nf4"}.get(word) or _find(word, _BITS)
    if found is None:
        raise TunebookError(
            f"unknown quantization {value!r}", fix="write 4, 8, nf4, nf4-dq, int8, gptq, awq or none"
        )
    return "nf4-dq" if found == "nf4" and ("dq" in word or "double" in word) else found


def read_zero(value: Any) -> int:
    """Read a ZeRO stage; FSDP full shard is 3."""
    word = plain(value).removeprefix("zero").removeprefix("stage").removeprefix("ds").removeprefix("z")
    if word in {"", "none", "0", "false", "ddp"}:
        return 0
    if word.startswith("fsdp") or word == "fullshard":
        return 3
    if word not in {"1", "2", "3"}:
        raise TunebookError(f"unknown zero_stage {value!r}", fix="write 0, 1, 2 or 3 (FSDP full shard is 3)")
    return int(word)


def read_attention(value: Any) -> str:
    """Read an attention kernel: flash, sdpa or eager."""
    word = plain(value)
    if word in {"", "none", "auto", "true", "default"}:
        return "sdpa"
    if word in {"false", "no", "off", "vanilla", "standard"}:
        return "eager"
    found = "flash" if word in {"fa", "fa2", "fa3", "fa4"} else _find(word, _ATTENTION)
    if found is None:
        raise TunebookError(f"unknown attention {value!r}", fix="write flash, sdpa or eager")
    return found


def read_optimizer(value: Any) -> str:
    """Read an optimizer into its family, e.g. `paged-adam8`."""
    word = plain(value)
    if word in {"", "none", "auto"}:
        return "adam"
    if word in {"8bit", "4bit"}:
        return "adam8"
    bits = "8" if "8bit" in word or "4bit" in word else ""
    paged = "paged-" if "paged" in word else ""
    for name, family in _OPTIMIZERS.items():
        if name in word:
            return f"{paged}{family}{bits}"
    raise TunebookError(
        f"unknown optimizer {value!r}",
        fix="write adamw_torch, adamw_8bit, paged_adamw_8bit, sgd, lion or adafactor",
    )


def read_fused(value: Any) -> str | None:
    """Read a fused loss: liger, cce, chunked, or None."""
    word = plain(value)
    if word in NOTHING or word in {"plain", "standard", "torch", "eager"}:
        return None
    found = "liger" if word in {"true", "1", "yes"} else _find(word, _FUSED)
    if found is None:
        raise TunebookError(f"unknown fused_ce {value!r}", fix="write liger, cce, chunked or none")
    return found


def read_offload(value: Any, *, unsloth: bool) -> frozenset[str]:
    """Read what is offloaded; `unsloth` moves checkpoints to the host as well."""
    several = isinstance(value, (list, tuple, set, frozenset))
    places = {"activations"} if unsloth else set()
    for word in map(plain, value if several else str(value).replace("+", ",").split(",")):
        if word in NOTHING:
            continue
        found = {meaning for part, meaning in _OFFLOAD if part in word}
        if word in {"all", "true", "cpu", "yes", "both", "full"}:
            found = {"optimizer", "parameters"}
        if not found:
            raise TunebookError(
                f"unknown offload {value!r}", fix="write optimizer, parameters, all or activations"
            )
        places |= found
    return frozenset(places)


def read_precision(value: Any) -> str:
    """Read a training precision: bf16, fp16, fp32 or amp."""
    word = plain(value).replace("torch.", "")
    if word in {"", "none", "auto", "bf16", "bfloat16", "bf16true", "purebf16"}:
        return "bf16"
    if word in {"fp16", "float16", "half", "16true", "fp16true"}:
        return "fp16"
    if word in {"fp32", "float32", "32", "32true", "tf32"}:
        return "fp32"
    if "amp" in word or "mixed" in word:
        return "amp"
    raise TunebookError(f"unknown dtype {value!r}", fix="write bf16, fp16, fp32 or fp32_amp")


def read_targets(value: Any) -> tuple[str, ...] | None:
    """Read LoRA targets; None for all linear layers."""
    if value is None:
        return None
    names = [value] if isinstance(value, str) else list(value)
    if not any(set("(|[") & set(str(name)) for name in names):
        names = [part for name in names for part in re.split(r"[,\s+]+", str(name)) if part]
    if not names or any(plain(name) in {"all", "alllinear", "linear", "default"} for name in names):
        return None
    return tuple(
        part for name in names for part in _GROUPS.get(plain(name), (_SHORT.get(str(name), str(name)),))
    )
