"""What is known to run out of memory at long context, and checkpointing that trains nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tunebook.checks.number_like import as_number

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tunebook.checks.findings import Finding
    from tunebook.checks.subject import Subject

LONG = 32_768
"""Tokens above which generation during training is refused here: every new token attends to all of them."""
VERY_LONG = 65_536
"""Tokens above which one row's logits are tens of gigabytes: 65,536 x 151,936 x 2 bytes are 18.5 GiB."""

_FUSED_PLUGIN_KEYS = (
    *("cut_cross_entropy", "liger_fused_linear_cross_entropy", "chunked_cross_entropy"),
    *("tiled_mlp", "context_parallel_size", "large_head_attention"),
)


def check_memory_traps(subject: Subject) -> Iterator[Finding]:
    """`generation-at-length`, `reload-at-length`, `logits-at-length`, `reentrant-checkpointing`."""
    if subject.command != "train":
        return
    length = as_number(subject.setting("length")) or 0
    key = subject.name("length")
    if length > LONG:
        yield from _generation(subject, int(length))
        if subject.get("load_best_model_at_end"):
            yield subject.finding(
                "load_best_model_at_end",
                rule="reload-at-length",
                severity="warning",
                message=f"at {int(length):,} tokens memory is full when the best model is read back",
                fix="set it to false; `tunebook eval --checkpoints all` tells which is best",
            )
    if length > VERY_LONG and not _fuses_loss(subject):
        yield subject.finding(
            key,
            rule="logits-at-length",
            severity="warning",
            message=f"without a fused loss one row of {int(length):,} tokens holds "
            f"{length * 151_936 * 2 / 2**30:.0f} GiB of logits (bf16, 151,936 words)",
            fix="set enable_liger_kernel: true"
            if subject.engine == "llamafactory"
            else "add the plugin axolotl.integrations.cut_cross_entropy.CutCrossEntropyPlugin",
        )
    yield from _reentrant(subject)


def _generation(subject: Subject, length: int) -> Iterator[Finding]:
    if subject.get("predict_with_generate"):
        yield subject.finding(
            "predict_with_generate",
            rule="generation-at-length",
            severity="error",
            message=f"generation over {length:,} tokens during training runs out of memory",
            fix='remove it: a "metric" in the registry is measured at answer positions alone',
        )
    for entry in subject.entries(subject.evaluation_sets):
        for spec in entry.metrics:
            if spec.mode == "generate":
                yield subject.finding(
                    "eval_dataset" if subject.engine == "llamafactory" else "tunebook_eval_datasets",
                    rule="generation-at-length",
                    severity="warning",
                    message=f"{entry.name}: {spec.name} generates during training, over {length:,} tokens",
                    fix='set "max_samples" beside the metric, or evaluate after training',
                )


def _fuses_loss(subject: Subject) -> bool:
    if subject.engine == "llamafactory":
        return bool(
            subject.get("enable_liger_kernel")
            or subject.get("use_liger_kernel")
            or subject.get("use_unsloth")
        )
    plugins = str(subject.get("plugins", ""))
    by_key = any(subject.get(key) for key in _FUSED_PLUGIN_KEYS)
    return by_key or "cut_cross_entropy" in plugins or "liger" in plugins.lower()


def _reentrant(subject: Subject) -> Iterator[Finding]:
    options = subject.get("gradient_checkpointing_kwargs", {})
    reentrant = options.get("use_reentrant") if isinstance(options, dict) else None
    if subject.engine == "axolotl":
        if subject.get("adapter") == "qlora" and reentrant is False and subject.zero_stage == 3:
            yield subject.finding(
                "gradient_checkpointing_kwargs.use_reentrant",
                rule="reentrant-checkpointing",
                severity="warning",
                message="qlora with ZeRO-3 and use_reentrant: false may end with a CheckpointError",
                fix="write use_reentrant: true",
                edit=subject.rewrite("gradient_checkpointing_kwargs.use_reentrant", "true"),
            )
        return
    lora = subject.effective("finetuning_type") in ("lora", "oft")
    # LLaMA-Factory's own checkpointing makes the inputs require gradients, and so does the Trainer's since
    # transformers 5; before that, only without reentrance.
    by_trainer = subject.get("gradient_checkpointing") and subject.get("disable_gradient_checkpointing")
    if not (lora and by_trainer) or reentrant is False:
        return
    if subject.installed("transformers").startswith(("3.", "4.")):
        yield subject.finding(
            "gradient_checkpointing",
            rule="reentrant-checkpointing",
            severity="error",
            message="reentrant checkpointing under LoRA before transformers 5: "
            "element 0 of tensors does not require grad",
            fix="remove both keys (LLaMA-Factory checkpoints by itself), or add "
            "gradient_checkpointing_kwargs: {use_reentrant: false}",
        )
