"""What LLaMA-Factory refuses when it reads a recipe (hparams/parser.py and the `__post_init__` beside it)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tunebook.checks.recipe import as_number
from tunebook.checks.refusal import CONFLICT, MISSING, Refusal

if TYPE_CHECKING:
    from tunebook.checks.recipe import CheckedRecipe

_SAVERS = ("use_galore", "use_apollo", "use_badam")
_PPO_TRACKERS = frozenset({"wandb", "tensorboard", "trackio", "none"})
_SFT_ONLY = ("predict_with_generate", "neat_packing", "train_on_prompt", "mask_history")


def _trains(recipe: CheckedRecipe) -> bool:
    return recipe.command == "train"


def _stage(recipe: CheckedRecipe) -> object:
    return recipe.effective("stage")


def _other_stage(key: str) -> Refusal:
    return Refusal(
        CONFLICT,
        key,
        lambda s: _trains(s) and s.get(key) and _stage(s) != "sft",
        f"`{key}` is for stage: sft only",
        f"remove {key}, or set stage: sft",
    )


def _names(value: object) -> list[str]:
    parts = value.split(",") if isinstance(value, str) else value if isinstance(value, list) else []
    return [str(part).strip() for part in parts]


def _uneven_shares(recipe: CheckedRecipe) -> bool:
    shares = _names(recipe.get("interleave_probs"))
    named = [_names(recipe.get(key)) for key in ("dataset", "eval_dataset") if recipe.get(key)]
    return bool(shares) and any(len(names) != len(shares) for names in named)


TABLE: tuple[Refusal, ...] = (
    Refusal(
        MISSING, "model_name_or_path", lambda s: not s.get("model_name_or_path"),
        "there is no model", "add model_name_or_path: <name on the hub, or folder>",
    ),
    Refusal(
        "no-dataset", "do_train", lambda s: _trains(s) and s.get("do_train") and not s.get("dataset"),
        "there is no `dataset` to train on", "add dataset: <name in dataset_info.json>",
    ),
    Refusal(
        "two-evaluation-sets", "val_size", lambda s: s.get("eval_dataset") and as_number(s.get("val_size")),
        "`eval_dataset` and `val_size` cannot both be set", "remove one of them",
    ),
    *map(_other_stage, _SFT_ONLY),
    Refusal(
        CONFLICT, "neat_packing",
        lambda s: _trains(s) and s.get("neat_packing") and s.transformers("4.53"),
        "neat packing does not go with transformers 4.53 and later", "write packing: true", until="0.9.5",
    ),
    Refusal(
        CONFLICT, "load_best_model_at_end",
        lambda s: _stage(s) in ("rm", "ppo") and s.get("load_best_model_at_end"),
        "reward modelling and PPO cannot reload the best model", "remove load_best_model_at_end",
    ),
    Refusal(
        MISSING, "stage", lambda s: _stage(s) == "ppo" and not s.get("reward_model"),
        "PPO needs a reward model", "add reward_model: <folder or name>",
    ),
    Refusal(
        CONFLICT, "stage", lambda s: _trains(s) and _stage(s) == "ppo" and not s.get("do_train"),
        "PPO trains and cannot only evaluate", "add do_train: true, or evaluate with stage: sft",
    ),
    Refusal(
        "generate-and-accuracy", "compute_accuracy",
        lambda s: s.get("predict_with_generate") and s.get("compute_accuracy"),
        "`predict_with_generate` and `compute_accuracy` cannot both be set", "remove compute_accuracy",
    ),
    Refusal(
        "generate-and-accuracy", "do_predict",
        lambda s: _stage(s) == "sft" and s.get("do_predict") and not s.get("predict_with_generate"),
        "do_predict needs predict_with_generate", "add predict_with_generate: true",
    ),
    Refusal(
        CONFLICT, "report_to",
        lambda s: _stage(s) == "ppo" and not _PPO_TRACKERS.issuperset(_names(s.get("report_to"))),
        "PPO reports to wandb, tensorboard or trackio only", "name one of these",
    ),
    Refusal(
        MISSING, "streaming",
        lambda s: _trains(s) and s.get("streaming") and (as_number(s.get("max_steps")) or -1) < 1,
        "a stream has no length: the steps have to be given", "add max_steps: <number>",
    ),
    Refusal(
        CONFLICT, "val_size", lambda s: s.get("streaming") and 0 < (as_number(s.get("val_size")) or 0) < 1,
        "a stream cannot give away a share of its rows", "give val_size a number of rows",
    ),
    Refusal(
        CONFLICT, "max_samples", lambda s: s.get("streaming") and s.get("max_samples") is not None,
        "`max_samples` does not go with streaming", "remove max_samples; max_steps ends the run",
    ),
    Refusal(
        CONFLICT, "mask_history", lambda s: s.get("mask_history") and s.get("train_on_prompt"),
        "`mask_history` and `train_on_prompt` cannot both be set", "remove one of them",
    ),
    Refusal(
        CONFLICT, "interleave_probs",
        lambda s: s.get("interleave_probs") and s.effective("mix_strategy") == "concat",
        "shares are for interleaved datasets, and mix_strategy is concat",
        "set mix_strategy: interleave_under, or remove interleave_probs",
    ),
    Refusal(
        CONFLICT, "interleave_probs",
        lambda s: s.effective("mix_strategy") != "concat" and _uneven_shares(s),
        "there are not as many shares as datasets", "give one share for each dataset",
    ),
    Refusal(
        CONFLICT, "adapter_name_or_path",
        lambda s: s.get("adapter_name_or_path") and s.effective("finetuning_type") != "lora",
        "an adapter goes with finetuning_type: lora only",
        "set finetuning_type: lora, or merge the adapter first",
    ),
    Refusal(
        CONFLICT, "create_new_adapter",
        lambda s: (
            s.get("create_new_adapter") and s.get("adapter_name_or_path") and s.get("quantization_bit")
        ),
        "a quantised model takes no second adapter",
        "merge the first one, or remove create_new_adapter",
    ),
    Refusal(
        CONFLICT, "infer_backend",
        lambda s: _trains(s) and s.effective("infer_backend") not in ("huggingface", "hf"),
        "vLLM and SGLang are for chat and the API only", "remove infer_backend",
    ),
    Refusal(
        MISSING, "lr_scheduler_type",
        lambda s: (
            s.effective("lr_scheduler_type") == "reduce_lr_on_plateau"
            and s.effective("eval_strategy") in ("no", False)
        ),
        "it lowers the rate when an evaluation says so, and there is none",
        "add eval_strategy: steps and eval_steps",
    ),
    Refusal(
        "bad-count", "logging_steps",
        lambda s: (
            _trains(s)
            and as_number(s.get("logging_steps")) == 0
            and s.effective("logging_strategy") == "steps"
        ),
        "0 steps between two log lines", "set logging_steps: 1 or more, or logging_strategy: 'no'",
    ),
    Refusal(
        "bad-count", "warmup_steps", lambda s: (as_number(s.get("warmup_steps")) or 0) < 0,
        "there is no warmup of less than no steps", "remove it, or give a number from 0",
    ),
    Refusal(
        "bad-count", "seed", lambda s: not 0 <= (as_number(s.get("seed")) or 0) < 2**32,
        "a seed is a number from 0 to 4,294,967,295", "set seed: 42",
    ),
    Refusal(
        "optimizer-conflict", "use_apollo", lambda s: sum(bool(s.get(key)) for key in _SAVERS) > 1,
        "GaLore, APOLLO and BAdam exclude one another", "keep one of them",
    ),
    Refusal(
        CONFLICT, "use_llama_pro",
        lambda s: s.get("use_llama_pro") and s.effective("finetuning_type") == "full",
        "LLaMA Pro trains some layers, not all", "set finetuning_type: freeze or lora",
    ),
    Refusal(
        CONFLICT, "dpo_label_smoothing",
        lambda s: (
            _stage(s) == "dpo"
            and as_number(s.get("dpo_label_smoothing"))
            and s.effective("pref_loss") != "sigmoid"
        ),
        "label smoothing is for the sigmoid loss only", "remove it, or set pref_loss: sigmoid",
    ),
    Refusal(
        MISSING, "export_quantization_bit",
        lambda s: s.get("export_quantization_bit") and not s.get("export_quantization_dataset"),
        "quantising needs data to calibrate on", "add export_quantization_dataset: <file or folder>",
    ),
)  # fmt: skip
"""Rows in the order of a recipe's life: model, data, stage, schedule, method, export."""
