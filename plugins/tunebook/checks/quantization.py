"""Quantisation, ZeRO-3, unsloth and full fine-tuning: pairs that an engine refuses after it has started."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tunebook.checks.findings import Finding
    from tunebook.checks.subject import Subject

_ADAPTERS = ("lora", "oft")


def check_quantization(subject: Subject) -> Iterator[Finding]:
    """`quantized-full`, `quantized-zero3`, `unsloth-zero3`, `zero3-conflict`, `optimizer-conflict`."""
    if subject.engine == "axolotl":
        yield from _axolotl(subject)
        return
    if subject.get("quantization_bit") is not None:
        yield from _quantized(subject)
    if subject.command == "train":
        yield from _zero3(subject)
        yield from _methods(subject)


def _quantized(subject: Subject) -> Iterator[Finding]:
    bits, method = subject.get("quantization_bit"), str(subject.effective("quantization_method"))
    how = subject.effective("finetuning_type")
    if how not in _ADAPTERS:
        yield subject.finding(
            "quantization_bit",
            rule="quantized-full",
            severity="error",
            message=f"a quantised model trains with lora or oft alone, not with finetuning_type: {how}",
            fix="remove quantization_bit, or set finetuning_type: lora",
        )
    for key, fix in (
        ("pissa_init", "remove pissa_init; scripts/pissa_init.py of LLaMA-Factory prepares such a model"),
        ("resize_vocab", "remove resize_vocab"),
        ("fp8", "remove one of them"),
    ):
        if subject.get(key):
            yield subject.finding(
                key, rule="quantized-full", severity="error",
                message=f"`{key}` does not go with quantization_bit", fix=fix,
            )  # fmt: skip
    adapters = subject.get("adapter_name_or_path")
    if isinstance(adapters, str) and "," in adapters:
        yield subject.finding(
            "adapter_name_or_path",
            rule="quantized-full",
            severity="error",
            message="a quantised model takes one adapter",
            fix="merge them first, without quantization_bit",
        )
    if subject.zero_stage == 3 and (method != "bnb" or bits != 4):
        yield subject.finding(
            "quantization_bit",
            rule="quantized-zero3",
            severity="error",
            message=f"ZeRO-3 can shard 4-bit bnb weights alone, not {bits}-bit {method}",
            fix="set quantization_bit: 4 with quantization_method: bnb, or use ZeRO-2",
        )
    if subject.command == "train" and subject.get("quantization_device_map") == "auto":
        yield subject.finding(
            "quantization_device_map",
            rule="quantized-zero3",
            severity="error",
            message="a device map is for inference alone",
            fix="remove quantization_device_map",
        )


def _zero3(subject: Subject) -> Iterator[Finding]:
    if subject.zero_stage != 3:
        return
    for key, why in (
        ("use_unsloth", "unsloth has its own model code, which ZeRO-3 cannot shard"),
        ("predict_with_generate", "LLaMA-Factory refuses to generate under ZeRO-3"),
        ("pure_bf16", "LLaMA-Factory refuses it under ZeRO-3"),
        ("pissa_init", "LLaMA-Factory refuses it under ZeRO-3"),
    ):
        if subject.get(key):
            yield subject.finding(
                key,
                rule="unsloth-zero3" if key == "use_unsloth" else "zero3-conflict",
                severity="error",
                message=why,
                fix=f"remove {key}, or use ZeRO-2",
            )


def _methods(subject: Subject) -> Iterator[Finding]:
    memory_savers = [key for key in ("use_galore", "use_apollo", "use_badam") if subject.get(key)]
    for key in memory_savers:
        if subject.effective("finetuning_type") == "lora":
            yield subject.finding(
                key, rule="optimizer-conflict", severity="error",
                message=f"`{key}` does not go with finetuning_type: lora", fix="set finetuning_type: full",
            )  # fmt: skip
        if key != "use_badam" and subject.get("deepspeed"):
            yield subject.finding(
                key, rule="optimizer-conflict", severity="error",
                message=f"`{key}` does not go with DeepSpeed", fix="remove one of them",
            )  # fmt: skip
    if subject.get("bf16") and subject.get("fp16"):
        yield subject.finding(
            "fp16", rule="two-precisions", severity="error", message="bf16 and fp16 cannot both be true",
            fix="remove one of them; bf16 needs no loss scaling",
        )  # fmt: skip
    if subject.effective("finetuning_type") != "lora":
        for key in ("loraplus_lr_ratio", "use_rslora", "use_dora", "pissa_init"):
            if subject.get(key):
                yield subject.finding(
                    key, rule="lora-option", severity="error", message=f"`{key}` is for LoRA alone",
                    fix=f"remove {key}, or set finetuning_type: lora",
                )  # fmt: skip


def _axolotl(subject: Subject) -> Iterator[Finding]:
    if subject.get("load_in_8bit") and subject.zero_stage == 3:
        yield subject.finding(
            "load_in_8bit",
            rule="quantized-zero3",
            severity="error",
            message="ZeRO-3 can shard 4-bit weights alone",
            fix="set load_in_4bit: true with adapter: qlora, or use ZeRO-2",
        )
