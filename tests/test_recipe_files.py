import dataclasses
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from recipe_cases import RECIPES, ROOT, TINY, cases, model_of, shipped, twin_of
from tunebook.checks.run import check_recipe, with_clashes
from tunebook.data.registry import load_registry
from tunebook.memory.from_recipe import read_run
from tunebook.recipes import engine_yaml
from tunebook.recipes.catalog import HEADER_FACTS, find_recipe, read_recipe, recipe_files
from tunebook.recipes.overlays import resolve

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


@pytest.mark.parametrize(
    "path",
    [*FILES, *sorted(RECIPES.glob("deepspeed/*.json"))],
    ids=lambda path: path.relative_to(RECIPES).as_posix(),
)
def test_what_is_shipped_is_clean_under_check(path):
    result = check_recipe(str(path), ROOT, gpus=4).result
    assert result.clean, result.findings


def test_no_two_recipes_write_into_one_folder():
    for result in with_clashes([check_recipe(str(path), ROOT) for path in FILES]):
        assert "output-clash" not in {finding.rule for finding in result.findings}, result.name


SMOKE = [case for engine in ("llamafactory", "axolotl") for case in cases(engine)]


@pytest.mark.parametrize("case", SMOKE, ids=lambda case: case.name)
def test_a_recipe_has_a_clean_smoke_overlay_on_the_twin_of_its_architecture(case):
    assert check_recipe(case.name, ROOT, case.overlays).result.clean
    recipe = find_recipe(case.name, RECIPES)
    smoke = resolve(recipe, RECIPES, case.overlays).recipe
    assert model_of(smoke) == f"{TINY}{twin_of(model_of(recipe))}"
    # Whoever tries a recipe must not find it taken for a finished run of the real one, or of another recipe.
    if case.overlays:
        assert smoke.values["output_dir"] != recipe.values["output_dir"]


# Axolotl loads Qwen3.5 only with torchvision, and on a CPU fails in kernels it installs: nobody has seen it run.
LLAMAFACTORY_ALONE = {"qwen3.5-0.8b/lora_sft_gsm8k"}


def test_both_engines_have_the_same_experiments():
    names = [
        {recipe.name.partition("/")[2] for recipe in shipped(engine)}
        for engine in ("llamafactory", "axolotl")
    ]
    assert names[0] - names[1] == LLAMAFACTORY_ALONE
    assert names[1] <= names[0]


# The same setting under both engines' names.
TWIN_KEYS = {
    "per_device_train_batch_size": "micro_batch_size",
    "gradient_accumulation_steps": "gradient_accumulation_steps",
    "learning_rate": "learning_rate",
    "lr_scheduler_type": "lr_scheduler",
    "warmup_ratio": "warmup_ratio",
    "cutoff_len": "sequence_len",
    "lora_rank": "lora_r",
    "lora_alpha": "lora_alpha",
    "lora_dropout": "lora_dropout",
    "eval_steps": "eval_steps",
    "deepspeed": "deepspeed",
    "seed": "seed",
}


EXPERIMENTS = {recipe.name.partition("/")[2] for recipe in shipped("llamafactory")}


# The demos learn on a CPU in as few steps as each engine needs, so theirs differ.
@pytest.mark.parametrize(
    "name", sorted(name for name in EXPERIMENTS - LLAMAFACTORY_ALONE if not name.startswith("demo/"))
)
def test_twin_recipes_train_alike(name):
    one, other = (find_recipe(f"{engine}/{name}", RECIPES).values for engine in ("llamafactory", "axolotl"))
    left = {key: one.get(key) for key in TWIN_KEYS}
    right = {key: other.get(axolotl) for key, axolotl in TWIN_KEYS.items()}
    assert left == right


@pytest.mark.parametrize(
    ("change", "rule"), [("use_unsloth=true", "unsloth-zero3"), ("quantization_bit=8", "quantized-zero3")]
)
@pytest.mark.parametrize("overlay", ["zero3", "zero3_offload"])
def test_zero3_is_refused_where_the_engine_cannot_shard(overlay, change, rule):
    name = "llamafactory/qwen3-4b/qlora_sft_chunked_documents"
    errors = check_recipe(name, ROOT, [overlay], [change]).result.errors
    assert rule in {finding.rule for finding in errors}
    assert check_recipe(name, ROOT, ["zero2"], [change]).result.clean


@pytest.mark.parametrize("name", ["qwen3-4b/lora_sft_legal_200k", "qwen3-32b/full_sft_csv_chat"])
def test_the_recipes_for_four_gpus_keep_the_32_rows_of_a_step(name):
    values = find_recipe(f"llamafactory/{name}", RECIPES).values
    assert values["per_device_train_batch_size"] * values["gradient_accumulation_steps"] * 4 == 32


def test_the_long_context_recipe_has_every_setting_of_its_source():
    source = {
        "per_device_train_batch_size": 1,
        "gradient_accumulation_steps": 8,
        "use_reentrant_gc": False,
        "bf16": True,
        "bf16_full_eval": True,
        "load_best_model_at_end": False,
        "deepspeed": "recipes/deepspeed/zero2.json",
        "dataloader_num_workers": 4,
        "eval_steps": 200,
        "enable_liger_kernel": True,
        "prediction_loss_only": True,
    }
    values = find_recipe("llamafactory/qwen3-4b/lora_sft_legal_200k", RECIPES).values
    assert {key: values.get(key) for key in source} == source
    assert not values.get("predict_with_generate")
    assert "zero2" in values["run_name"]
    metrics = load_registry(ROOT / "datasets_info").entry(values["eval_dataset"]).metrics
    assert [metric.name for metric in metrics] == ["perplexity"]


def test_the_32b_recipe_has_every_setting_of_its_source():
    source = {
        "model_name_or_path": "Qwen/Qwen3-32B",
        "finetuning_type": "full",
        "per_device_train_batch_size": 1,
        "gradient_accumulation_steps": 8,
        "learning_rate": 5e-5,
        "lr_scheduler_type": "cosine",
        "warmup_ratio": 0.1,
        "num_train_epochs": 3,
        "cutoff_len": 8192,
        "bf16": True,
    }
    values = find_recipe("llamafactory/qwen3-32b/full_sft_csv_chat", RECIPES).values
    assert {key: values.get(key) for key in source} == source


@pytest.mark.parametrize("engine", ["llamafactory", "axolotl"])
def test_a_recipe_with_deepspeed_is_estimated_from_any_folder(engine, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    stages = {
        "qwen3-4b/lora_sft_legal_200k": (2, []),
        "qwen3-32b/full_sft_csv_chat": (3, ["optimizer", "parameters"]),
    }
    for name, (stage, offload) in stages.items():
        arguments = read_run(find_recipe(f"{engine}/{name}", RECIPES)).arguments
        assert (arguments["zero_stage"], arguments["offload"]) == (stage, offload)


def test_each_deepspeed_file_has_the_stage_of_its_name():
    def read(name):
        return json.loads((RECIPES / "deepspeed" / f"{name}.json").read_text())["zero_optimization"]

    assert {name: read(name)["stage"] for name in ("zero2", "zero3", "zero3_offload")} == {
        "zero2": 2,
        "zero3": 3,
        "zero3_offload": 3,
    }
    for name in ("zero2", "zero3"):
        assert not [key for key in read(name) if key.startswith("offload")]
    assert {read("zero3_offload")[key]["device"] for key in ("offload_optimizer", "offload_param")} == {"cpu"}


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
@pytest.mark.parametrize("path", sorted(RECIPES.glob("accelerate/*.yaml")), ids=lambda path: path.stem)
def test_accelerate_knows_every_key_of_its_files(path):
    from accelerate.commands.config.config_args import ClusterConfig

    read = ClusterConfig.from_yaml_file(str(path))
    assert read.mixed_precision == "bf16"
    fsdp = read.fsdp_config or {}
    assert bool(fsdp) == (str(read.distributed_type).endswith("FSDP"))


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
