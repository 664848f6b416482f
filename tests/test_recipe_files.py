import dataclasses
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tunebook import engine_yaml
from tunebook.datasets import load_registry
from tunebook.overlays import resolve
from tunebook.recipes import HEADER_FACTS, find_recipe, read_recipe, recipe_files

ROOT = Path(__file__).parents[1]
RECIPES = ROOT / "recipes"
FILES = recipe_files(RECIPES)
OVERLAYS = sorted(RECIPES.rglob("overlays/*.yaml"))
MOVIELENS = "llamafactory/qwen3-0.6b/qlora_sft_movielens"
METHODS, STAGES = {"full", "lora", "qlora"}, {"sft"}


def name_of(path: Path) -> str:
    return path.relative_to(RECIPES).with_suffix("").as_posix()


@pytest.fixture(params=FILES, ids=name_of)
def recipe(request):
    return read_recipe(request.param, RECIPES)


def test_a_recipe_is_named_by_method_stage_and_data(recipe):
    method, stage, data = recipe.name.rsplit("/", 1)[1].split("_", 2)
    assert method in METHODS
    assert stage in STAGES
    assert data


def test_a_recipe_opens_with_its_four_facts(recipe):
    assert tuple(recipe.header) == HEADER_FACTS
    assert all(recipe.header.values())


def test_both_engines_yaml_readers_agree_on_a_recipe(recipe):
    text = recipe.path.read_text()
    readings = [engine_yaml.parse_mapping(text, engine, source="") for engine in ("llamafactory", "axolotl")]
    assert readings[0] == readings[1]


@pytest.mark.parametrize("path", OVERLAYS, ids=name_of)
def test_an_overlay_says_what_it_is_for_and_changes_something(path):
    assert path.read_text().startswith("# ")
    assert engine_yaml.read_mapping(path, "llamafactory")


# LLaMA-Factory


@pytest.fixture(params=[path for path in FILES if name_of(path).startswith("llamafactory/")], ids=name_of)
def lf_recipe(request):
    return read_recipe(request.param, RECIPES)


def test_a_recipes_data_stands_in_the_registry_and_its_evaluation_is_measured(lf_recipe):
    registry = load_registry(ROOT / lf_recipe.values["dataset_dir"])
    for name in lf_recipe.values["dataset"].split(","):
        assert not registry.entry(name).metrics
    for name in lf_recipe.values["eval_dataset"].split(","):
        assert registry.entry(name).metrics


def test_every_evaluation_is_also_a_checkpoint_so_that_the_best_is_never_lost(lf_recipe):
    if lf_recipe.values.get("load_best_model_at_end"):
        assert lf_recipe.values["save_steps"] == lf_recipe.values["eval_steps"]


def test_no_recipe_sets_a_logging_dir_since_the_engine_accepts_and_ignores_it(lf_recipe):
    assert "logging_dir" not in lf_recipe.values


def test_paths_lead_nowhere_outside_the_checkout(lf_recipe):
    for key in ("output_dir", "dataset_dir"):
        path = Path(lf_recipe.values.get(key, "."))
        assert not path.is_absolute()
        assert ".." not in path.parts


def test_the_movielens_recipe_has_every_setting_of_its_source():
    source = {
        "model_name_or_path": "Qwen/Qwen3-0.6B",
        "quantization_bit": 4,
        "flash_attn": "auto",
        "disable_gradient_checkpointing": True,
        "finetuning_type": "lora",
        "lora_rank": 16,
        "lora_alpha": 64,
        "lora_dropout": 0.05,
        "lora_target": "q_proj,k_proj,v_proj,o_proj,gate_proj,up_proj,down_proj",
        "cutoff_len": 1024,
        "per_device_train_batch_size": 2,
        "gradient_accumulation_steps": 8,
        "num_train_epochs": 3.0,
        "learning_rate": 1.5e-4,
        "warmup_ratio": 0.03,
        "lr_scheduler_type": "cosine",
        "adam_beta1": 0.9,
        "adam_beta2": 0.999,
        "eval_steps": 2000,
        "per_device_eval_batch_size": 16,
        "metric_for_best_model": "f1",
        "load_best_model_at_end": True,
        "early_stopping_steps": 3,
        "save_total_limit": 2,
        "output_dir": "output/qwen3-movielens-qlora",
    }
    values = find_recipe(MOVIELENS, RECIPES).values
    assert {key: values.get(key) for key in source} == source
    registry = load_registry(ROOT / "datasets_info")
    assert registry.entry("movielens_eval").values["num_samples"] == 1000


@pytest.mark.parametrize("overlay", ["gpu_8gb", "gpu_16gb", "gpu_24gb"])
def test_an_overlay_for_a_gpu_keeps_the_rows_of_a_step(overlay):
    values = resolve(find_recipe(MOVIELENS, RECIPES), RECIPES, [overlay]).recipe.values
    assert values["per_device_train_batch_size"] * values["gradient_accumulation_steps"] == 16


def test_the_flat_smoke_recipe_is_the_movielens_recipe_with_its_smoke_overlay():
    smoke = resolve(find_recipe(MOVIELENS, RECIPES), RECIPES, ["smoke"]).recipe.values
    flat = find_recipe("llamafactory/demo/qlora_sft_recommend", RECIPES).values
    engine_defaults = {"num_train_epochs", "optim", "adam_beta1", "adam_beta2", "bf16"}
    where_it_writes = {"output_dir", "plot_loss", "report_to"}
    different = {key for key in {*smoke, *flat} if smoke.get(key) != flat.get(key)}
    assert different == engine_defaults | where_it_writes


# The engine itself


@pytest.mark.engine
def test_llamafactory_knows_every_key():
    from llamafactory.hparams import parser

    arguments = (
        parser.ModelArguments,
        parser.DataArguments,
        parser.TrainingArguments,
        parser.FinetuningArguments,
        parser.GeneratingArguments,
    )
    known = {field.name for group in arguments for field in dataclasses.fields(group) if field.init}
    for path in [*FILES, *OVERLAYS]:
        if name_of(path).startswith("llamafactory/"):
            assert set(engine_yaml.read_mapping(path, "llamafactory")) <= known, path


@pytest.fixture(scope="module")
def checkout(tmp_path_factory) -> Path:
    """What the recipes need of a checkout, so that runs leave nothing in this one."""
    folder = tmp_path_factory.mktemp("checkout")
    shutil.copytree(RECIPES, folder / "recipes")
    (folder / "datasets_info").mkdir()
    shutil.copy(ROOT / "datasets_info" / "dataset_info.json", folder / "datasets_info")
    scripts = [["make_tiny_model.py", "-o", "output/tiny/qwen3"], ["prepare_demo.py"]]
    for script, *options in scripts:
        subprocess.run([sys.executable, ROOT / "scripts" / script, *options], cwd=folder, check=True)
    return folder


def run(checkout: Path, *command: str) -> None:
    binaries = Path(sys.executable).parent
    # More threads than one slow a model this small down many times.
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "PATH": f"{binaries}{os.pathsep}{os.environ['PATH']}",
    }
    done = subprocess.run(command, cwd=checkout, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]


def evaluations(output: Path) -> list[dict]:
    history = json.loads((output / "trainer_state.json").read_text())["log_history"]
    return [entry for entry in history if "eval_macro_f1" in entry]


@pytest.mark.engine
@pytest.mark.timeout(600)
def test_the_demo_learns_its_rule(checkout):
    run(checkout, "llamafactory-cli", "train", "recipes/llamafactory/demo/full_sft_recommend.yaml")
    curve = evaluations(checkout / "output" / "demo" / "recommend")
    assert 6 <= len(curve) <= 10
    assert curve[0]["eval_macro_f1"] < 0.75
    best = max(curve, key=lambda entry: entry["eval_macro_f1"])
    assert best["eval_macro_f1"] > 0.9
    assert best["eval_accuracy"] > best["eval_majority_accuracy"] + 0.2


@pytest.mark.engine
@pytest.mark.timeout(300)
def test_the_flat_smoke_recipe_runs_with_the_engines_own_command(checkout):
    run(checkout, "llamafactory-cli", "train", "recipes/llamafactory/demo/qlora_sft_recommend.yaml")
    output = checkout / "output" / "smoke" / "recommend-qlora"
    assert [entry["step"] for entry in evaluations(output)] == [4, 8]
    assert (output / "adapter_model.safetensors").is_file()


@pytest.mark.engine
@pytest.mark.timeout(300)
def test_the_movielens_recipe_runs_with_its_smoke_overlay(checkout):
    run(checkout, "tunebook", "train", MOVIELENS, "-o", "smoke")
    output = checkout / "output" / "smoke" / "qwen3-movielens-qlora"
    assert [entry["step"] for entry in evaluations(output)] == [4, 8]
    assert list((output / "runs").rglob("events.out.tfevents.*"))
