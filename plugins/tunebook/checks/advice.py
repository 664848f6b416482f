"""Hints that cost nothing to heed: a model with little left to learn, a division that is not needed."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tunebook.checks.findings import Finding
    from tunebook.checks.subject import Subject

# Accuracy on GSM8K's test rows that a model has before it is trained: the Qwen3 and Gemma 3 technical reports
# (arXiv:2505.09388, 2503.19786), Meta's model card; Gemma 2 9B as those who tried to train it measured it.
_GSM8K: dict[str, float] = {
    "google/gemma-2-9b-it": 0.86,
    "google/gemma-3-4b-it": 0.89,
    "google/gemma-3-12b-it": 0.94,
    "google/gemma-3-27b-it": 0.96,
    "Qwen/Qwen3-4B-Base": 0.88,
    "Qwen/Qwen3-8B-Base": 0.90,
    "meta-llama/Llama-3.1-8B-Instruct": 0.84,
}
_BEFORE: dict[str, dict[str, float]] = {"gsm8k": _GSM8K}


def check_advice(subject: Subject) -> Iterator[Finding]:
    """`headroom`, `zero3-not-needed`."""
    if subject.command != "train":
        return
    key = subject.name("model")
    model = str(subject.get(key, ""))
    for entry in subject.entries(subject.evaluation_sets):
        for spec in entry.metrics:
            score = _BEFORE.get(spec.name, {}).get(model)
            if score is not None:
                yield subject.finding(
                    key,
                    rule="headroom",
                    severity="hint",
                    message=f"{model} is said to answer {score:.0%} of {spec.name} before any training: "
                    "there is little to gain",
                    fix="measure the base model first, or take a smaller one",
                )
    lora = (
        subject.effective("finetuning_type") == "lora"
        if subject.engine == "llamafactory"
        else bool(subject.get("adapter"))
    )
    if lora and subject.zero_stage == 3:
        yield subject.finding(
            "deepspeed",
            rule="zero3-not-needed",
            severity="hint",
            message="LoRA trains little: ZeRO-2 divides its states, and gathers no weights at each step",
            fix="take ZeRO-2 if the weights fit one GPU; `tunebook estimate` tells",
        )
