"""The many spellings of one thing; an unknown one is an error, never a default."""

from __future__ import annotations

from typing import Any

from tunebook.errors import TunebookError

_BITS = {
    **dict.fromkeys(("4", "4bit", "int4", "nf4", "fp4", "bnb", "bnb4", "bitsandbytes", "bnb.nf4"), "nf4"),
    **dict.fromkeys(("nf4dq", "bnb.nf4dq"), "nf4-dq"),
    **dict.fromkeys(("8", "8bit", "int8", "bnb8", "bnb.int8", "llmint8"), "int8"),
    **dict.fromkeys(("gptq", "gptq4", "gptqint4", "int4gptq", "awq", "awq4", "hqq", "mxfp4"), "gptq4"),
    **dict.fromkeys(("gptq8", "gptqint8", "int8gptq"), "gptq8"),
    **dict.fromkeys(("2", "2bit", "aqlm"), "2bit"),
}
_OPTIMIZERS = {
    # The longer names first: `galore_adamw` is GaLore.
    "galore": "galore", "apollo": "apollo", "badam": "badam", "ademamix": "adam", "lomo": "lomo",
    "adafactor": "adafactor", "adagrad": "lion", "adam": "adam", "lamb": "adam", "lion": "lion", "sgd": "sgd",
    "muon": "sgdm", "rmsprop": "lion",
}  # fmt: skip
NOTHING = {"", "none", "no", "false", "off", "0", "16", "bf16", "fp16", "null", "disabled"}


def plain(value: Any) -> str:
    """Return a spelling without case, spaces, hyphens and underscores."""
    return str(value).lower().replace("-", "").replace("_", "").replace(" ", "").strip()


def bits(value: Any) -> str | None:
    """Read a quantisation; None for weights that are not quantised."""
    word = plain(value)
    if word in NOTHING:
        return None
    if word not in _BITS:
        raise TunebookError(
            f"unknown quantization {value!r}", fix="write 4, 8, nf4, nf4-dq, int8, gptq, awq or none"
        )
    return _BITS[word]


def zero(value: Any) -> int:
    """Read a ZeRO stage; FSDP full shard is 3."""
    word = plain(value).removeprefix("zero").removeprefix("stage").removeprefix("ds").removeprefix("z")
    if word in {"", "none", "0", "false", "ddp"}:
        return 0
    if word in {"fsdp", "fsdp2", "fullshard"}:
        return 3
    if word not in {"1", "2", "3"}:
        raise TunebookError(f"unknown zero_stage {value!r}", fix="write 0, 1, 2 or 3 (FSDP full shard is 3)")
    return int(word)


def attention(value: Any) -> str:
    """Read an attention kernel: flash, sdpa or eager."""
    word = plain(value)
    if word in {
        "",
        "none",
        "auto",
        "sdpa",
        "xformers",
        "efficient",
        "memefficient",
        "flex",
        "flexattention",
        "true",
    }:
        return "sdpa"
    if "flash" in word or word in {"fa", "fa2", "fa3", "fa4"}:
        return "flash"
    if word in {"eager", "disabled", "math", "false", "no", "off", "noflash"}:
        return "eager"
    raise TunebookError(f"unknown attention {value!r}", fix="write flash, sdpa or eager")


def optimizer(value: Any) -> str:
    """Read an optimizer into its family, e.g. `paged-adam8`."""
    word = plain(value)
    if word in {"", "none", "auto"}:
        return "adam"
    bits = "8" if "8bit" in word else ""
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
    if word in NOTHING:
        return None
    if word in {"cce", "cutcrossentropy", "cut"}:
        return "cce"
    if word in {"chunked", "chunkedce", "tiled"}:
        return "chunked"
    if word in {
        "true",
        "1",
        "liger",
        "flce",
        "ligerflce",
        "fused",
        "unsloth",
        "linearce",
        "fusedlinearcrossentropy",
    }:
        return "liger"
    raise TunebookError(f"unknown fused_ce {value!r}", fix="write liger, cce, chunked or none")


def offload(value: Any, *, unsloth: bool) -> frozenset[str]:
    """Read what is offloaded; `unsloth` moves checkpoints to the host as well."""
    words = (
        value if isinstance(value, (list, tuple, set, frozenset)) else str(value).replace("+", ",").split(",")
    )
    places = {"activations"} if unsloth else set()
    for word in map(plain, words):
        if word in NOTHING:
            continue
        if word in {"all", "true", "cpu", "yes", "both", "optimizerparameters"}:
            places |= {"optimizer", "parameters"}
        elif word.startswith(("optim", "param", "activation", "weights")):
            places.add("optimizer" if word[0] == "o" else "activations" if word[0] == "a" else "parameters")
        else:
            raise TunebookError(
                f"unknown offload {value!r}", fix="write optimizer, parameters, all or activations"
            )
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
    names = [part.strip() for name in names for part in str(name).split(",") if part.strip()]
    return (
        None
        if not names or any(plain(name) in {"all", "alllinear", "default"} for name in names)
        else tuple(names)
    )
