"""An Axolotl training recipe, turned into the recipe that evaluates what it has trained."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tunebook.engines.axolotl.datasets import render_block
from tunebook.engines.axolotl.rules import DIRECTORY_KEY, NAMES_KEY, PLUGIN
from tunebook.errors import TunebookError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tunebook.data.registry import Registry

# What is about optimizing, saving, tracking and spreading over devices. Everything else may decide what a
# model gives for a row, and stays.
_TRAINING_ONLY = frozenset(
    {
        *(
            "datasets",
            "test_datasets",
            "val_set_size",
            "dataset_prepared_path",
            "output_dir",
            "lora_model_dir",
        ),
        *("shuffle_merged_datasets", "pretraining_dataset", "streaming", "skip_prepare_dataset"),
        *(
            "sample_packing",
            "eval_sample_packing",
            "pad_to_sequence_len",
            "batch_flattening",
            "group_by_length",
        ),
        *("train_on_inputs", "rl", "trl", "reward_model", "process_reward_model", "max_prompt_len"),
        *("optimizer", "optim_args", "optim_target_modules", "lr_scheduler", "lr_scheduler_kwargs"),
        *("lr_groups", "lr_div_factor", "lr_quadratic_warmup", "embedding_lr", "embedding_lr_scale"),
        *("cosine_min_lr_ratio", "cosine_constant_lr_ratio", "warmup_steps", "warmup_ratio", "weight_decay"),
        *("max_grad_norm", "adam_beta1", "adam_beta2", "adam_beta3", "adam_epsilon", "adam_epsilon2"),
        *("num_epochs", "max_steps", "eval_steps", "evals_per_epoch", "eval_strategy", "evaluation_strategy"),
        *("save_steps", "saves_per_epoch", "save_strategy", "save_total_limit", "save_first_step"),
        *("save_only_model", "save_safetensors", "logging_steps", "load_best_model_at_end"),
        *("metric_for_best_model", "greater_is_better", "early_stopping_patience", "resume_from_checkpoint"),
        *("auto_resume_from_checkpoints", "loss_watchdog_threshold", "loss_watchdog_patience"),
        *("gradient_checkpointing", "gradient_checkpointing_kwargs", "activation_offloading"),
        *("neftune_noise_alpha", "noisy_embedding_alpha", "relora", "relora_cpu_offload", "torch_compile"),
        *("unfrozen_parameters", "loraplus_lr_ratio", "loraplus_lr_embedding", "curriculum_sampling"),
        *("deepspeed", "deepcompile", "fsdp", "fsdp_config", "fsdp_version", "fsdp_final_state_dict_type"),
        *("tensor_parallel_size", "context_parallel_size", "dp_shard_size", "dp_replicate_size"),
        *("sequence_parallel_degree", "use_ray", "ray_num_workers", "ray_run_name", "resources_per_worker"),
        *("do_bench_eval", "do_causal_lm_eval", "eval_table_size", "generate_samples", "profiler_steps"),
        *("hub_model_id", "hub_strategy", "hub_revision", "push_dataset_to_hub", "hf_mlflow_log_artifacts"),
        *("use_wandb", "use_mlflow", "use_comet", "use_trackio", "use_tensorboard", "use_otel_metrics"),
    }
)
_TRACKERS = ("wandb_", "mlflow_", "comet_", "trackio_", "otel_")


def evaluation_values(
    values: Mapping[str, Any],
    blocks: Sequence[Mapping[str, Any]],
    registry: Registry,
    datasets: Sequence[str] | None,
) -> dict[str, Any]:
    """Return the recipe with training off: same loader, template, limit of tokens and rows.

    Args:
        values: The resolved training recipe.
        blocks: Its `test_datasets`, on this machine.
        registry: Where `datasets` are looked up.
        datasets: Registry entries to evaluate on; None for the recipe's own sets.

    Raises:
        TunebookError: The recipe has no evaluation set that the registry knows.
    """
    kept = {
        key: value
        for key, value in values.items()
        if key not in _TRAINING_ONLY and not key.startswith(_TRACKERS)
    }
    names = list(datasets) if datasets is not None else list(values.get(NAMES_KEY) or [])
    if datasets is not None:
        blocks = [render_block(registry.entry(name), str(registry.path.parent)) for name in names]
    if not names or len(names) != len(blocks):
        raise TunebookError(
            f"the recipe has no evaluation set that a registry knows: it has no `{NAMES_KEY}`",
            fix="name one of the registry with --dataset",
        )
    return {
        **kept,
        # Axolotl wants something to train on. Of this it makes rows, and no pass over them.
        "datasets": [dict(blocks[0])],
        "test_datasets": [dict(block) for block in blocks],
        DIRECTORY_KEY: str(registry.path.parent),
        NAMES_KEY: names,
        "plugins": list(dict.fromkeys([*(values.get("plugins") or []), PLUGIN])),
        "eval_steps": 1,
        "num_epochs": 1,
        "dataloader_drop_last": False,
    }


def start_values(values: Mapping[str, Any], *, whole_model: str, adapter: str | None) -> dict[str, Any]:
    """Return what is to be loaded first.

    Args:
        values: From `evaluation_values`.
        whole_model: The model that the first subject is, or is put on.
        adapter: Any adapter of its run, where it has one: without it Axolotl would make a fresh one.
    """
    base = values["base_model"]
    # The rows are made with the tokenizer that training had.
    first = {**values, "base_model": whole_model, "tokenizer_config": values.get("tokenizer_config") or base}
    if adapter is None:
        first.pop("adapter", None)
        return first
    return {**first, "lora_model_dir": adapter}
