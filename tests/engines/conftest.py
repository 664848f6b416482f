"""A tiny model, small data sets and the real command lines, for tests that run an engine."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from axolotl_cases import axolotl_train
from engine_cases import LIKED, NOUNS, OWN_START, ROOT, Run, liking, sums


@pytest.fixture(scope="session")
def tiny(tmp_path_factory) -> Path:
    """A tiny Qwen3, made by the script that users run."""
    folder = tmp_path_factory.mktemp("models") / "qwen3"
    script = ROOT / "scripts" / "make_tiny_model.py"
    subprocess.run([sys.executable, script, "--architecture", "qwen3", "-o", folder], check=True)
    return folder


@pytest.fixture(scope="session")
def registry(tmp_path_factory) -> Path:
    """A dataset_dir with Yes/No and GSM8K-shaped sets."""
    folder = tmp_path_factory.mktemp("data")
    coin = lambda noun, rng: rng.choice(["Yes", "No"])  # noqa: E731
    reasoned = lambda noun, rng: f"It is a {noun}. So the answer is {'Yes' if noun in LIKED else 'No'}"  # noqa: E731
    kind = lambda noun, rng: ["food item", "tool", "place"][NOUNS.index(noun) % 3]  # noqa: E731
    two = lambda noun, rng: "食物" if noun in LIKED else "工具"  # noqa: E731
    entries = {
        "like_train": (liking(400, 1), None),
        "like_eval": (liking(101, 2), "yes_no"),
        "like_odd": (liking(41, 3), "yes_no"),
        "kinds_train": (liking(400, 14, kind), None),
        "kinds_eval": (liking(60, 15, kind), "classification"),
        "two_kinds": (
            liking(40, 16, two),
            {"name": "classification", "labels": ["食物", "工具"], "positive": "工具"},
        ),
        "coin_train": (liking(200, 4, coin), None),
        "coin_eval": (liking(200, 5, coin), "yes_no"),
        "reason_train": (liking(300, 6, reasoned), None),
        "reason_eval": (liking(40, 7, reasoned), "yes_no"),
        "reason_answer": (liking(10, 7, reasoned), {"name": "yes_no", "mode": "answer"}),
        "maybe_eval": (liking(10, 8, lambda noun, rng: "Perhaps"), "yes_no"),
        "unknown_metric": (liking(10, 9), "yes_or_no"),
        "sums_train": (sums(500, 10), None),
        "sums_eval": (sums(48, 11), {"name": "gsm8k", "max_new_tokens": 40}),
        "sums_bleu": (sums(48, 11), [{"name": name, "max_new_tokens": 40} for name in ("gsm8k", "bleu")]),
        "sums_all": (sums(48, 11), ["gsm8k", {"name": "rouge", "tokenize": "auto"}, "bleu", "chrf"]),
        "sums_subset": (sums(48, 11), {"name": "gsm8k", "max_new_tokens": 8, "max_samples": 10}),
        "sums_loss": (sums(48, 11), "perplexity"),
    }
    info = {}
    for name, (rows, metric) in entries.items():
        (folder / f"{name}.json").write_text(json.dumps(rows))
        info[name] = {"file_name": f"{name}.json"} | ({"metric": metric} if metric else {})
    (folder / "dataset_info.json").write_text(json.dumps(info))
    return folder


@pytest.fixture(scope="session")
def recipe(tiny, registry):
    """A function that gives a whole LLaMA-Factory recipe, with the keys one names changed."""

    def build(**changes) -> dict:
        values = {
            "model_name_or_path": str(tiny),
            "template": "qwen3",
            "enable_thinking": False,
            "stage": "sft",
            "do_train": True,
            "finetuning_type": "full",
            "dataset_dir": str(registry),
            "dataset": "like_train",
            "eval_dataset": "like_eval",
            "cutoff_len": 256,
            "max_steps": 60,
            "per_device_train_batch_size": 8,
            "per_device_eval_batch_size": 16,
            "learning_rate": 3.0e-3,
            "lr_scheduler_type": "constant",
            "logging_steps": 5,
            "eval_strategy": "steps",
            "eval_steps": 20,
            "save_steps": 20,
            "report_to": "none",
            "seed": 1,
        }
        values.update(changes)
        return {key: value for key, value in values.items() if value is not None}

    return build


@pytest.fixture(scope="session")
def train(tmp_path_factory):
    """A function that runs `llamafactory-cli train RECIPE [key=value ...]`, or `tunebook train`."""

    def run(
        values: dict,
        *overrides: str,
        output: Path | None = None,
        timeout=300,
        command="llamafactory-cli",
        **env: str,
    ) -> Run:
        folder = tmp_path_factory.mktemp("run")
        output = output or folder / "output"
        file = folder / "recipe.yaml"
        file.write_text(yaml.safe_dump({**values, "output_dir": str(output)}))
        done = subprocess.run(
            [Path(sys.executable).parent / command, "train", file, *overrides],
            env={**os.environ, **env},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=timeout,
            check=False,
        )
        return Run(done.returncode, done.stdout, output)

    return run


@pytest.fixture(scope="session")
def train_many(tmp_path_factory):
    """A function that runs many recipes through LLaMA-Factory's public `run_exp`, in one process."""

    def run(recipes: list[dict], **env: str) -> list[Run]:
        folder = tmp_path_factory.mktemp("runs")
        recipes = [
            {"output_dir": str(folder / str(number)), **values} for number, values in enumerate(recipes)
        ]
        (folder / "recipes.json").write_text(json.dumps(recipes))
        done = subprocess.run(
            [sys.executable, Path(__file__).parent / "many_runs.py", folder / "recipes.json"],
            env={**os.environ, **env},
            capture_output=True,
            text=True,
            check=False,
        )
        results = [json.loads(line[7:]) for line in done.stdout.splitlines() if line.startswith("RESULT ")]
        assert len(results) == len(recipes), done.stdout[-2000:] + done.stderr[-4000:]
        return [
            Run(result["code"], result["log"], Path(values["output_dir"]))
            for values, result in zip(recipes, results, strict=True)
        ]

    return run


@pytest.fixture(scope="session")
def learning(recipe) -> dict:
    """The recipe of `learned`."""
    return recipe(
        metric_for_best_model="macro_f1",
        load_best_model_at_end=True,
        early_stopping_steps=5,
        max_steps=80,
    )


@pytest.fixture(scope="session")
def learned(learning, train) -> Run:
    """The literal `llamafactory-cli train`, on a task that can be learned."""
    run = train(learning, **OWN_START)
    assert run.code == 0, run.log[-3000:]
    return run


@pytest.fixture(scope="session")
def prepared(tmp_path_factory):
    return tmp_path_factory.mktemp("prepared")


@pytest.fixture(scope="session")
def axolotl_recipe(tiny, registry, prepared, tmp_path_factory):
    """A function that gives the path of a whole Axolotl recipe, with the keys one names changed."""

    def build(train: str, *evaluated: str, **changes) -> Path:
        block = lambda name: {"path": str(registry / f"{name}.json"), "type": "tunebook.hooks.axolotl_alpaca"}  # noqa: E731
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


@pytest.fixture(scope="session")
def axolotl_learning(axolotl_recipe):
    """A function that gives the path of the recipe of `axolotl_learned`."""
    return lambda: axolotl_recipe(
        "like_train",
        "like_eval",
        max_steps=80,
        eval_steps=20,
        save_steps=20,
        metric_for_best_model="macro_f1",
        load_best_model_at_end=True,
        early_stopping_patience=5,
    )


@pytest.fixture(scope="session")
def axolotl_learned(axolotl_learning) -> Run:
    """The literal `axolotl train`, on a task that can be learned."""
    return axolotl_train(axolotl_learning(), **OWN_START)
