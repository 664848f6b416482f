"""A LLaMA-Factory training recipe, turned into the recipe that evaluates what it has trained."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tunebook.engines.schema import load_schema
from tunebook.errors import TunebookError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

# Of the keys that say how a model is loaded and what its rows are, those that belong to training alone, or
# that leave no answer to be told from its prompt.
_TRAINING_ONLY = frozenset(
    {
        *("dataset", "eval_dataset", "val_size", "eval_on_each_dataset", "tokenized_path", "overwrite_cache"),
        *("packing", "neat_packing", "train_on_prompt", "streaming", "buffer_size", "mix_strategy"),
        *(
            "interleave_probs",
            "predict_with_generate",
            "adapter_name_or_path",
            "use_unsloth",
            "use_unsloth_gc",
        ),
        *("shift_attn", "moe_aux_loss_coef", "print_param_status", "train_from_scratch"),
    }
)
_FOREIGN = ("export_", "vllm_", "sglang_", "infer_", "kt_")

# Of the others, those that decide what the same weights give for the same row. Not `finetuning_type`: without
# training and without an adapter, which we put on ourselves, LLaMA-Factory loads the bare model for each.
_KEPT = frozenset(
    {
        *("pure_bf16", "bf16", "fp16", "tf32", "use_cpu", "seed"),
        *("bf16_full_eval", "fp16_full_eval", "per_device_eval_batch_size", "ddp_timeout", "disable_tqdm"),
    }
)


def evaluation_values(values: Mapping[str, Any], datasets: Sequence[str] | None) -> dict[str, Any]:
    """Return the recipe with training off: same loader, template, limit of tokens and rows.

    Args:
        values: The resolved training recipe.
        datasets: Registry entries to evaluate on; None for the recipe's own sets, arranged as it says.

    Raises:
        TunebookError: The recipe has no evaluation set, or one whose rows are not answers.
    """
    keys = load_schema("llamafactory")["keys"]
    kept = {key: value for key, value in values.items() if key in _KEPT or _is_about_rows(key, keys)}
    merged = _adapters_below(values)
    if merged and values.get("quantization_bit"):
        raise TunebookError(
            f"{merged} was put on a quantized base before training, and LLaMA-Factory cannot merge it there",
            fix="merge it into the base with `tunebook merge`, and evaluate on that",
        )
    if merged:
        kept["adapter_name_or_path"] = merged
    if datasets is not None:
        kept |= {"eval_dataset": ",".join(datasets), "eval_on_each_dataset": len(datasets) > 1}
    elif values.get("eval_dataset") or values.get("val_size"):
        if values.get("stage", "sft") != "sft":
            raise TunebookError(
                f"the run's evaluation sets are for `stage: {values['stage']}`: they hold no single answer",
                fix="name a set of questions and answers with --dataset",
            )
        own = ("eval_dataset", "eval_on_each_dataset")
        if values.get("val_size"):
            own = ("dataset", "val_size")
        kept |= {key: values[key] for key in own if values.get(key)}
    else:
        raise TunebookError(
            "the recipe has no evaluation set: neither `eval_dataset` nor `val_size`",
            fix="name one of the registry with --dataset",
        )
    return {**kept, "stage": "sft", "do_eval": True, "eval_strategy": "no", "report_to": "none"}


def set_names(values: Mapping[str, Any], names: Sequence[str]) -> tuple[str, ...]:
    """Return what the sets of an evaluation recipe are called: several are merged unless it says not.

    Args:
        values: From `evaluation_values`.
        names: Their registry entries.
    """
    return tuple(names) if values.get("eval_on_each_dataset") else ("+".join(names),)


def _is_about_rows(key: str, keys: Mapping[str, Any]) -> bool:
    groups = keys.get(key, {}).get("groups", ())
    return (
        ("model" in groups or "data" in groups) and key not in _TRAINING_ONLY and not key.startswith(_FOREIGN)
    )


def _adapters_below(values: Mapping[str, Any]) -> str | None:
    """Return the adapters that were merged into the base before training, not the one that was trained on."""
    given = values.get("adapter_name_or_path")
    names = given.split(",") if isinstance(given, str) else list(given or [])
    if not values.get("create_new_adapter"):
        names = names[:-1]
    return ",".join(str(name).strip() for name in names) or None
