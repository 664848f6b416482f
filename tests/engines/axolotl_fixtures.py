"""Small Axolotl recipes and the ways to run them, shared by the tests of that engine."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from engine_cases import OWN_START, Run

HERE = Path(__file__).parent
ALPACA = "tunebook.hooks.axolotl_alpaca"
NO_KERNELS = dict.fromkeys(
    ("lora_mlp_kernel", "lora_qkv_kernel", "lora_o_kernel", "lora_embedding_kernel"), False
)  # they are Triton, and switched on by themselves
LORA = {"adapter": "lora", "lora_r": 8, "lora_alpha": 16, "lora_target_linear": True, **NO_KERNELS}


def state_of(run: Run, step: int) -> dict:
    return json.loads((run.output / f"checkpoint-{step}" / "trainer_state.json").read_text())


def logged(run: Run, step: int, key: str) -> dict[int, float]:
    """Every value of one key in the history that checkpoint `step` keeps, by step."""
    return {row["step"]: row[key] for row in state_of(run, step)["log_history"] if key in row}


@pytest.fixture(scope="session")
def prepared(tmp_path_factory):
    return tmp_path_factory.mktemp("prepared")


@pytest.fixture(scope="session")
def axolotl_recipe(tiny, registry, prepared, tmp_path_factory):
    """A function that gives the path of a whole Axolotl recipe, with the keys one names changed."""

    def build(train: str, *evaluated: str, **changes) -> Path:
        block = lambda name: {"path": str(registry / f"{name}.json"), "type": ALPACA}  # noqa: E731
        folder = tmp_path_factory.mktemp("recipe")
        values = {
            "base_model": str(tiny),
            "chat_template_kwargs": {"enable_thinking": False},
            "datasets": [block(train)],
            "test_datasets": [block(name) for name in evaluated],
            "plugins": ["tunebook.hooks.axolotl.TunebookPlugin"],
            "tunebook_dataset_dir": str(registry),
            "tunebook_eval_datasets": list(evaluated),
            "sequence_len": 256,
            "dataset_num_proc": 1,
            "dataset_prepared_path": str(prepared),
            "dataloader_num_workers": 0,
            "micro_batch_size": 8,
            "gradient_accumulation_steps": 1,
            "eval_batch_size": 16,
            "max_steps": 4,
            "learning_rate": 3.0e-3,
            "lr_scheduler": "constant",
            "warmup_steps": 0,
            "optimizer": "adamw_torch",
            "bf16": False,
            "seed": 1,
            "eval_steps": 2,
            "save_steps": 2,
            "logging_steps": 2,
            "output_dir": str(folder / "output"),
            **changes,
        }
        path = folder / "recipe.yaml"
        path.write_text(yaml.safe_dump({key: value for key, value in values.items() if value is not None}))
        return path

    return build


def output_of(recipe: Path) -> Path:
    return Path(yaml.safe_load(recipe.read_text())["output_dir"])


def run_many(folder: Path, runs: list[dict], *, ranks: int = 1, **env: str) -> list[Run]:
    """Run recipes one after another in one Axolotl process, or in `ranks` of them that train together."""
    file = folder / "runs.json"
    file.write_text(json.dumps([{**run, "recipe": str(run["recipe"])} for run in runs]))
    start = [sys.executable]
    together = {}
    if ranks > 1:
        start = [Path(sys.executable).parent / "torchrun", "--standalone", f"--nproc_per_node={ranks}"]
        together = {"ACCELERATE_USE_CPU": "true"}  # else the ranks train apart, into one folder
    done = subprocess.run(
        [*start, HERE / "axolotl_runs.py", file],
        env={**os.environ, **together, **env},
        capture_output=True,
        text=True,
        check=False,
    )
    results = [json.loads(line[7:]) for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    assert len(results) == len(runs), done.stdout[-2000:] + done.stderr[-4000:]
    folders = [run.get("options", {}).get("output_dir") or output_of(run["recipe"]) for run in runs]
    return [
        Run(result["code"], result["log"], Path(output))
        for output, result in zip(folders, results, strict=True)
    ]


@pytest.fixture(scope="session")
def learned(axolotl_recipe) -> Run:
    """The literal `axolotl train`, on a task that can be learned."""
    recipe = axolotl_recipe(
        "like_train",
        "like_eval",
        max_steps=80,
        eval_steps=20,
        save_steps=20,
        metric_for_best_model="macro_f1",
        load_best_model_at_end=True,
        early_stopping_patience=5,
    )
    done = subprocess.run(
        [Path(sys.executable).parent / "axolotl", "train", recipe, "--launcher", "python"],
        env={**os.environ, **OWN_START},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4000:]
    return Run(done.returncode, done.stdout, output_of(recipe))
