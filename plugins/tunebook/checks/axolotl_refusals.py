"""What Axolotl's own validation refuses beyond types (validation.py, deprecated.py of its schemas)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tunebook.checks.subject import as_number

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tunebook.checks.findings import Finding
    from tunebook.checks.subject import Subject

# Still among its keys, and refused as soon as they have a value; the first few only where it is true.
_REMOVED: dict[str, str] = {
    "max_packed_sequence_len": "write sample_packing: true and sequence_len",
    "rope_scaling": "write it under overrides_of_model_config",
    "s2_attention": "remove it",
    "flash_attn_rms_norm": "remove it",
    "dpo_use_logits_to_keep": "remove it",
    "dpo_generate_during_eval": "remove it",
    "dpo_norm_loss": "remove it",
    "rpo_alpha": "remove it",
}
_REFUSED_AT_FALSE = frozenset(
    {"dpo_use_logits_to_keep", "dpo_generate_during_eval", "dpo_norm_loss", "rpo_alpha"}
)


def check_axolotl_refusals(subject: Subject) -> Iterator[Finding]:
    """`removed-key`, `early-stopping`, `best-without-metric`, `fsdp-conflict`."""
    if subject.engine != "axolotl":
        return
    for key, fix in _REMOVED.items():
        value = subject.get(key)
        if value or (value is not None and key in _REFUSED_AT_FALSE):
            yield subject.finding(
                key,
                rule="removed-key",
                severity="error",
                message=f"Axolotl {subject.schema['version']} no longer supports it, and stops",
                fix=fix,
            )
    if subject.get("early_stopping_patience"):
        saved, evaluated = as_number(subject.get("save_steps")), as_number(subject.get("eval_steps"))
        if not saved or not evaluated or saved % evaluated:
            yield subject.finding(
                "early_stopping_patience",
                rule="early-stopping",
                severity="error",
                message="early stopping needs eval_steps, and save_steps that is a multiple of it",
                fix="set save_steps equal to eval_steps"
                if evaluated
                else "set eval_steps and an equal save_steps, in place of counts per epoch",
            )
    if subject.get("save_strategy") == "best" and not subject.get("metric_for_best_model"):
        yield subject.finding(
            "save_strategy",
            rule="best-without-metric",
            severity="error",
            message="`save_strategy: best` does not say by what",
            fix="add metric_for_best_model: eval_loss",
        )
    yield from _fsdp2(subject)


def _fsdp2(subject: Subject) -> Iterator[Finding]:
    config = subject.get("fsdp_config")
    if not isinstance(config, dict):
        return
    version = subject.get("fsdp_version") or config.get("fsdp_version") or config.get("version")
    if str(version) != "2":
        return
    optimizer = subject.get("optimizer")
    if optimizer in ("adamw_8bit", "adamw_bnb_8bit"):
        yield subject.finding(
            "optimizer",
            rule="fsdp-conflict",
            severity="error",
            message=f"FSDP2 does not go with {optimizer}",
            fix="write optimizer: adamw_torch_8bit",
            edit=subject.rewrite("optimizer", "adamw_torch_8bit"),
        )
    loading = next(
        (key for key in ("cpu_ram_efficient_loading", "fsdp_cpu_ram_efficient_loading") if config.get(key)),
        None,
    )
    if loading and subject.get("load_in_4bit"):
        yield subject.finding(
            f"fsdp_config.{loading}",
            rule="fsdp-conflict",
            severity="error",
            message="FSDP2 cannot load 4-bit weights on one rank alone",
            fix=f"write {loading}: false",
            edit=subject.rewrite(f"fsdp_config.{loading}", "false"),
        )
