"""Each rule breaks on a recipe that has its fault, and keeps quiet on the nearest valid one."""

import json
from pathlib import Path

import pytest
import yaml

from tunebook import paths
from tunebook.checks.findings import CheckResult
from tunebook.checks.packages import bad_pairs
from tunebook.checks.run import check_recipe, refuse_errors, with_clashes

LLAMAFACTORY = {
    "model_name_or_path": "some/model",
    "template": "qwen3_nothink",
    "stage": "sft",
    "do_train": True,
    "finetuning_type": "lora",
    "dataset_dir": "data",
    "dataset": "train",
    "cutoff_len": 1024,
    "output_dir": "out",
    "learning_rate": 1.0e-4,
    "num_train_epochs": 1.0,
}
AXOLOTL = {
    "base_model": "some/model",
    "adapter": "lora",
    "datasets": [{"path": "some/set", "type": "alpaca"}],
    "sequence_len": 1024,
    "micro_batch_size": 1,
    "learning_rate": 1.0e-4,
    "output_dir": "out",
}
REGISTRY = {
    "train": {"file_name": "rows.json"},
    "test": {"file_name": "rows.json", "metric": "yes_no"},
    "filled": {"file_name": "rows.json", "metric": "yes_no", "num_samples": 1000},
    "drawn": {"file_name": "rows.json", "metric": "yes_no", "num_samples": 2},
    "words": {"file_name": "rows.json"},
    "misspelt": {"file_name": "rows.json", "column": {"prompt": "instruction", "response": "output"}},
    "half": {"file_name": "rows.json", "columns": {"prompt": "instruction"}},
    "whole": {"file_name": "rows.json", "columns": {"prompt": "instruction", "response": "output"}},
    "absent": {"file_name": "rows.json", "columns": {"prompt": "instruction", "response": "ouput"}},
    "gone": {"file_name": "gone.json"},
    "numbers": {"file_name": "numbers.json"},
    "hub": {"hf_hub_url": "some/set"},
    "pairs": {
        "file_name": "pairs.json",
        "ranking": True,
        "columns": {"prompt": "q", "chosen": "c", "rejected": "r"},
    },
    "chosen": {
        "file_name": "pairs.json",
        "ranking": True,
        "columns": {"prompt": "q", "chosen": "c", "rejected": "r"},
        "metric": "yes_no",
    },
    "marked": {
        "file_name": "rows.json",
        "columns": {"prompt": "instruction", "kto_tag": "tag"},
        "metric": "yes_no",
    },
    "pictures": {
        "file_name": "rows.json",
        "columns": {"prompt": "instruction", "response": "output", "images": "i"},
        "metric": "yes_no",
    },
    "pictured": {
        "file_name": "rows.json",
        "columns": {"prompt": "instruction", "response": "output", "images": "i"},
    },
    "written": {"file_name": "rows.json", "metric": {"name": "gsm8k", "mode": "generate"}},
}
EVALUATED = {"eval_dataset": "test", "eval_strategy": "steps", "eval_steps": 10, "save_steps": 10}
BEST = {**EVALUATED, "load_best_model_at_end": True}
ZERO3, ZERO2 = "z3.json", "z2.json"
CHOSEN = {**BEST, "stage": "dpo", "dataset": "pairs", "eval_dataset": "chosen"}
"""A run on preferences whose evaluation set carries a metric."""
PREFERENCES = {
    "rl": "dpo",
    "plugins": ["tunebook.hooks.axolotl.TunebookPlugin"],
    "tunebook_dataset_dir": "data",
    "tunebook_eval_datasets": ["chosen"],
    "test_datasets": [{"path": "data/pairs.json", "split": "train"}],
    "val_set_size": 0,
    "eval_steps": 5,
    "save_steps": 5,
    "load_best_model_at_end": True,
}


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    """A folder with a registry, ten rows, and two DeepSpeed files; the test stands in it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TUNEBOOK_LLAMAFACTORY_ENV", raising=False)
    (tmp_path / "data").mkdir()
    rows = [{"instruction": "?", "input": "", "output": "Yes"}] * 10
    (tmp_path / "data" / "rows.json").write_text(json.dumps(rows))
    numbers = [{"instruction": "?", "input": "", "output": True}]
    (tmp_path / "data" / "numbers.json").write_text(json.dumps(numbers))
    (tmp_path / "data" / "dataset_info.json").write_text(json.dumps(REGISTRY))
    for name, stage in ((ZERO2, 2), (ZERO3, 3)):
        (tmp_path / name).write_text(json.dumps({"zero_optimization": {"stage": stage}}))
    return tmp_path


def check(values, *, engine=LLAMAFACTORY, text="", command=None) -> CheckResult:
    merged = {key: value for key, value in (engine | values).items() if value is not None}
    return check_text(yaml.safe_dump(merged, sort_keys=False) + text, command=command)


def check_text(text, *, name="recipe.yaml", command=None) -> CheckResult:
    Path(name).write_text(text)
    return check_recipe(name, paths.home(), command=command).result


def rules(result: CheckResult) -> set[str]:
    return {finding.rule for finding in result.findings}


# rule, what breaks it, the near miss
LLAMAFACTORY_CASES = [
    ("unknown-key", {"cuttoff_len": 5}, {"cutoff_len": 5}),
    ("renamed-key", {"evaluation_strategy": "no"}, {"eval_strategy": "no"}),
    ("renamed-key", {"max_seq_length": 512}, {"cutoff_len": 512}),
    ("wrong-type", {"per_device_train_batch_size": "abc"}, {"per_device_train_batch_size": 2}),
    ("wrong-type", {"per_device_train_batch_size": 8.0}, {"num_train_epochs": 8}),
    ("wrong-type", {"adapter_name_or_path": ["a", "b"]}, {"dataset": ["train", "words"]}),
    ("wrong-type", {"run_name": 202401}, {"run_name": "202401"}),
    ("bad-choice", {"finetuning_type": "lorra"}, {"finetuning_type": "full"}),
    ("bad-choice", {"lr_scheduler_type": "cosin"}, {"lr_scheduler_type": "cosine"}),
    ("attention-name", {"flash_attn": "flash_attention_2"}, {"flash_attn": "fa2"}),
    ("attention-name", {"flash_attn": "eager"}, {"flash_attn": "disabled"}),
    ("attention-name", {"flash_attn": False}, {"flash_attn": "auto"}),
    ("undefined-dataset", {"dataset": "trian"}, {"dataset": "train"}),
    ("undefined-dataset", {"dataset": "train,tset"}, {"dataset": "train, test"}),
    ("missing-registry", {"dataset_dir": "nowhere"}, {"dataset_dir": "ONLINE"}),
    ("missing-data", {"dataset": "gone"}, {"dataset": "hub"}),
    ("registry-key", {"dataset": "misspelt"}, {"dataset": "whole"}),
    ("partial-columns", {"dataset": "half"}, {"dataset": "half", "stage": "pt"}),
    ("missing-column", {"dataset": "absent"}, {"dataset": "whole"}),
    ("unknown-template", {"template": "qwen33"}, {"template": "qwen3"}),
    (
        "template-mismatch",
        {"model_name_or_path": "google/gemma-2-9b-it", "template": "qwen3"},
        {"model_name_or_path": "google/gemma-2-9b-it", "template": "gemma2"},
    ),
    (
        "thinking-mode",
        {**EVALUATED, "template": "qwen3"},
        {**EVALUATED, "template": "qwen3", "enable_thinking": False},
    ),
    ("trains-nothing", {"do_train": None}, {"do_train": None, "do_eval": True, "eval_dataset": "test"}),
    ("no-dataset", {"dataset": None}, {"dataset": "train"}),
    ("two-evaluation-sets", {**EVALUATED, "val_size": 0.1}, {**EVALUATED, "val_size": 0.0}),
    ("nothing-to-evaluate", {"eval_strategy": "steps"}, {"eval_strategy": "steps", "val_size": 0.5}),
    ("one-row", {"val_size": 1, "do_eval": True}, {"val_size": 0.5, "do_eval": True}),
    ("never-evaluates", {"val_size": 0.5}, {"val_size": 0.5, "eval_strategy": "epoch"}),
    ("save-eval-steps", {**BEST, "save_steps": 15}, {**BEST, "save_steps": 10}),
    ("save-eval-steps", {**BEST, "save_strategy": "epoch"}, {**BEST, "save_strategy": "best"}),
    ("best-not-saved", {**BEST, "save_steps": 20}, BEST),
    ("metric-not-produced", {**BEST, "metric_for_best_model": "f2"}, {**BEST, "metric_for_best_model": "f1"}),
    (
        "metric-not-produced",
        {**BEST, "eval_dataset": "words", "metric_for_best_model": "accuracy"},
        {**BEST, "eval_dataset": "words", "metric_for_best_model": "accuracy", "compute_accuracy": True},
    ),
    (
        "metric-not-produced",
        {**BEST, "eval_dataset": "test,words", "eval_on_each_dataset": True, "metric_for_best_model": "loss"},
        {**BEST, "eval_dataset": "test,words", "eval_on_each_dataset": True, "metric_for_best_model": "test_f1"},
    ),
    (
        "token-accuracy",
        {**BEST, "eval_dataset": "words", "metric_for_best_model": "accuracy", "compute_accuracy": True},
        {**BEST, "metric_for_best_model": "accuracy"},
    ),
    ("early-stopping", {**EVALUATED, "early_stopping_steps": 3}, {**BEST, "early_stopping_steps": 3}),
    (
        "early-stopping",
        {"early_stopping_steps": 3, "metric_for_best_model": "loss"},
        {**BEST, "early_stopping_steps": 3, "metric_for_best_model": "loss"},
    ),
    (
        "greater-is-better",
        {**BEST, "metric_for_best_model": "perplexity", "greater_is_better": True},
        {**BEST, "metric_for_best_model": "perplexity"},
    ),
    (
        "greater-is-better",
        {**BEST, "metric_for_best_model": "f1", "greater_is_better": False},
        {**BEST, "metric_for_best_model": "loss", "greater_is_better": False},
    ),
    ("packed-evaluation", {**EVALUATED, "packing": True, "tokenized_path": "kept"}, {**EVALUATED, "packing": True}),
    ("packed-evaluation", {**EVALUATED, "train_on_prompt": True}, {"train_on_prompt": True}),
    (
        "generate-and-accuracy",
        {**EVALUATED, "predict_with_generate": True, "compute_accuracy": True},
        {**EVALUATED, "predict_with_generate": True},
    ),
    ("generation-at-length",
     {**EVALUATED, "predict_with_generate": True, "cutoff_len": 200_000},
     {**EVALUATED, "predict_with_generate": True, "cutoff_len": 32_768}),
    ("generation-at-length", {**EVALUATED, "eval_dataset": "written", "cutoff_len": 200_000},
     {**EVALUATED, "eval_dataset": "written"}),
    ("reload-at-length", {**BEST, "cutoff_len": 200_000}, {**EVALUATED, "cutoff_len": 200_000}),
    ("logits-at-length", {"cutoff_len": 200_000}, {"cutoff_len": 200_000, "enable_liger_kernel": True}),
    ("quantized-full", {"quantization_bit": 4, "finetuning_type": "full"}, {"quantization_bit": 4}),
    (
        "quantized-zero3",
        {"quantization_bit": 8, "deepspeed": ZERO3},
        {"quantization_bit": 4, "deepspeed": ZERO3},
    ),
    ("unsloth-zero3", {"use_unsloth": True, "deepspeed": ZERO3}, {"use_unsloth": True, "deepspeed": ZERO2}),
    ("zero3-conflict", {"pure_bf16": True, "deepspeed": ZERO3}, {"pure_bf16": True, "deepspeed": ZERO2}),
    ("optimizer-conflict", {"use_galore": True}, {"use_galore": True, "finetuning_type": "full"}),
    ("two-precisions", {"bf16": True, "fp16": True}, {"bf16": True, "fp16": False}),
    ("lora-option", {"use_dora": True, "finetuning_type": "full"}, {"use_dora": True}),
    (
        "scheduler-options",
        {"lr_scheduler_type": "cosine", "lr_scheduler_kwargs": {"min_lr": 1e-6}},
        {"lr_scheduler_type": "cosine_with_min_lr", "lr_scheduler_kwargs": {"min_lr": 1e-6}},
    ),
    (
        "scheduler-options",
        {"lr_scheduler_type": "cosine_with_min_lr", "lr_scheduler_kwargs": {"min_lr_factor": 0.1}},
        {"lr_scheduler_type": "cosine_with_min_lr", "lr_scheduler_kwargs": {"min_lr_rate": 0.1}},
    ),
    (
        "min-lr",
        {"lr_scheduler_type": "cosine_with_min_lr", "lr_scheduler_kwargs": {"min_lr": 0.1}},
        {"lr_scheduler_type": "cosine_with_min_lr", "lr_scheduler_kwargs": {"min_lr": 1e-5}},
    ),
    ("min-lr", {"lr_scheduler_type": "cosine_with_min_lr"}, {"lr_scheduler_type": "cosine"}),
    ("two-warmups", {"warmup_ratio": 0.1, "warmup_steps": 5}, {"warmup_ratio": 0.0, "warmup_steps": 5}),
    ("all-warmup", {"max_steps": 10, "warmup_steps": 10}, {"max_steps": 10, "warmup_steps": 9}),
    ("bad-count", {"gradient_accumulation_steps": 0}, {"gradient_accumulation_steps": 1}),
    ("not-paged", {"optim": "adamw_bnb_8bit"}, {"optim": "paged_adamw_8bit"}),
    ("steps-over-epochs", {"max_steps": 10}, {"max_steps": 10, "num_train_epochs": None}),
    ("high-rate", {"finetuning_type": "full"}, {"finetuning_type": "full", "learning_rate": 1e-5}),
    (
        "context-too-long",
        {"model_name_or_path": "Qwen/Qwen3-4B", "template": "qwen3", "cutoff_len": 65_000},
        {"model_name_or_path": "Qwen/Qwen3-4B-Instruct-2507", "cutoff_len": 65_000},
    ),
    (
        "rope-not-needed",
        {"model_name_or_path": "Qwen/Qwen3-4B", "rope_scaling": "yarn", "cutoff_len": 32_768},
        {"model_name_or_path": "Qwen/Qwen3-4B", "cutoff_len": 32_768},
    ),
    (
        "rope-length-type",
        {"model_name_or_path": "Qwen/Qwen3-4B", "rope_scaling": "yarn", "cutoff_len": 131_072},
        {"model_name_or_path": "Qwen/Qwen3-4B", "rope_scaling": "yarn", "cutoff_len": 32_768},
    ),
    (
        "soft-capping",
        {"model_name_or_path": "google/gemma-2-9b-it", "template": "gemma2", "flash_attn": "sdpa"},
        {"model_name_or_path": "google/gemma-2b-it", "template": "gemma", "flash_attn": "sdpa"},
    ),
    (
        "trust-remote-code",
        {"model_name_or_path": "Qwen/Qwen3-4B", "trust_remote_code": True},
        {"model_name_or_path": "baichuan-inc/Baichuan2-7B-Base", "trust_remote_code": True},
    ),
    ("lora-target", {"lora_target": "q_proj,v_prj"}, {"lora_target": "q_proj,v_proj"}),
    ("missing-deepspeed", {"deepspeed": "z9.json"}, {"deepspeed": ZERO2}),
    ("no-output-dir", {"output_dir": None}, {"output_dir": "out"}),
    ("missing-checkpoint", {"resume_from_checkpoint": "out/checkpoint-9"}, {"resume_from_checkpoint": ""}),
    ("stale-tokens", {"tokenized_path": "data"}, {"tokenized_path": "tokens"}),
    ("report-to", {"report_to": "wandb,tensorboard"}, {"report_to": ["wandb", "tensorboard"]}),
    ("export-in-training", {"export_dir": "merged"}, {}),
    ("secret", {"hf_hub_token": "hf_" + "a1B2" * 8}, {"hf_hub_token": "<your token>"}),
    ("secret", {"run_name": "hf_" + "a1B2" * 8}, {"pad_to_multiple_of": None, "run_name": "hf_run"}),
    ("attention-name", {"flash_attn": "fa3"}, {"flash_attn": "fa3", "model_name_or_path": "openai/gpt-oss-20b"}),
    ("ignored-key", {"logging_dir": "logs"}, {}),
    ("ignored-key", {"gradient_checkpointing": False},
     {"gradient_checkpointing": False, "disable_gradient_checkpointing": True}),
    ("ignored-key", {"finetuning_type": "full", "lora_rank": 8}, {"lora_rank": 8}),
    ("sampled-answers", {**EVALUATED, "predict_with_generate": True},
     {**EVALUATED, "predict_with_generate": True, "do_sample": False}),
    ("wrong-stage", {"dataset": "pairs"}, {"dataset": "pairs", "stage": "dpo"}),
    ("wrong-stage", {"stage": "dpo"}, {"dataset": "pairs", "stage": "rm"}),
    ("metric-ignored", {**EVALUATED, "stage": "pt"}, EVALUATED),
    ("metric-ignored", {**CHOSEN, "stage": "rm"}, CHOSEN),
    ("metric-ignored", {**EVALUATED, "stage": "ppo"}, {**EVALUATED, "stage": "kto"}),
    ("metric-not-produced", {**CHOSEN, "metric_for_best_model": "rewards/accuracy"},
     {**CHOSEN, "metric_for_best_model": "rewards/accuracies"}),
    ("metric-not-produced", {**CHOSEN, "metric_for_best_model": "sft_loss"},
     {**CHOSEN, "metric_for_best_model": "sft_loss", "pref_loss": "orpo"}),
    ("metric-not-produced", {**CHOSEN, "metric_for_best_model": "rouge1"},
     {**CHOSEN, "metric_for_best_model": "macro_f1"}),
    ("metric-not-produced", {**BEST, "stage": "kto", "metric_for_best_model": "rewards/accuracies"},
     {**BEST, "stage": "kto", "metric_for_best_model": "rewards/margins"}),
    ("metric-not-produced", {**BEST, "stage": "pt", "metric_for_best_model": "perplexity"},
     {**BEST, "stage": "pt", "metric_for_best_model": "eval_loss"}),
    ("greater-is-better", {**CHOSEN, "metric_for_best_model": "rewards/margins", "greater_is_better": False},
     {**CHOSEN, "metric_for_best_model": "rewards/rejected", "greater_is_better": False}),
    ("repeated-rows", {**EVALUATED, "eval_dataset": "filled"}, {**EVALUATED, "eval_dataset": "drawn"}),
    ("settings-conflict", {"streaming": True, "max_steps": 5},
     {"streaming": True, "max_steps": 5, "dataloader_num_workers": 1}),
    ("media-not-measured", {**EVALUATED, "stage": "dpo", "eval_dataset": "pictures"}, {**EVALUATED, "eval_dataset": "pictures"}),
    ("metric-not-produced", {**CHOSEN, "eval_dataset": "pairs", "metric_for_best_model": "macro_f1"},
     {**BEST, "stage": "dpo", "metric_for_best_model": "rewards/accuracies"}),
    ("metric-not-produced", {**BEST, "stage": "pt", "metric_for_best_model": "macro_f1"},
     {**BEST, "stage": "pt", "metric_for_best_model": "loss"}),
    ("repeated-dataset", {"dataset": "train,train"}, {"dataset": "train,words"}),
    ("trains-on-evaluation", {**EVALUATED, "eval_dataset": "train"}, EVALUATED),
    ("trains-on-evaluation", {**EVALUATED, "dataset": "test,train"}, {**EVALUATED, "dataset": "train"}),
    ("answer-type", {"dataset": "numbers"}, {"dataset": "words"}),
    ("headroom",
     {**EVALUATED, "eval_dataset": "written", "model_name_or_path": "google/gemma-2-9b-it", "template": "gemma2"},
     {**EVALUATED, "eval_dataset": "written", "model_name_or_path": "google/gemma-2b-it", "template": "gemma"}),
    ("zero3-not-needed", {"deepspeed": ZERO3}, {"deepspeed": ZERO2}),
    ("interpolation", {"output_dir": "out/${template}"}, {"output_dir": "out/$template"}),
]  # fmt: skip

AXOLOTL_CASES = [
    ("ignored-key", {**PREFERENCES, "plugins": []}, PREFERENCES),
    ("metric-ignored", {**PREFERENCES, "rl": None, "reward_model": True}, PREFERENCES),
    ("metric-ignored", {**PREFERENCES, "rl": "grpo"}, {**PREFERENCES, "rl": "simpo", "simpo_gamma": 0.5}),
    ("metric-not-produced", {**PREFERENCES, "metric_for_best_model": "rewards/accuracy"},
     {**PREFERENCES, "metric_for_best_model": "rewards/accuracies"}),
    ("metric-not-produced", {**PREFERENCES, "metric_for_best_model": "nll_loss"},
     {**PREFERENCES, "rl": "orpo", "metric_for_best_model": "nll_loss"}),
    ("axolotl-evaluation", {**PREFERENCES, "tunebook_eval_datasets": ["chosen", "test"],
                            "test_datasets": PREFERENCES["test_datasets"] * 2}, PREFERENCES),
    ("axolotl-evaluation", {**PREFERENCES, "save_steps": 4}, PREFERENCES),
    ("missing-column", {**PREFERENCES, "rl": None, "tunebook_eval_datasets": ["absent"],
                        "test_datasets": [{"path": "data/absent.json", "type": "tunebook.hooks.axolotl_alpaca"}]},
     {**PREFERENCES, "tunebook_eval_datasets": ["absent"]}),
    ("unknown-key", {"sequnce_len": 5}, {"sequence_len": 5}),
    ("unknown-key", {"datasets": [{"path": "a/b", "typ": "alpaca"}]}, {"datasets": [{"path": "a/b", "type": "x"}]}),
    ("unknown-key", {"liger_rope": True},
     {"liger_rope": True, "plugins": ["axolotl.integrations.liger.LigerPlugin"]}),
    ("renamed-key", {"num_train_epochs": 3}, {"num_epochs": 3}),
    ("renamed-key", {"adam_eps": 1e-8}, {"adam_epsilon": 1e-8}),
    ("wrong-type", {"micro_batch_size": "two"}, {"micro_batch_size": "2"}),
    ("wrong-type", {"wandb_project": 5}, {"wandb_project": "5"}),
    ("wrong-type", {"plugins": "a.B"}, {"plugins": ["a.B"]}),
    ("bad-choice", {"rl": "dpoo"}, {"rl": "dpo"}),
    ("number-as-string", {"lr_scheduler_kwargs": {"min_lr": "1e-6"}}, {"lr_scheduler_kwargs": {"min_lr": 1e-6}}),
    ("two-evaluation-sets", {"test_datasets": [{"path": "a/b"}], "val_set_size": 0.1, "eval_steps": 5},
     {"test_datasets": [{"path": "a/b"}], "eval_steps": 5}),
    ("never-evaluates", {"val_set_size": 0.1}, {"val_set_size": 0.1, "evals_per_epoch": 1}),
    ("nothing-to-evaluate", {"val_set_size": 0, "eval_steps": 5}, {"val_set_size": 0, "evals_per_epoch": 1}),
    ("greater-is-better", {"metric_for_best_model": "perplexity", "greater_is_better": False},
     {"metric_for_best_model": "eval_loss", "greater_is_better": False}),
    ("quantized-full", {"adapter": None, "load_in_4bit": True}, {"adapter": "qlora", "load_in_4bit": True}),
    ("quantized-zero3", {"load_in_8bit": True, "deepspeed": ZERO3}, {"load_in_8bit": True, "deepspeed": ZERO2}),
    ("reentrant-checkpointing",
     {"adapter": "qlora", "deepspeed": ZERO3, "gradient_checkpointing_kwargs": {"use_reentrant": False}},
     {"adapter": "qlora", "deepspeed": ZERO3, "gradient_checkpointing_kwargs": {"use_reentrant": True}}),
    ("two-warmups", {"warmup_ratio": 0.1, "warmup_steps": 5}, {"warmup_ratio": 0.1}),
    ("plugin-path", {"plugins": ["axolotl.integrations.liger.LigerPlugn"]},
     {"plugins": ["axolotl.integrations.liger.LigerPlugin"]}),
    ("plugin-path", {"plugins": ["LigerPlugin"]}, {"plugins": ["my_package.MyPlugin"]}),
    ("missing-data", {"datasets": [{"path": "gone.jsonl", "type": "alpaca"}]},
     {"datasets": [{"path": "data/rows.json", "type": "alpaca"}]}),
    ("removed-key", {"flash_attn_rms_norm": True}, {"flash_attn_rms_norm": False}),
    ("early-stopping", {"early_stopping_patience": 2, "evals_per_epoch": 4, "val_set_size": 0.1},
     {"early_stopping_patience": 2, "eval_steps": 5, "save_steps": 10, "val_set_size": 0.1}),
    ("best-without-metric", {"save_strategy": "best"}, {"save_strategy": "best", "metric_for_best_model": "eval_loss"}),
    ("fsdp-conflict", {"optimizer": "adamw_bnb_8bit", "fsdp_config": {"fsdp_version": 2}},
     {"optimizer": "adamw_bnb_8bit", "fsdp_config": {"fsdp_version": 1}}),
    ("fsdp-conflict",
     {"load_in_4bit": True, "fsdp_version": 2, "fsdp_config": {"cpu_ram_efficient_loading": True}},
     {"load_in_4bit": True, "fsdp_version": 2, "fsdp_config": {"cpu_ram_efficient_loading": False}}),
    ("secret", {"wandb_run_id": "hf_" + "a1B2" * 8}, {"expert_parallel_token_capacity": "64"}),
    ("secret", {"comet_api_key": "abcdefgh"}, {"plugins": ["a.B"], "moe_token_dispatcher": "alltoall"}),
    ("wrong-type", {"tokens": {"pad_token": "<pad>"}}, {"tokens": ["<pad>"]}),
    ("wrong-type", {"warmup_steps": 0.1}, {"warmup_ratio": 0.1}),
    ("lora-target", {"lora_target_modules": ["q_proj", "v_prj"]}, {"lora_target_modules": ["q_proj", "in_proj_ba"]}),
    ("attention-name", {"attn_implementation": "fa2"}, {"attn_implementation": "flash_attention_2"}),
    ("attention-name", {"attn_implementation": "flash"}, {"attn_implementation": "kernels-community/flash-attn3"}),
    ("bad-choice", {"lr_scheduler": "cosin"}, {"lr_scheduler": "rex"}),
    ("bad-choice", {"optimizer": "adamw_trch"}, {"optimizer": "somebodys_own"}),
    ("ignored-key", {"lr_scheduler": "linear", "cosine_min_lr_ratio": 0.1}, {"cosine_min_lr_ratio": 0.1}),
    ("ignored-key", {"cosine_constant_lr_ratio": 0.8}, {"cosine_constant_lr_ratio": 0.8, "cosine_min_lr_ratio": 0.1}),
    ("ignored-key", {"do_causal_lm_eval": True}, {"do_causal_lm_eval": False}),
    ("best-not-saved", {"load_best_model_at_end": True, "val_set_size": 0.1, "eval_strategy": "epoch", "saves_per_epoch": 1},
     {"load_best_model_at_end": True, "val_set_size": 0.1, "evals_per_epoch": 2, "saves_per_epoch": 1}),
    ("best-not-saved", {"load_best_model_at_end": True, "val_set_size": 0.1, "eval_steps": 4, "save_steps": 6},
     {"load_best_model_at_end": True, "val_set_size": 0.1, "eval_steps": 3, "save_steps": 6}),
    ("zero3-not-needed", {"deepspeed": ZERO3}, {"adapter": None, "deepspeed": ZERO3}),
    ("logits-at-length", {"sequence_len": 200_000}, {"sequence_len": 200_000, "context_parallel_size": 4}),
]  # fmt: skip


@pytest.mark.parametrize(("rule", "broken", "near_miss"), LLAMAFACTORY_CASES)
def test_a_llamafactory_rule_finds_its_fault_and_no_other(rule, broken, near_miss):
    assert rule in rules(check(broken))
    assert rule not in rules(check(near_miss))


@pytest.mark.parametrize(("rule", "broken", "near_miss"), AXOLOTL_CASES)
def test_an_axolotl_rule_finds_its_fault_and_no_other(rule, broken, near_miss):
    assert rule in rules(check(broken, engine=AXOLOTL))
    assert rule not in rules(check(near_miss, engine=AXOLOTL))


@pytest.mark.parametrize("engine", [LLAMAFACTORY, AXOLOTL], ids=["llamafactory", "axolotl"])
def test_the_recipe_the_cases_start_from_is_clean(engine):
    result = check({}, engine=engine)
    assert result.clean, result.findings


# YAML as it is typed, which no dump can give
TYPED = [
    ("thousands-separator", "save_steps: 262,144", "save_steps: 262_144"),
    ("thousands-separator", 'save_steps: "1000,"', "save_steps: 1000"),
    ("quoted-value", "do_eval: 'false'", "do_eval: false"),
    ("quoted-value", "max_steps: '8'", "max_steps: 8"),
    ("quoted-value", "quantization_bit: '4'", "quantization_bit: 4"),
    ("boolean-word", "eval_strategy: no", "eval_strategy: 'no'"),
    ("boolean-word", "save_strategy: off", "save_strategy: steps"),
    ("boolean-word", "default_system: Yes", "default_system: Yes."),
    ("octal-number", "max_samples: 010", "max_samples: 10"),
    ("base-sixty-number", "run_name: 1:30", "run_name: '1:30'"),
    ("duplicate-key", "seed: 1\nseed: 2", "seed: 1"),
    ("yaml-syntax", "a: [1, 2", "add_tokens: '[1, 2'"),
    ("yaml-syntax", "lr_scheduler_kwargs:\n\tnum_cycles: 1", "lr_scheduler_kwargs:\n  num_cycles: 0.5"),
    ("not-paged", "optim: adamw_bnb_8bit", "optim: adamw_torch"),
]


@pytest.mark.parametrize(("rule", "broken", "near_miss"), TYPED)
def test_a_trap_of_yaml_is_found(rule, broken, near_miss):
    start = {"lr_scheduler_type": "cosine"}
    assert rule in rules(check(start, text=broken + "\n"))
    assert rule not in rules(check(start, text=near_miss + "\n"))


@pytest.mark.parametrize("rate", ["1e-4", "1.0e-4", "0.0001"])
@pytest.mark.parametrize("engine", [LLAMAFACTORY, AXOLOTL], ids=["llamafactory", "axolotl"])
def test_both_engines_take_a_rate_without_a_dot(engine, rate):
    assert check({"learning_rate": None}, engine=engine, text=f"learning_rate: {rate}\n").clean


def test_a_key_without_a_value_is_reported_where_axolotl_refuses_it():
    result = check({"output_dir": None}, engine=AXOLOTL, text="output_dir:\nwandb_project:\n")
    assert [(f.key, f.rule) for f in result.findings if f.severity == "error"] == [
        ("output_dir", "wrong-type")
    ]


def test_axolotl_takes_the_last_of_two_equal_keys_and_the_check_says_so():
    result = check({}, engine=AXOLOTL, text="seed: 1\nseed: 2\n")
    assert "takes the last" in next(f.message for f in result.findings if f.rule == "duplicate-key")


def test_a_comment_that_promises_paging_makes_it_a_warning():
    result = check({}, text="optim: adamw_bnb_8bit  # paged 8-bit Adam\n")
    assert [f.severity for f in result.findings if f.rule == "not-paged"] == ["warning"]


def test_a_finding_names_line_key_and_fix():
    result = check_text(
        "model_name_or_path: a/b\ndo_train: true\ndataset: train\ndataset_dir: data\ncuttoff_len: 9\n"
    )
    finding = next(f for f in result.findings if f.rule == "unknown-key")
    assert (finding.file, finding.line, finding.key) == ("recipe.yaml", 5, "cuttoff_len")
    assert finding.text == "cuttoff_len: 9"
    assert finding.fix == "did you mean cutoff_len?"


def test_all_faults_of_a_file_are_reported_at_once():
    result = check({"cuttoff_len": 5, "finetuning_type": "lorra", "dataset": "trian"})
    assert {"unknown-key", "bad-choice", "undefined-dataset"} <= rules(result)


def test_a_secret_is_never_shown():
    secret = "hf_" + "a1B2" * 8
    assert secret not in repr(check({"hf_hub_token": secret}).findings)


def test_training_keys_are_refused_in_a_file_to_export_and_the_reverse():
    merge = {"model_name_or_path": "a/b", "adapter_name_or_path": "c", "template": "qwen3", "export_dir": "d"}
    assert check_text(yaml.safe_dump(merge)).clean
    result = check_text(yaml.safe_dump(merge | {"do_train": True, "output_dir": "e"}), command="export")
    assert {f.key for f in result.findings if f.rule == "other-command"} == {"do_train", "output_dir"}
    assert "trains-nothing" in rules(check_text(yaml.safe_dump(merge), command="train"))


def test_a_deepspeed_file_is_checked_by_itself_and_against_its_recipe(place):
    config = {"zero_optimization": {"stage": 2, "offload_param": {"device": "cpu"}}}
    (place / "bad.json").write_text(json.dumps(config))
    assert "deepspeed-config" in rules(check({"deepspeed": "bad.json"}))
    assert rules(check_recipe("bad.json", paths.home()).result) == {"deepspeed-config"}
    assert check_recipe(ZERO2, paths.home()).result.findings == ()
    (place / "fixed.json").write_text(json.dumps({"train_micro_batch_size_per_gpu": 4}))
    assert "deepspeed-mismatch" in rules(check({"deepspeed": "fixed.json"}))
    assert "deepspeed-mismatch" not in rules(
        check({"deepspeed": "fixed.json", "per_device_train_batch_size": 4})
    )
    (place / "auto.json").write_text(json.dumps({"train_micro_batch_size_per_gpu": "auto"}))
    assert check({"deepspeed": "auto.json"}).clean


def test_variables_in_lines_of_slurm_are_found(place):
    (place / "job.slurm").write_text("#!/bin/bash\n#SBATCH --nodes=$NODES\nsrun hostname\n#SBATCH --mem=1G\n")
    result = check_recipe("job.slurm", paths.home()).result
    assert [(f.rule, f.line) for f in result.findings] == [("sbatch-variable", 2), ("sbatch-late", 4)]
    (place / "job.slurm").write_text(
        "#!/bin/bash\n#SBATCH --output=%x-%j.out  # costs $5\nsrun echo $NODES\n"
    )
    assert check_recipe("job.slurm", paths.home()).result.clean


def test_a_registry_is_checked_by_itself():
    result = check_recipe("data/dataset_info.json", paths.home()).result
    assert {"registry-key", "missing-column"} <= rules(result)
    assert next(f for f in result.findings if f.rule == "missing-data").severity == "hint"


def test_a_json_recipe_is_checked_as_the_flat_recipe_it_becomes(place):
    nested = {"model_args": {"model_name_or_path": "a/b"}, "training_args": {"lerning_rate": 1e-5}}
    (place / "config.json").write_text(json.dumps(nested, indent=1))
    found = {f.rule: f for f in check_recipe("config.json", paths.home()).result.findings}
    assert found["json-recipe"].severity == "hint"
    assert (found["unknown-key"].line, found["unknown-key"].key) == (6, "lerning_rate")
    assert found["unknown-key"].edit is None  # it would write YAML into the file


def test_two_recipes_that_write_into_one_folder_are_reported_when_checked_together():
    text = yaml.safe_dump(LLAMAFACTORY)
    for name in ("one.yaml", "two.yaml"):
        Path(name).write_text(text)
    checked = [check_recipe(name, paths.home()) for name in ("one.yaml", "two.yaml")]
    assert ["output-clash" in rules(result) for result in with_clashes(checked)] == [False, True]
    Path("two.yaml").write_text(text.replace("output_dir: out", "output_dir: out2"))
    checked = [check_recipe(name, paths.home()) for name in ("one.yaml", "two.yaml")]
    assert not any("output-clash" in rules(result) for result in with_clashes(checked))


def test_a_folder_that_holds_another_kind_of_run_is_reported(place):
    (place / "out").mkdir()
    (place / "out" / "adapter_config.json").touch()
    assert "mixed-output" in rules(check({"finetuning_type": "full", "learning_rate": 1e-5}))
    assert "mixed-output" not in rules(check({}))


def test_checkpoints_that_an_overwritten_folder_keeps_are_reported(place):
    (place / "out" / "checkpoint-10").mkdir(parents=True)
    assert "old-checkpoints" in rules(check({"overwrite_output_dir": True}))
    assert "old-checkpoints" not in rules(check({}))


def test_a_misspelt_key_is_not_renamed_to_one_that_is_there_already():
    by_key = {f.key: f.edit for f in check({"cuttoff_len": 5}).findings if f.rule == "unknown-key"}
    assert by_key == {"cuttoff_len": None}
    by_key = {f.key: f.edit for f in check({"cuttoff_len": 5, "cutoff_len": None}).findings if f.edit}
    assert by_key["cuttoff_len"].text == "cutoff_len"


def test_a_file_of_neither_engine_is_no_recipe_but_a_misspelt_model_key_does_not_hide_one():
    assert [f.severity for f in check_text("learning_rate: 1\nneither: 2\nor: 3\n").findings] == ["error"]
    for other in (
        "compute_environment: LOCAL\ndistributed_type: FSDP\n",
        "provider: modal\n",
        "model: a/b\n",
        "- match:\n    name: a\n",
    ):
        assert [(f.rule, f.severity) for f in check_text(other).findings] == [("not-a-recipe", "hint")]
    text = yaml.safe_dump(LLAMAFACTORY).replace("model_name_or_path", "model_name_or_pth")
    finding = next(f for f in check_text(text).findings if f.rule == "unknown-key")
    assert finding.fix == "did you mean model_name_or_path?"


def test_what_prevents_the_evaluation_of_our_axolotl_plugin_is_reported():
    ours = {
        "plugins": ["tunebook.hooks.axolotl.TunebookPlugin"],
        "tunebook_dataset_dir": "data",
        "tunebook_eval_datasets": ["test"],
        "test_datasets": [{"path": "data/rows.json", "type": "tunebook.hooks.axolotl_alpaca"}],
        "eval_steps": 5,
    }
    assert "axolotl-evaluation" not in rules(check(ours, engine=AXOLOTL))
    streamed = check({**ours, "streaming": True, "max_steps": 5}, engine=AXOLOTL)
    assert [f.key for f in streamed.findings if f.rule == "axolotl-evaluation"] == ["streaming"]


def test_versions_known_to_be_bad_together_are_named():
    assert [pair[0] for pair in bad_pairs("llamafactory", {"transformers": "5.6.0"})] == ["flash_attn: fa2"]
    assert bad_pairs("axolotl", {"transformers": "5.6.0"}) == []
    assert bad_pairs("llamafactory", {"torch": "2.11.0+cu128", "torchaudio": "2.11.0+cu126"})
    assert bad_pairs("llamafactory", {"torch": "2.11.0+cu128", "torchaudio": "2.11.0+cu128"}) == []


def environment(place, monkeypatch, **versions):
    """An environment of LLaMA-Factory with these distributions."""
    packages = place / "env" / "lib" / "python3.11" / "site-packages"
    for name, version in {"llamafactory": "0.9.5", **versions}.items():
        folder = packages / f"{name}-{version}.dist-info"
        folder.mkdir(parents=True)
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    monkeypatch.setenv("TUNEBOOK_LLAMAFACTORY_ENV", str(place / "env"))


def test_a_missing_package_is_reported_and_is_no_fault_of_the_recipe(place, monkeypatch):
    environment(place, monkeypatch, transformers="5.5.4", bitsandbytes="0.50.2")
    result = check({"enable_liger_kernel": True, "flash_attn": "fa2", "quantization_bit": 4})
    told = {f.key: f.message for f in result.findings if f.rule == "missing-package"}
    assert told == {
        "enable_liger_kernel": "env lacks liger-kernel: the run stops before it has loaded anything",
        "flash_attn": "env lacks flash-attn: PyTorch's attention takes its place, with one line in the log",
    }
    assert result.clean
    assert len(refuse_errors(result)) == 2


@pytest.mark.parametrize(("version", "told"), [("4.57.6", True), ("5.5.4", False)])
def test_reentrant_checkpointing_under_lora_fails_before_transformers_5(place, monkeypatch, version, told):
    environment(place, monkeypatch, transformers=version)
    values = {"gradient_checkpointing": True, "disable_gradient_checkpointing": True}
    assert ("reentrant-checkpointing" in rules(check(values))) == told
    safe = {**values, "gradient_checkpointing_kwargs": {"use_reentrant": False}}
    assert "reentrant-checkpointing" not in rules(check(safe))


def test_bad_versions_are_reported_where_the_recipe_is_concerned(place, monkeypatch):
    environment(place, monkeypatch, transformers="5.6.0")
    assert "bad-versions" in rules(check({"flash_attn": "fa2"}))
    assert "bad-versions" not in rules(check({"flash_attn": "sdpa"}))


def test_rope_scaling_loads_before_transformers_5_and_differs_at_inference(place, monkeypatch):
    environment(place, monkeypatch, transformers="4.57.1")
    scaled = {"model_name_or_path": "Qwen/Qwen3-4B", "rope_scaling": "yarn"}
    found = rules(check({**scaled, "cutoff_len": 131_072}))
    assert "rope-at-inference" in found
    assert "rope-length-type" not in found
    assert "rope-at-inference" not in rules(check({**scaled, "cutoff_len": 81_920}))
