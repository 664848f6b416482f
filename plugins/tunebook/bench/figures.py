"""Figures of a timed training: speed, share of waiting for data, and model FLOPs utilisation."""

from __future__ import annotations

import re
import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tunebook.engines.axolotl.rules import PLUGIN
from tunebook.errors import TunebookError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tunebook.memory.shapes import Shape
    from tunebook.types import EngineName


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """What one short training says; None for what cannot be known."""

    steps: int
    """Those counted; the first ones, in which kernels are chosen and memory is taken, are left out."""
    step_seconds: float
    """Median."""
    step_seconds_p90: float
    tokens_per_second: float
    """Tokens that are no padding, of all ranks."""
    rows_per_second: float
    loading_share: float
    """Of the time, from 0 to 1: waiting for the data loader."""
    attention: str | None
    device: str
    ranks: int
    peak_allocated_bytes: int | None
    """Of the first rank's GPU, by torch's allocator."""
    peak_reserved_bytes: int | None
    peak_resident_bytes: int
    """Host memory of the first rank's process."""
    flops_per_token: float | None
    mfu: float | None
    """Model FLOPs utilisation, from 0 to 1, of the device's dense bf16 peak."""


def figures_of(found: Mapping[str, Any], *, warmup: int, shape: Shape | None, full: bool) -> Figures:
    """Work out the figures of what `hooks.timing` has left.

    Args:
        found: Its JSON.
        warmup: Steps to leave out at the beginning.
        shape: The model, or None where its architecture is not known.
        full: Whether all weights are trained: without, no gradient of frozen weights is computed.

    Raises:
        ValueError: No step is left.
    """
    steps = found["steps"][warmup:]
    if not steps:
        raise ValueError(f"{len(found['steps'])} steps were made, and {warmup} of them are left out")
    seconds = [step["seconds"] for step in steps]
    total, tokens = sum(seconds), sum(step["tokens"] for step in steps)
    rows = found["rows_per_step"] * len(steps)
    per_token = None
    # Of a mixture of experts a token meets a few only, and the shape says how many there are.
    if (
        shape is not None
        and tokens
        and not any(one.copies > 1 for block in shape.blocks for one in block.linears)
    ):
        per_token = flops_per_token(shape, length=tokens / rows, full=full)
    peak = peak_flops(found["device"])
    speed = tokens / total
    return Figures(
        steps=len(steps),
        step_seconds=statistics.median(seconds),
        step_seconds_p90=sorted(seconds)[min(len(seconds) - 1, int(0.9 * len(seconds)))],
        tokens_per_second=speed,
        rows_per_second=rows / total,
        loading_share=sum(step["loading"] for step in steps) / total,
        attention=found["attention"],
        device=found["device"],
        ranks=found["ranks"],
        peak_allocated_bytes=found["peak_allocated_bytes"],
        peak_reserved_bytes=found["peak_reserved_bytes"],
        peak_resident_bytes=found["peak_resident_bytes"],
        flops_per_token=per_token,
        mfu=None if peak is None or per_token is None else speed * per_token / (peak * found["ranks"]),
    )


def flops_per_token(shape: Shape, *, length: float, full: bool) -> float:
    """Floating-point operations of the model for one token of training, recomputation not counted.

    Two for each weight in the forward pass, two for the gradient of what comes in, and two for that of the
    weight where it is trained; attention adds the same for its two products over, on average, half the row.

    Args:
        shape: The model.
        length: Tokens of a row, on average.
        full: Whether all weights are trained.

    Source: Chowdhery et al., "PaLM", 2022, appendix B (https://arxiv.org/abs/2204.02311), which counts the
    whole row for attention; causal kernels compute half.
    """
    weights = shape.linear_params + (shape.head_params or shape.embedding_params)
    width = sum(block.count * block.query_width for block in shape.blocks if block.attention)
    passes = 6 if full else 4
    # Two products (scores, values), two operations each, half the row: 2 * width * length a forward pass.
    return passes * weights + 3 * 2 * width * length


# Peak speeds of GPUs.

# Dense bf16 with fp32 accumulation, in TFLOPS (for cards before Ampere: fp16, they have no bf16), as they are
# commonly quoted; NVIDIA's own sheets were not read for it. The first pattern that is found in the device's
# name counts.
_PEAKS: tuple[tuple[str, float], ...] = (
    (r"\bB200\b", 2250.0),
    (r"\bH200\b", 989.4),
    (r"\bGH200\b", 989.4),
    (r"\bH100 PCIe", 756.5),
    (r"\bH100\b(?! NVL)", 989.4),
    (r"\bH800\b", 989.4),
    (r"\bA100\b|\bA800\b", 312.0),
    (r"\bL40S\b", 362.0),
    (r"\bL4\b", 121.0),
    (r"\bA10G?\b", 125.0),
    (r"\bA6000\b", 154.8),
    (r"\bRTX 4090\b", 165.2),
    (r"\bRTX 3090\b", 71.0),
    (r"\bT4\b", 65.0),
    (r"\bV100\b", 125.0),
)


def peak_flops(device: str) -> float | None:
    """Return a device's peak in operations per second; None for a card that is not in the table, or a CPU.

    >>> peak_flops("NVIDIA A100-SXM4-80GB")
    312000000000000.0
    """
    found = next((peak for pattern, peak in _PEAKS if re.search(pattern, device)), None)
    return None if found is None else found * 1e12


# Turns a recipe into one that only trains, for a few steps: no evaluation, no saving, no trackers, no hub. By
# the keys' families: what the next version adds to one is left out too.

_DROPPED = re.compile(
    r"eval.*|save_.*|do_(?:eval|predict|bench_eval|causal_lm_eval)|bench_.*|lm_eval.*|predict_with_generate"
    r"|dpo_generate_during_eval|test_datasets|val_size|load_best_model_at_end|metric_for_best_model"
    r"|greater_is_better|early_stopping_.*|(?:auto_)?resume_from_checkpoints?|num_train_epochs|run_name"
    r"|push_.*|hub_.*|hf_mlflow.*|(?:use_)?(?:wandb|mlflow|comet|trackio|swanlab)(?:_.*)?|tunebook_.*"
)
_SET: dict[str, dict[str, Any]] = {
    "llamafactory": {"save_strategy": "no", "report_to": "none", "logging_steps": 1000, "plot_loss": False},
    "axolotl": {"save_strategy": "no", "val_set_size": 0.0, "logging_steps": 1000},
}
_ATTENTION_KEY = {"llamafactory": "flash_attn", "axolotl": "attn_implementation"}


def bench_values(
    values: Mapping[str, Any], engine: EngineName, *, steps: int, attention: str | None, synthetic: bool
) -> dict[str, Any]:
    """Return the recipe to measure.

    Args:
        values: A resolved recipe.
        engine: Whose it is.
        steps: Optimizer steps.
        attention: The engine's own name for an attention implementation; None for what the recipe says.
        synthetic: Random weights of the model's size: only its configuration and tokenizer are needed.

    Raises:
        TunebookError: The engine cannot make random weights.
    """
    kept = {key: value for key, value in values.items() if not _DROPPED.fullmatch(key)}
    kept |= _SET[engine] | {"max_steps": steps}
    if attention is not None:
        kept[_ATTENTION_KEY[engine]] = attention
    if engine == "axolotl":
        kept["plugins"] = [plugin for plugin in values.get("plugins") or [] if plugin != PLUGIN]
    if synthetic and engine == "llamafactory":
        kept["train_from_scratch"] = True
    elif synthetic:
        raise TunebookError(
            "Axolotl makes no random weights by its recipe", fix="bench the LLaMA-Factory twin of the recipe"
        )
    return {key: value for key, value in kept.items() if value not in ([], None)}
