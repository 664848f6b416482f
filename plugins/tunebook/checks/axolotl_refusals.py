"""What Axolotl refuses of basics, data and evaluation (validation.py, config.py of its schemas)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tunebook.checks.axolotl_method_refusals import METHOD
from tunebook.checks.number_like import as_number
from tunebook.checks.refusals import CONFLICT, MISSING, Refusal, any_of, nested, together

if TYPE_CHECKING:
    from tunebook.checks.subject import Subject

_BATCH = ("micro_batch_size", "gradient_accumulation_steps")
_FIXED_BY_MISTRAL = ("chat_template", "special_tokens", "tokens", "added_tokens_overrides")
_BUILT_IN = ("lora", "qlora", "llama-adapter")
_CAUSAL_METRICS = frozenset({"sacrebleu", "comet", "ter", "chrf", "perplexity"})


def _stops_early_without_steps(subject: Subject) -> bool:
    saved, evaluated = as_number(subject.get("save_steps")), as_number(subject.get("eval_steps"))
    return bool(subject.get("early_stopping_patience")) and (
        not saved or not evaluated or saved % evaluated != 0
    )


def _never_at_zero(subject: Subject) -> bool:
    return bool(
        subject.get("val_set_size") == 0
        and not subject.get("test_datasets")
        and subject.get("eval_strategy") != "no"
    )


def _evaluates_nothing(key: str) -> Refusal:
    return Refusal(
        "nothing-to-evaluate",
        key,
        lambda s: s.get(key) and _never_at_zero(s),
        f"`{key}` is set, and with val_set_size: 0 there is nothing to evaluate on",
        f"give val_set_size a share, or remove {key}",
    )


def _other_strategy(word: str) -> Refusal:
    return Refusal(
        CONFLICT,
        f"{word}_strategy",
        lambda s: s.get(f"{word}_steps") and s.get(f"{word}_strategy") not in (None, "steps"),
        f"{word}_steps goes with {word}_strategy: steps alone",
        f"remove {word}_steps, or set {word}_strategy: steps",
    )


def _endless(key: str) -> Refusal:
    return Refusal(
        MISSING,
        key,
        lambda s: s.get(key) and not s.get("max_steps"),
        "a stream has no length: the steps have to be given",
        "add max_steps: <number>",
    )


_BASICS = (
    Refusal(MISSING, "base_model", lambda s: not s.get("base_model"), "there is no model",
            "add base_model: <name on the hub, or folder>"),
    Refusal(MISSING, "learning_rate", lambda s: s.get("learning_rate") is None,
            "Axolotl has no learning rate of its own", "add learning_rate: 1.0e-4"),
    Refusal(MISSING, "datasets", lambda s: not s.get("datasets") and not s.get("pretraining_dataset"),
            "there is nothing to train on", "add datasets, a list of {path, type}"),
    Refusal("wrong-type", "datasets", lambda s: isinstance(s.get("datasets"), dict),
            "one dataset is a list of one too", "begin its first line with a dash: - path: ..."),
    together("batch_size", "gradient_accumulation_steps"),
    Refusal(MISSING, "batch_size",
            lambda s: s.get("batch_size") and not any_of(s, _BATCH),
            "batch_size is divided by micro_batch_size, which is not set", "add micro_batch_size"),
    Refusal(MISSING, "push_dataset_to_hub",
            lambda s: s.get("push_dataset_to_hub") and s.get("hf_use_auth_token") is not True,
            "it needs hf_use_auth_token: true", "add hf_use_auth_token: true"),
    Refusal("bad-choice", "datasets", lambda s: any(
                str(block.get("type")).startswith("sharegpt")
                for block in s.get("datasets", []) if isinstance(block, dict)
            ) if isinstance(s.get("datasets"), list) else False,
            "the type sharegpt is gone", "write type: chat_template, with message_property_mappings"),
    Refusal("bad-choice", "adapter",
            lambda s: s.get("adapter") not in (None, *_BUILT_IN) and not s.get("plugins"),
            "no such adapter", "write lora or qlora, or name the plugin that brings it under plugins"),
    Refusal(CONFLICT, "tokenizer_use_mistral_common",
            lambda s: s.get("tokenizer_use_mistral_common") and any_of(s, _FIXED_BY_MISTRAL),
            f"Mistral's own tokenizer is taken as it is, without {', '.join(_FIXED_BY_MISTRAL)}",
            "remove these, or tokenizer_use_mistral_common"),
    Refusal("wrong-type", "learning_rate", lambda s: (
                s.get("learning_rate") is not None and as_number(s.get("learning_rate")) is None),
            "a number is wanted", "write learning_rate: 1.0e-4"),
    Refusal(MISSING, "chat_template",
            lambda s: s.get("chat_template") == "jinja" and not s.get("chat_template_jinja"),
            "there is no Jinja template", "add chat_template_jinja"),
)  # fmt: skip
_CADENCE = (
    Refusal("two-evaluation-sets", "val_set_size",
            lambda s: s.get("test_datasets") and as_number(s.get("val_set_size")),
            "`test_datasets` and `val_set_size` cannot both be set", "remove one of them"),
    *map(_evaluates_nothing, ("eval_steps", "eval_strategy")),
    together("saves_per_epoch", "save_steps"),
    together("evals_per_epoch", "eval_steps"),
    *map(_other_strategy, ("save", "eval")),
    Refusal(CONFLICT, "evals_per_epoch",
            lambda s: s.get("evals_per_epoch") and s.get("eval_strategy") not in (None, "steps"),
            "evals_per_epoch goes with eval_strategy: steps alone", "remove eval_strategy"),
    Refusal(MISSING, "do_bench_eval",
            lambda s: s.get("do_bench_eval") and not any_of(s, ("evals_per_epoch", "eval_steps")),
            "nothing says when", "add eval_steps or evals_per_epoch"),
    Refusal("early-stopping", "early_stopping_patience", _stops_early_without_steps,
            "early stopping needs eval_steps, and save_steps that is a multiple of it",
            "set eval_steps and an equal save_steps, in place of counts per epoch"),
    Refusal("best-without-metric", "save_strategy",
            lambda s: s.get("save_strategy") == "best" and not s.get("metric_for_best_model"),
            "`save_strategy: best` does not say by what", "add metric_for_best_model: eval_loss"),
    Refusal("two-warmups", "warmup_ratio",
            lambda s: as_number(s.get("warmup_ratio")) and as_number(s.get("warmup_steps")),
            "warmup_ratio and warmup_steps are both set; Axolotl refuses that", "remove one of them"),
    Refusal(CONFLICT, "do_causal_lm_eval",
            lambda s: s.get("do_causal_lm_eval") and s.get("eval_sample_packing"),
            "it cannot generate from packed rows", "set eval_sample_packing: false"),
    Refusal("bad-choice", "eval_causal_lm_metrics", lambda s: (
                isinstance(s.get("eval_causal_lm_metrics"), list)
                and not _CAUSAL_METRICS.issuperset(map(str, s.get("eval_causal_lm_metrics")))),
            f"Axolotl has none but {', '.join(sorted(_CAUSAL_METRICS))}", "remove the others"),
)  # fmt: skip
_DATA = (
    Refusal(CONFLICT, "eval_table_size", lambda s: (
                s.get("sample_packing") and s.get("eval_table_size")
                and s.get("eval_sample_packing") is not False),
            "a table of answers cannot be made from packed rows", "set eval_sample_packing: false"),
    *map(_endless, ("streaming", "pretraining_dataset")),
    *(
        together(key, "val_set_size", "name evaluation data under test_datasets instead")
        for key in ("streaming", "pretraining_dataset")
    ),
    Refusal(CONFLICT, "streaming", lambda s: (
                s.get("streaming") and s.get("sample_packing")
                and isinstance(s.get("datasets"), list) and len(s.get("datasets")) > 1),
            "several streams cannot be packed", "remove sample_packing, or give one dataset"),
    together("sample_packing", "rl", "remove sample_packing"),
    Refusal(MISSING, "rl", lambda s: s.get("rl") == "kto" and s.get("remove_unused_columns") is not False,
            "KTO needs columns that would be removed", "add remove_unused_columns: false"),
    Refusal(CONFLICT, "warmup_ratio", lambda s: s.get("rl") == "simpo" and s.get("warmup_ratio"),
            "SimPO's trainer takes no warmup_ratio", "write warmup_steps"),
    Refusal(CONFLICT, "dpo_loss_type", lambda s: s.get("dpo_loss_type") and s.get("rl") != "dpo",
            "it is for rl: dpo alone", "remove it, or set rl: dpo"),
    Refusal("bad-count", "trl", lambda s: (
                s.get("rl") == "grpo" and (as_number(nested(s, "trl", "num_generations")) or 2) < 2),
            "GRPO compares the answers of a group, and one is no group", "set num_generations: 2 or more"),
)  # fmt: skip
TABLE: tuple[Refusal, ...] = (*_BASICS, *_CADENCE, *_DATA, *METHOD)
"""All rows; what needs the plugin of somebody else is left to it."""
