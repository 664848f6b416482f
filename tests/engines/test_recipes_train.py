"""Shipped recipes, run as a user runs them."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from engine_cases import ROOT, Run

pytestmark = pytest.mark.engine

BIN = Path(sys.executable).parent
MOVIELENS = "recipes/llamafactory/qwen3-0.6b/qlora_sft_movielens.yaml"


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A checkout's recipes and registry, with the demo model and data made where recipes look for them."""
    folder = tmp_path_factory.mktemp("checkout")
    for name in ("recipes", "scripts"):
        (folder / name).symlink_to(ROOT / name)
    registry = folder / "datasets_info"
    registry.mkdir()
    (registry / "dataset_info.json").write_bytes((ROOT / "datasets_info" / "dataset_info.json").read_bytes())
    for command in (
        ["scripts/make_tiny_model.py", "-o", "output/tiny/qwen3"],
        ["scripts/prepare_demo.py", "-o", "datasets_info/demo"],
        ["scripts/prepare_demo_gsm8k.py", "-o", "datasets_info/demo_gsm8k"],
    ):
        subprocess.run([sys.executable, *command], cwd=folder, check=True)
    return folder


def run(folder, *command, **env):
    done = subprocess.run(
        [BIN / command[0], *command[1:]],
        cwd=folder,
        env={**os.environ, **env},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    return Run(done.returncode, done.stdout, folder)


def test_the_movielens_recipe_runs_under_the_engines_own_command(prepared):
    smoke = [
        "model_name_or_path=output/tiny/qwen3",
        "dataset=demo_recommend_train",
        "eval_dataset=demo_recommend_eval",
        "max_samples=64",
        "bf16=false",
        "max_steps=8",
        "eval_steps=4",
        "save_steps=4",
        "logging_steps=1",
        "dataloader_num_workers=0",
        "preprocessing_num_workers=1",
        "output_dir=output/stock",
    ]
    done = run(prepared, "llamafactory-cli", "train", MOVIELENS, *smoke)
    assert done.code == 0, done.log[-3000:]
    assert "[tunebook] step 4, demo_recommend_eval: macro_f1" in done.log
    state = json.loads((prepared / "output/stock/trainer_state.json").read_text())
    by_step = {entry["step"]: entry["eval_f1"] for entry in state["log_history"] if "eval_f1" in entry}
    assert set(by_step) == {4, 8}
    assert state["best_metric"] == max(by_step.values())
    assert Path(state["best_model_checkpoint"]).name == f"checkpoint-{state['best_global_step']}"


def test_the_gsm8k_demo_comes_right_under_the_engines_own_command(prepared):
    recipe = "recipes/llamafactory/demo/full_sft_gsm8k.yaml"
    done = run(prepared, "llamafactory-cli", "train", recipe, "max_steps=225")
    assert done.code == 0, done.log[-3000:]
    state = json.loads((prepared / "output/demo/gsm8k/trainer_state.json").read_text())
    curve = [entry["eval_exact_match"] for entry in state["log_history"] if "eval_exact_match" in entry]
    assert curve[0] < 0.5 < 0.9 < max(curve)
    assert state["best_metric"] == max(curve)


def test_tunebook_train_runs_the_recipe_with_its_smoke_overlay_and_reports_it(prepared):
    done = run(prepared, "tunebook", "train", MOVIELENS, "-o", "smoke", "output_dir=output/smoke")
    assert done.code == 0, done.log[-3000:]
    folder = prepared / "output/smoke/tunebook"
    record = json.loads((folder / "run.json").read_text())
    assert record["recipe"]["overlays"] == ["smoke", "output_dir=output/smoke"]
    assert record["versions"]["llamafactory"] == "0.9.5"
    assert (folder / "eval_metrics.jsonl").exists()
    state = json.loads((prepared / "output/smoke/trainer_state.json").read_text())
    assert [one["step"] for one in state["log_history"] if "eval_macro_f1" in one] == [4, 8]
    assert list((prepared / "output/smoke/runs").rglob("events.out.tfevents.*"))
    again = run(
        prepared, "llamafactory-cli", "train", str(folder / "recipe.yaml"), "output_dir=output/resolved"
    )
    assert again.code == 0, again.log[-3000:]
    reported = run(prepared, "tunebook", "report", "output/smoke", "-o", "reports/smoke")
    assert reported.code == 0, reported.log
    for name in ("report.json", "report.md", "report.html"):
        assert (prepared / "reports/smoke" / name).stat().st_size > 1000


def test_a_config_of_model_data_and_training_args_trains(prepared):
    folder = prepared / "csv"
    folder.mkdir()
    rows = [
        "prompt,question,response",
        *(f'Be brief.,"How much is {a}, and {a}?",It is {2 * a}.' for a in range(16)),
    ]
    (folder / "training_data.csv").write_text("\n".join(rows) + "\n")
    columns = {"system": "prompt", "prompt": "question", "response": "response"}
    entry = {"file_name": "training_data.csv", "columns": columns}
    (folder / "dataset_info.json").write_text(json.dumps({"training_data": entry}))
    config = {
        "model_args": {"model_name_or_path": "output/tiny/qwen3"},
        "data_args": {"dataset_path": "./csv/training_data.csv", "max_seq_length": 128},
        "training_args": {
            "max_steps": 2,
            "learning_rate": 5e-5,
            "lr_scheduler_type": "cosine",
            "warmup_ratio": 0.1,
            "per_device_train_batch_size": 2,
            "report_to": "none",
        },
    }
    (prepared / "config.json").write_text(json.dumps(config, indent=2))
    done = run(prepared, "tunebook", "train", "config.json")
    assert done.code == 0, done.log[-3000:]
    state = json.loads((prepared / "output/config/trainer_state.json").read_text())
    assert state["global_step"] == 2
    assert (prepared / "output/config/model.safetensors").is_file()
