"""Every row of the tables of refusals breaks on its recipe, keeps quiet on the nearest valid one, and is the
engine's own: the same recipes are given to the installed engine's parser."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tunebook import paths
from tunebook.checks.run import REFUSALS, check_recipe
from tunebook.engines.schema import load_schema

LLAMAFACTORY = {
    "model_name_or_path": "some/model",
    "template": "qwen3_nothink",
    "stage": "sft",
    "do_train": True,
    "finetuning_type": "lora",
    "dataset_dir": "ONLINE",
    "dataset": "one",
    "cutoff_len": 1024,
    "output_dir": "out",
    "learning_rate": 1.0e-4,
    "use_cpu": True,
    "report_to": "none",
}
AXOLOTL = {
    "base_model": "some/model",
    "adapter": "lora",
    "lora_r": 8,
    "lora_alpha": 16,
    "datasets": [{"path": "some/set", "type": "alpaca"}],
    "sequence_len": 1024,
    "micro_batch_size": 1,
    "gradient_accumulation_steps": 1,
    "learning_rate": 1.0e-4,
    "optimizer": "adamw_torch",
    "output_dir": "out",
    "num_epochs": 1,
    "bf16": True,
}
SET = {"path": "some/set", "type": "alpaca"}
EVALUATED = {"eval_dataset": "two", "eval_strategy": "steps", "eval_steps": 10, "save_steps": 10}
FLASH = {"attn_implementation": "flash_attention_2"}
FSDP2 = {"fsdp_version": 2}
LIGER = "axolotl.integrations.liger.LigerPlugin"

# key that is shown, what breaks it, the near miss; None takes a key out of the recipe above
LLAMAFACTORY_CASES = [
    ("model_name_or_path", {"model_name_or_path": None}, {}),
    ("do_train", {"dataset": None}, {}),
    ("val_size", {**EVALUATED, "val_size": 0.1}, {**EVALUATED, "val_size": 0.0}),
    ("predict_with_generate", {**EVALUATED, "stage": "pt", "predict_with_generate": True}, {"stage": "pt"}),
    ("neat_packing", {"stage": "pt", "neat_packing": True}, {"neat_packing": True}),
    ("train_on_prompt", {"stage": "dpo", "train_on_prompt": True}, {"train_on_prompt": True}),
    ("mask_history", {"stage": "pt", "mask_history": True}, {"mask_history": True}),
    ("load_best_model_at_end", {**EVALUATED, "stage": "rm", "load_best_model_at_end": True},
     {**EVALUATED, "load_best_model_at_end": True}),
    ("stage", {"stage": "ppo"}, {"stage": "ppo", "reward_model": "a/b"}),
    ("stage", {"stage": "ppo", "reward_model": "a/b", "do_train": False}, {"stage": "ppo", "reward_model": "a/b"}),
    ("report_to", {"stage": "ppo", "reward_model": "a/b", "report_to": ["mlflow"]},
     {"stage": "ppo", "reward_model": "a/b", "report_to": ["tensorboard"]}),
    ("compute_accuracy", {**EVALUATED, "predict_with_generate": True, "compute_accuracy": True},
     {**EVALUATED, "compute_accuracy": True}),
    ("do_predict", {**EVALUATED, "do_predict": True}, {**EVALUATED}),
    ("streaming", {"streaming": True}, {"streaming": True, "max_steps": 5}),
    ("val_size", {"streaming": True, "max_steps": 5, "val_size": 0.1},
     {"streaming": True, "max_steps": 5, "val_size": 10}),
    ("max_samples", {"streaming": True, "max_steps": 5, "max_samples": 5}, {"max_samples": 5}),
    ("mask_history", {"mask_history": True, "train_on_prompt": True}, {"mask_history": True}),
    ("interleave_probs", {"interleave_probs": "0.5"}, {"interleave_probs": "1.0", "mix_strategy": "interleave_over"}),
    ("interleave_probs",
     {"dataset": "one,two", "mix_strategy": "interleave_over", "interleave_probs": "0.5"},
     {"dataset": "one,two", "mix_strategy": "interleave_over", "interleave_probs": "0.5,0.5"}),
    ("adapter_name_or_path", {"finetuning_type": "full", "adapter_name_or_path": "x"}, {"adapter_name_or_path": "x"}),
    ("create_new_adapter",
     {"quantization_bit": 4, "adapter_name_or_path": "x", "create_new_adapter": True},
     {"adapter_name_or_path": "x", "create_new_adapter": True}),
    ("infer_backend", {"infer_backend": "vllm"}, {"infer_backend": "huggingface"}),
    ("lr_scheduler_type", {"lr_scheduler_type": "reduce_lr_on_plateau"},
     {**EVALUATED, "lr_scheduler_type": "reduce_lr_on_plateau"}),
    ("logging_steps", {"logging_steps": 0}, {"logging_steps": 0.5}),
    ("warmup_steps", {"warmup_steps": -1}, {"warmup_steps": 0}),
    ("seed", {"seed": -1}, {"seed": 0}),
    ("use_apollo", {"finetuning_type": "full", "use_galore": True, "use_apollo": True}, {"finetuning_type": "full"}),
    ("use_llama_pro", {"finetuning_type": "full", "use_llama_pro": True}, {"use_llama_pro": True}),
    ("dpo_label_smoothing", {"stage": "dpo", "pref_loss": "hinge", "dpo_label_smoothing": 0.1},
     {"stage": "dpo", "dpo_label_smoothing": 0.1}),
    ("export_quantization_bit", {"export_dir": "x", "export_quantization_bit": 4}, {"export_dir": "x"}),
]  # fmt: skip

AXOLOTL_CASES = [
    ("base_model", {"base_model": None}, {}),
    ("learning_rate", {"learning_rate": None}, {"learning_rate": "1e-4"}),
    ("learning_rate", {"learning_rate": "small"}, {}),
    ("datasets", {"datasets": None}, {"datasets": None, "pretraining_dataset": [{"path": "a/b"}], "max_steps": 5}),
    ("datasets", {"datasets": SET}, {"datasets": [SET]}),
    ("datasets", {"datasets": [{"path": "a/b", "type": "sharegpt"}]}, {"datasets": [{"path": "a/b", "type": "chat_template"}]}),
    ("batch_size", {"batch_size": 8}, {"batch_size": 8, "gradient_accumulation_steps": None}),
    ("batch_size", {"batch_size": 8, "micro_batch_size": None, "gradient_accumulation_steps": None},
     {"micro_batch_size": None, "gradient_accumulation_steps": None}),
    ("push_dataset_to_hub", {"push_dataset_to_hub": "a/b"}, {"push_dataset_to_hub": "a/b", "hf_use_auth_token": True}),
    ("adapter", {"adapter": "lorra"}, {"adapter": "lora"}),
    ("chat_template", {"chat_template": "jinja"}, {"chat_template_jinja": "{{ messages }}"}),
    ("tokenizer_use_mistral_common", {"tokenizer_use_mistral_common": True, "chat_template": "chatml"},
     {"chat_template": "chatml"}),
    ("val_set_size", {"test_datasets": [SET], "val_set_size": 0.1, "eval_steps": 5}, {"test_datasets": [SET], "eval_steps": 5}),
    ("eval_steps", {"val_set_size": 0, "eval_steps": 5}, {"val_set_size": 0, "evals_per_epoch": 1}),
    ("eval_strategy", {"val_set_size": 0, "eval_strategy": "epoch"}, {"val_set_size": 0, "eval_strategy": "no"}),
    ("saves_per_epoch", {"saves_per_epoch": 1, "save_steps": 5}, {"saves_per_epoch": 1}),
    ("evals_per_epoch", {"val_set_size": 0.1, "evals_per_epoch": 1, "eval_steps": 5}, {"val_set_size": 0.1, "eval_steps": 5}),
    ("save_strategy", {"save_strategy": "epoch", "save_steps": 5}, {"save_strategy": "steps", "save_steps": 5}),
    ("eval_strategy", {"val_set_size": 0.1, "eval_strategy": "epoch", "eval_steps": 5},
     {"val_set_size": 0.1, "eval_strategy": "steps", "eval_steps": 5}),
    ("evals_per_epoch", {"val_set_size": 0.1, "evals_per_epoch": 1, "eval_strategy": "epoch"},
     {"val_set_size": 0.1, "evals_per_epoch": 1, "eval_strategy": "steps"}),
    ("do_bench_eval", {"val_set_size": 0.1, "do_bench_eval": True},
     {"val_set_size": 0.1, "do_bench_eval": True, "eval_steps": 5}),
    ("early_stopping_patience", {"early_stopping_patience": 2, "val_set_size": 0.1, "eval_steps": 5, "save_steps": 8},
     {"early_stopping_patience": 2, "val_set_size": 0.1, "eval_steps": 5, "save_steps": 10}),
    ("save_strategy", {"save_strategy": "best"}, {"save_strategy": "best", "metric_for_best_model": "eval_loss"}),
    ("warmup_ratio", {"warmup_ratio": 0.1, "warmup_steps": 5}, {"warmup_ratio": 0.1}),
    ("do_causal_lm_eval", {"val_set_size": 0.1, "eval_steps": 5, "do_causal_lm_eval": True, "eval_sample_packing": True},
     {"val_set_size": 0.1, "eval_steps": 5, "eval_sample_packing": True}),
    ("eval_causal_lm_metrics", {"eval_causal_lm_metrics": ["bleu"]}, {"eval_causal_lm_metrics": ["chrf"]}),
    ("eval_table_size", {"sample_packing": True, "eval_table_size": 5},
     {"sample_packing": True, "eval_table_size": 5, "eval_sample_packing": False}),
    ("streaming", {"streaming": True}, {"streaming": True, "max_steps": 5}),
    ("pretraining_dataset", {"datasets": None, "pretraining_dataset": [{"path": "a/b"}]},
     {"datasets": None, "pretraining_dataset": [{"path": "a/b"}], "max_steps": 5}),
    ("streaming", {"streaming": True, "max_steps": 5, "val_set_size": 0.1, "eval_steps": 5}, {"streaming": True, "max_steps": 5}),
    ("pretraining_dataset", {"datasets": None, "pretraining_dataset": [{"path": "a/b"}], "max_steps": 5, "val_set_size": 0.1, "eval_steps": 5},
     {"datasets": None, "pretraining_dataset": [{"path": "a/b"}], "max_steps": 5}),
    ("streaming", {"streaming": True, "max_steps": 5, "sample_packing": True, "datasets": [SET, SET]},
     {"streaming": True, "max_steps": 5, "sample_packing": True}),
    ("sample_packing", {"sample_packing": True, "rl": "dpo"}, {"sample_packing": True}),
    ("rl", {"rl": "kto"}, {"rl": "kto", "remove_unused_columns": False}),
    ("warmup_ratio", {"rl": "simpo", "warmup_ratio": 0.1}, {"rl": "simpo", "warmup_steps": 5}),
    ("dpo_loss_type", {"dpo_loss_type": ["sigmoid"]}, {"rl": "dpo", "dpo_loss_type": ["sigmoid"]}),
    ("trl", {"rl": "grpo", "trl": {"num_generations": 1}}, {"rl": "grpo", "micro_batch_size": 4, "trl": {"num_generations": 4}}),
    ("max_packed_sequence_len", {"max_packed_sequence_len": 5}, {"max_packed_sequence_len": 0}),
    ("rope_scaling", {"rope_scaling": {"type": "yarn"}}, {"model_config": {"rope_scaling": {"type": "yarn"}}}),
    ("s2_attention", {"s2_attention": True}, {"s2_attention": False}),
    ("flash_attn_rms_norm", {"flash_attn_rms_norm": True}, {"flash_attn_rms_norm": False}),
    ("dpo_use_logits_to_keep", {"dpo_use_logits_to_keep": False}, {}),
    ("dpo_generate_during_eval", {"dpo_generate_during_eval": False}, {}),
    ("dpo_norm_loss", {"dpo_norm_loss": False}, {}),
    ("rpo_alpha", {"rpo_alpha": 0.5}, {}),
    ("noisy_embedding_alpha", {"noisy_embedding_alpha": 5, "neftune_noise_alpha": 5}, {"neftune_noise_alpha": 5}),
    ("lr_groups", {"lr_groups": [{"name": "a", "modules": ["b"], "lr": 0.1}], "loraplus_lr_ratio": 16}, {"loraplus_lr_ratio": 16}),
    ("max_memory", {"max_memory": {"0": "9GB"}, "gpu_memory_limit": "9GB"}, {"gpu_memory_limit": "9GB"}),
    ("neftune_noise_alpha", {"neftune_noise_alpha": 0}, {"neftune_noise_alpha": 5}),
    ("adapter", {"adapter": "qlora"}, {"adapter": "qlora", "load_in_4bit": True}),
    ("gptq", {"gptq": True, "model_revision": "x", "revision_of_model": "x"}, {"gptq": True}),
    ("gptq", {"adapter": "qlora", "load_in_4bit": True, "gptq": True}, {"gptq": True}),
    ("load_in_4bit", {"adapter": None, "load_in_4bit": True}, {"load_in_4bit": True}),
    ("load_in_8bit", {"adapter": None, "load_in_8bit": True}, {"load_in_8bit": True}),
    ("load_in_8bit", {"adapter": "qlora", "load_in_8bit": True}, {"load_in_8bit": True}),
    ("peft_layers_pattern", {"peft_layers_pattern": ["a"]}, {"peft_layers_pattern": ["a"], "peft_layers_to_transform": [1]}),
    ("flash_attn_fuse_mlp", {"flash_attn_fuse_mlp": True}, {"adapter": None, "flash_attn_fuse_mlp": True}),
    ("lora_mlp_kernel", {"lora_mlp_kernel": True, "load_in_8bit": True}, {"lora_mlp_kernel": True}),
    ("lora_qkv_kernel", {"lora_qkv_kernel": True, "trust_remote_code": True}, {"trust_remote_code": True}),
    ("lora_o_kernel", {"lora_o_kernel": True, "load_in_8bit": True}, {"lora_o_kernel": True}),
    ("save_safetensors", {"save_safetensors": False}, {"save_safetensors": True}),
    *((f"lora_{kind}_kernel", {f"lora_{kind}_kernel": True, "fsdp_config": {"fsdp_version": 1}, "_gpus": 2},
       {f"lora_{kind}_kernel": True, **FSDP2, "fsdp_config": {"offload_params": False}, "_gpus": 2}) for kind in ("mlp", "qkv", "o")),
    ("relora", {"relora": True}, {"relora": True, "jagged_restart_steps": 5}),
    ("relora", {"relora": True, "jagged_restart_steps": 5, "deepspeed": "z2.json"}, {"relora": True, "jagged_restart_steps": 5}),
    ("quantize_moe_experts", {"quantize_moe_experts": True}, {"quantize_moe_experts": True, "load_in_8bit": True}),
    ("lora_target_linear", {"quantize_moe_experts": True, "load_in_8bit": True, "lora_target_linear": True},
     {"lora_target_linear": True}),
    ("attn_implementation", {"attn_implementation": "sdpa", "flash_attention": True}, {"flash_attention": True}),
    ("scaling_softmax", {"scaling_softmax": True}, {"scaling_softmax": True, "attn_implementation": "flex_attention"}),
    ("batch_flattening", {"batch_flattening": True}, {**FLASH, "batch_flattening": True}),
    ("context_parallel_size", {"context_parallel_size": 2}, {**FLASH, "context_parallel_size": 1}),
    ("micro_batch_size", {**FLASH, "context_parallel_size": 2, "sample_packing": True, "micro_batch_size": 2},
     {**FLASH, "sample_packing": True, "micro_batch_size": 2}),
    ("cut_cross_entropy", {"plugins": [LIGER], "liger_cross_entropy": True, "liger_fused_linear_cross_entropy": True},
     {"plugins": [LIGER], "liger_fused_linear_cross_entropy": True}),
    ("activation_offloading", {"activation_offloading": True}, {"activation_offloading": True, "gradient_checkpointing": True}),
    ("selective_checkpointing", {"selective_checkpointing": True}, {"gradient_checkpointing": True}),
    ("gradient_checkpointing", {"base_model": "mosaicml/mpt-7b", "gradient_checkpointing": True}, {"gradient_checkpointing": True}),
    ("gradient_checkpointing_kwargs.use_reentrant",
     {"unfrozen_parameters": ["a"], "gradient_checkpointing": True, "gradient_checkpointing_kwargs": {"use_reentrant": True}},
     {"unfrozen_parameters": ["a"], "gradient_checkpointing": True, "gradient_checkpointing_kwargs": {"use_reentrant": False}}),
    ("torch_compile_options", {"torch_compile_options": {"epilogue_fusion": True}},
     {"torch_compile": True, "torch_compile_options": {"epilogue_fusion": True}}),
    ("fp8_config", {"fp8_config": {"recipe": "tensorwise"}}, {}),
    ("torch_compile",
     {"rl": "ebft", "ebft": {"mode": "strided"}, "torch_compile": True, "gradient_checkpointing": True},
     {"rl": "ebft", "ebft": {"mode": "strided"}, "gradient_checkpointing": True}),
    ("deepspeed", {"deepspeed": "z2.json", "fsdp": ["full_shard"]}, {"deepspeed": "z2.json"}),
    ("deepcompile", {"deepcompile": True}, {}),
    ("optimizer", {"optimizer": "muon", "deepspeed": "z2.json"}, {"optimizer": "muon"}),
    ("optimizer", {"optimizer": "muon", "fsdp_config": {"offload_params": False}},
     {"optimizer": "muon", **FSDP2, "fsdp_config": {"offload_params": False}}),
    ("optimizer", {"optimizer": "q_galore_adamw8bit"}, {"optimizer": "q_galore_adamw8bit", "adapter": None}),
    ("optimizer", {"optimizer": "adamw_bnb_8bit", "fsdp_config": {"fsdp_version": 2, "offload_params": False}},
     {"optimizer": "adamw_bnb_8bit", "fsdp_config": {"fsdp_version": 1, "offload_params": False}}),
    ("optimizer", {"optimizer": "adamw_bnb_8bit", "fsdp_config": {"offload_params": True}},
     {"optimizer": "adamw_torch", "fsdp_config": {"offload_params": True}}),
    ("fsdp_config.cpu_ram_efficient_loading",
     {"load_in_4bit": True, **FSDP2, "fsdp_config": {"cpu_ram_efficient_loading": True}},
     {"load_in_4bit": True, **FSDP2, "fsdp_config": {"cpu_ram_efficient_loading": False}}),
    ("fsdp_config.fsdp_cpu_ram_efficient_loading",
     {"load_in_4bit": True, **FSDP2, "fsdp_config": {"fsdp_cpu_ram_efficient_loading": True}},
     {**FSDP2, "fsdp_config": {"fsdp_cpu_ram_efficient_loading": True}}),
    ("rl", {"rl": "dpo", "load_in_4bit": True, **FSDP2, "fsdp_config": {"offload_params": False}},
     {"rl": "dpo", **FSDP2, "fsdp_config": {"offload_params": False}}),
    ("fsdp_config", {"fsdp_config": {"cpu_offload_pin_memory": False}},
     {**FSDP2, "fsdp_config": {"cpu_offload_pin_memory": False, "offload_params": True}}),
    ("fsdp", {"base_model": "tiiuae/falcon-7b", "fsdp": ["full_shard"]}, {"base_model": "tiiuae/falcon-7b"}),
    ("fp8_enable_fsdp_float8_all_gather", {"fp8_enable_fsdp_float8_all_gather": True}, {}),
    ("fp32_norms", {"fp32_norms": True}, {"fp32_norms": True, **FSDP2, "fsdp_config": {"offload_params": False}}),
]  # fmt: skip


# engine, versions, key, broken, near miss: what other supported versions take or refuse, asked of each of them
ACROSS = [
    ("llamafactory", {"llamafactory": "0.9.4", "transformers": "4.57.1"}, "neat_packing", {"neat_packing": True}, {"packing": True}),
    ("llamafactory", {"llamafactory": "0.9.4", "transformers": "4.57.1"}, "preserve_thinking", {"preserve_thinking": True},
     {"save_safetensors": True, "group_by_length": True, "template": "baichuan2", "ray_run_name": "a", "no_cuda": True}),
    ("llamafactory", {"llamafactory": "0.9.5", "transformers": "4.57.1"}, "warmup_steps", {"warmup_steps": 0.05},
     {"save_safetensors": True, "neat_packing": True}),
    ("axolotl", {"axolotl": "0.18.0"}, "micro_batch_size", {"micro_batch_size": None, "gradient_accumulation_steps": None},
     {"load_in_4bit": True, **FSDP2, "fsdp_config": {"cpu_ram_efficient_loading": True}}),
    ("axolotl", {"axolotl": "0.17.0"}, "s2_attention", {"s2_attention": True}, {**FLASH, "batch_flattening": True}),
    ("axolotl", {"axolotl": "0.16.1"}, "batch_flattening", {**FLASH, "batch_flattening": True},
     {"s2_attention": True, "unsloth_rope": True, "attn_implementation": "sdpa", "flash_attention": True}),
    ("axolotl", {"axolotl": "0.16.1"}, "selective_checkpointing", {"selective_checkpointing": True}, {"flash_attn_rms_norm": True}),
]  # fmt: skip


def whole(base, change):
    return {key: value for key, value in {**base, **change}.items() if value is not None}


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    # Rules about what is installed are not for these.
    for engine in ("LLAMAFACTORY", "AXOLOTL"):
        monkeypatch.setenv(f"TUNEBOOK_{engine}_ENV", str(tmp_path / "none"))
    (tmp_path / "z2.json").write_text(json.dumps({"zero_optimization": {"stage": 2}}))
    return tmp_path


def errors(values) -> set[str | None]:
    """Keys with an error."""
    gpus = values.get("_gpus", 1)
    values = {key: value for key, value in values.items() if key != "_gpus"}
    Path("recipe.yaml").write_text(yaml.safe_dump(values, sort_keys=False))
    # `output_dir` makes it a training recipe, whatever else is left out.
    command = "train" if "base_model" not in values and "adapter" not in values else None
    checked = check_recipe("recipe.yaml", paths.home(), command=command, gpus=gpus)
    return {found.key for found in checked.result.errors}


@pytest.mark.parametrize(("key", "broken", "near_miss"), LLAMAFACTORY_CASES)
def test_what_llamafactory_refuses_is_reported_and_its_near_miss_is_not(key, broken, near_miss):
    assert key in errors(whole(LLAMAFACTORY, broken))
    assert errors(whole(LLAMAFACTORY, near_miss)) == set()


@pytest.mark.parametrize(("key", "broken", "near_miss"), AXOLOTL_CASES)
def test_what_axolotl_refuses_is_reported_and_its_near_miss_is_not(key, broken, near_miss):
    assert key in errors(whole(AXOLOTL, broken))
    assert errors(whole(AXOLOTL, near_miss)) == set()


@pytest.mark.parametrize(("engine", "versions", "key", "broken", "near_miss"), ACROSS)
def test_a_recipe_is_held_against_the_version_that_is_installed(
    place, monkeypatch, engine, versions, key, broken, near_miss
):
    for name, version in versions.items():
        info = place / "env" / "lib" / "python3.11" / "site-packages" / f"{name}-{version}.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    monkeypatch.setenv(f"TUNEBOOK_{engine.upper()}_ENV", str(place / "env"))
    base = LLAMAFACTORY if engine == "llamafactory" else AXOLOTL
    base = {name: value for name, value in base.items() if name != "use_cpu"}
    assert key in errors(whole(base, broken))
    assert errors(whole(base, near_miss)) == set()


@pytest.mark.parametrize(
    ("engine", "cases"), [("llamafactory", LLAMAFACTORY_CASES), ("axolotl", AXOLOTL_CASES)]
)
def test_every_row_of_a_table_has_a_case(engine, cases):
    # Rows that older versions alone have are in ACROSS.
    rows = [row.key for row in REFUSALS[engine] if row.until == "999"]
    told = [key for key, _, _ in cases]
    assert {key: rows.count(key) for key in rows} == {
        key: min(told.count(key), rows.count(key)) for key in rows
    }


def test_an_overlay_is_not_asked_for_what_its_recipe_has(place):
    (place / "recipes" / "axolotl" / "overlays").mkdir(parents=True)
    path = place / "recipes" / "axolotl" / "overlays" / "longer.yaml"
    path.write_text("sequence_len: 4096\n")
    assert check_recipe(str(path), place).result.errors == ()


@pytest.mark.parametrize(
    ("engine", "base"),
    [("llamafactory", LLAMAFACTORY), ("axolotl", AXOLOTL)],
    ids=["llamafactory", "axolotl"],
)
def test_an_engines_own_defaults_written_out_are_no_faults(engine, base):
    # With its default a recipe trains nothing, does not do what it says, or looks for the registry elsewhere.
    others = {"do_train", "gradient_checkpointing", "dataset_dir"}
    groups = {"model", "data", "training", "finetuning", "generating"}
    for key, spec in load_schema(engine)["keys"].items():
        ours = engine == "axolotl" or groups & set(spec["groups"])
        if ours and spec.get("default") is not None and key not in others:
            assert errors({**base, key: spec["default"]}) == set(), key


LLAMAFACTORY_SAYS = """
import json, sys
from llamafactory.hparams.parser import get_train_args
said = []
for values in json.load(open("cases.json")):
    try:
        get_train_args(values)
        said.append(None)
    except Exception as err:
        said.append(f"{type(err).__name__}: {err}")
json.dump(said, open("said.json", "w"))
"""
AXOLOTL_SAYS = """
import json, logging
from axolotl.integrations.base import PluginManager
from axolotl.utils.config import prepare_plugins, validate_config
from axolotl.utils.dict import DictDefault
logging.disable(logging.CRITICAL)
gpu = {"bf16": True, "fp8": True, "tf32": True, "n_gpu": 1, "n_node": 1, "compute_capability": "sm_90"}
said = []
for values in json.load(open("cases.json")):
    PluginManager._instance = None
    gpus = values.pop("_gpus", 1)
    try:
        config = DictDefault(values)
        prepare_plugins(config)
        validate_config(config, capabilities=gpu | {"n_gpu": gpus}, env_capabilities={"torch_version": "2.13.0"})
        said.append(None)
    except Exception as err:
        said.append(f"{type(err).__name__}: {err}")
json.dump(said, open("said.json", "w"))
"""


def ask(program, base, cases):
    """What the installed engine says to each case and its near miss; None where it takes it."""
    every = [whole(base, change) for _, broken, near_miss in cases for change in (broken, near_miss)]
    Path("cases.json").write_text(json.dumps(every))
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    said = json.loads(Path("said.json").read_text())
    return list(zip(cases, said[::2], said[1::2], strict=True))


@pytest.mark.engine
def test_llamafactory_itself_refuses_the_same():
    for (key, broken, near_miss), refused, taken in ask(LLAMAFACTORY_SAYS, LLAMAFACTORY, LLAMAFACTORY_CASES):
        assert refused is not None, (key, broken)
        assert taken is None, (near_miss, taken)


@pytest.mark.axolotl
def test_axolotl_itself_refuses_the_same():
    for (key, broken, near_miss), refused, taken in ask(AXOLOTL_SAYS, AXOLOTL, AXOLOTL_CASES):
        assert refused is not None, (key, broken)
        assert taken is None, (near_miss, taken)
