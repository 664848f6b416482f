"""Settings that an engine accepts and then ignores, or that do something else than they say."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from tunebook.checks.recipe import as_number
from tunebook.engines.axolotl.rules import PLUGIN
from tunebook.engines.schema import order

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tunebook.checks.findings import Finding, Severity
    from tunebook.checks.recipe import CheckedRecipe
    from tunebook.types import EngineName


_LORA = ("lora_rank", "lora_alpha", "lora_dropout", "lora_target", "additional_target")


class Ignored(NamedTuple):
    """One setting without the effect that it seems to have."""

    rule: str
    severity: Severity
    key: str
    when: Callable[[CheckedRecipe], object]
    problem: str
    fix: str


def check_ignored(recipe: CheckedRecipe) -> Iterator[Finding]:
    """`ignored-key`, `sampled-answers`, `best-not-saved`, `repeated-dataset`, `trains-on-evaluation`."""
    for row in _TABLES[recipe.engine]:
        if row.when(recipe):
            yield recipe.finding(
                row.key, rule=row.rule, severity=row.severity, message=row.problem, fix=row.fix
            )
    if recipe.engine == "llamafactory" and recipe.command == "train":
        yield from _datasets(recipe)


def _datasets(recipe: CheckedRecipe) -> Iterator[Finding]:
    named = {key: _names(recipe.get(key)) for key in ("dataset", "eval_dataset")}
    for key, names in named.items():
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice:
            yield recipe.warning(
                key,
                "repeated-dataset",
                f"{twice} is listed twice and read once",
                fix="name it once; num_train_epochs repeats all data",
            )
    both = [name for name in named["eval_dataset"] if name in named["dataset"]]
    if both and recipe.get("do_train"):
        yield recipe.warning(
            "eval_dataset",
            "trains-on-evaluation",
            f"{', '.join(both)} is trained on as well: its figures say what was learned by heart",
            fix="name rows that are not trained on, or split some off with val_size",
        )


def _names(value: object) -> list[str]:
    parts = value.split(",") if isinstance(value, str) else value if isinstance(value, list) else []
    return [str(part).strip() for part in parts if str(part).strip()]


def _keeps_no_best(recipe: CheckedRecipe) -> bool:
    """As `load_best_model_at_end` is worked out in axolotl/core/builders/causal.py."""
    plugins = recipe.get("plugins", [])
    if recipe.get("load_best_model_at_end") is not True or PLUGIN in plugins or not recipe.evaluates:
        return False  # with our plugin it is an error, of the rule `axolotl-evaluation`
    saved, evaluated = as_number(recipe.get("save_steps")), as_number(recipe.get("eval_steps"))
    if saved and evaluated:
        return saved % evaluated != 0
    save = saved or recipe.get("saves_per_epoch")
    return not save or not (evaluated or recipe.get("evals_per_epoch"))


_CHOICES = ("metric_for_best_model", "load_best_model_at_end", "early_stopping_patience")


def _chooses_with_rl(key: str) -> Ignored:
    return Ignored(
        "ignored-key",
        "warning",
        key,
        lambda s: s.get(key) and s.get("rl") and PLUGIN not in s.get("plugins", ()),
        "with rl Axolotl hands it to no trainer",
        f"name {PLUGIN} under plugins, or remove it",
    )


def _for_lora(key: str) -> Ignored:
    return Ignored(
        "ignored-key",
        "hint",
        key,
        lambda s: s.get(key) is not None and s.effective("finetuning_type") in ("full", "freeze"),
        "it is for LoRA, and changes nothing here",
        f"remove {key}, or set finetuning_type: lora",
    )


# trl 0.20 takes the loss by name in each call, and LLaMA-Factory calls it without: measured with trl 0.24.0.
_LF_LOSSES = ("sigmoid", "orpo", "simpo")


def _another_loss(recipe: CheckedRecipe) -> bool:
    trl = recipe.installed("trl")
    named = recipe.get("pref_loss", "sigmoid")
    return (
        recipe.command == "train"
        and recipe.effective("stage") == "dpo"
        and named not in _LF_LOSSES
        and (not trl or order(trl) >= order("0.20"))
    )


# They bring trainers of their own, which our hook is not bound to.
_OTHER_TRAINERS = ("use_hyper_parallel", "use_mca", "use_megatron_bridge")


def _bypasses(key: str) -> Ignored:
    return Ignored(
        "metrics-bypassed",
        "error",
        key,
        lambda s: (
            s.get(key)
            and s.command == "train"
            and any(entry.metrics for entry in s.entries(s.evaluation_sets))
        ),
        "it trains by a trainer of its own, which measures none of the metrics that the sets ask for",
        f'remove {key}, or take "metric" out of the entries',
    )


# ATTN_IMPLS_SUPPORTING_PACKING of axolotl/utils/schemas/enums.py, and what keeps rows apart by its mask.
_PACKS = re.compile(
    r"flash_attention|flex_attention|xformers|sage|sdpa$|eager$|kernels-community/(?:flash|sage)"
)
_PACKS_BY_SWITCH = ("flash", "flex", "xformers", "sage", "sdp", "eager")


def _mixes_rows(recipe: CheckedRecipe) -> bool:
    switched = any(recipe.get(f"{name}_attention") for name in _PACKS_BY_SWITCH)
    named = str(recipe.get("attn_implementation") or "")
    return bool(recipe.get("sample_packing")) and not switched and not _PACKS.match(named)


_TABLES: dict[EngineName, tuple[Ignored, ...]] = {
    "llamafactory": (
        Ignored(
            "ignored-key", "warning", "logging_dir", lambda s: s.get("logging_dir") and s.transformers("5"),
            "transformers 5 takes it and reads it no more",
            "remove it; the environment variable TENSORBOARD_LOGGING_DIR names TensorBoard's folder",
        ),
        Ignored(
            "ignored-key", "warning", "gradient_checkpointing",
            lambda s: (
                s.values.get("gradient_checkpointing") is False
                and not s.get("disable_gradient_checkpointing")
            ),
            "LLaMA-Factory turns checkpointing on by itself, whatever this says",
            "write disable_gradient_checkpointing: true",
        ),
        Ignored(
            "dpo-loss", "error", "pref_loss", _another_loss,
            "LLaMA-Factory leaves the name out when it asks trl for the loss: whatever is written, "
            "sigmoid is trained",
            "write sigmoid, orpo or simpo, or install trl below 0.20",
        ),
        *map(_bypasses, _OTHER_TRAINERS),
        *map(_for_lora, _LORA),
        Ignored(
            "sampled-answers", "hint", "predict_with_generate",
            lambda s: s.get("predict_with_generate") and s.effective("do_sample") is not False,
            "answers are drawn at random, so figures differ from run to run", "add do_sample: false",
        ),
    ),
    "axolotl": (
        Ignored(
            "packed-attention", "warning", "sample_packing", _mixes_rows,
            "without an attention backend for it the packed rows see one another",
            "add attn_implementation: flash_attention_2, flex_attention or sdpa",
        ),
        Ignored(
            "ignored-key", "warning", "do_causal_lm_eval", lambda s: s.get("do_causal_lm_eval"),
            "Axolotl generates, then drops every metric: its evaluate and datasets do not go together",
            'remove it; give the dataset a "metric" and name the plugin of tunebook',
        ),
        Ignored(
            "ignored-key", "warning", "cosine_min_lr_ratio",
            lambda s: s.get("cosine_min_lr_ratio") and s.setting("scheduler") not in ("cosine", "rex"),
            "it is for lr_scheduler: cosine or rex", "remove it, or set lr_scheduler: cosine",
        ),
        Ignored(
            "ignored-key", "warning", "cosine_constant_lr_ratio",
            lambda s: (
                s.get("cosine_constant_lr_ratio")
                and not (s.get("cosine_min_lr_ratio") and s.setting("scheduler") == "cosine")
            ),
            "it is for lr_scheduler: cosine with cosine_min_lr_ratio", "add cosine_min_lr_ratio: 0.1",
        ),
        *map(_chooses_with_rl, _CHOICES),
        Ignored(
            "best-not-saved", "warning", "load_best_model_at_end", _keeps_no_best,
            "Axolotl turns it off without a message: save_steps has to be a multiple of eval_steps",
            "set eval_steps and an equal save_steps",
        ),
    ),
}  # fmt: skip


# Hints that cost nothing to heed: a model with little left to learn, a division that is not needed.

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


def check_advice(recipe: CheckedRecipe) -> Iterator[Finding]:
    """`headroom`, `zero3-not-needed`."""
    if recipe.command != "train":
        return
    key = recipe.name("model")
    model = str(recipe.get(key, ""))
    for entry in recipe.entries(recipe.evaluation_sets):
        for spec in entry.metrics:
            score = _BEFORE.get(spec.name, {}).get(model)
            if score is not None:
                yield recipe.hint(
                    key,
                    "headroom",
                    f"{model} is said to answer {score:.0%} of {spec.name} before any training: "
                    "there is little to gain",
                    fix="measure the base model first, or take a smaller one",
                )
    lora = (
        recipe.effective("finetuning_type") == "lora"
        if recipe.engine == "llamafactory"
        else bool(recipe.get("adapter"))
    )
    if lora and recipe.zero_stage == 3:
        yield recipe.hint(
            "deepspeed",
            "zero3-not-needed",
            "LoRA trains little: ZeRO-2 divides its states, and gathers no weights at each step",
            fix="take ZeRO-2 if the weights fit one GPU; ask `tunebook estimate`",
        )
