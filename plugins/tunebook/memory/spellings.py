"""The many spellings of one thing; an unknown one is an error, never a default."""

from __future__ import annotations

import re
from typing import Any

from tunebook.errors import TunebookError

# (a part of the spelling, what it means), the more telling parts first.
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


def bits(value: Any) -> str | None:
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


def zero(value: Any) -> int:
    """Read a ZeRO stage; FSDP full shard is 3."""
    word = plain(value).removeprefix("zero").removeprefix("stage").removeprefix("ds").removeprefix("z")
    if word in {"", "none", "0", "false", "ddp"}:
        return 0
    if word.startswith("fsdp") or word == "fullshard":
        return 3
    if word not in {"1", "2", "3"}:
        raise TunebookError(f"unknown zero_stage {value!r}", fix="write 0, 1, 2 or 3 (FSDP full shard is 3)")
    return int(word)


def attention(value: Any) -> str:
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


def optimizer(value: Any) -> str:
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


def fused(value: Any) -> str | None:
    """Read a fused loss: liger, cce, chunked, or None."""
    word = plain(value)
    if word in NOTHING or word in {"plain", "standard", "torch", "eager"}:
        return None
    found = "liger" if word in {"true", "1", "yes"} else _find(word, _FUSED)
    if found is None:
        raise TunebookError(f"unknown fused_ce {value!r}", fix="write liger, cce, chunked or none")
    return found


def offload(value: Any, *, unsloth: bool) -> frozenset[str]:
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


def precision(value: Any) -> str:
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


def targets(value: Any) -> tuple[str, ...] | None:
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
