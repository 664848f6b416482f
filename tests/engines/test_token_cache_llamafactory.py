"""`tokenized_path`, kept and read by the real LLaMA-Factory."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

pytestmark = pytest.mark.engine

PROGRAMS = Path(sys.executable).parent


@pytest.fixture(scope="module")
def read(tmp_path_factory):
    """A function that lets LLaMA-Factory read recipes three times: without a cache, first, and from it."""

    def run(recipes: list[dict]) -> list[dict]:
        file = tmp_path_factory.mktemp("recipes") / "recipes.json"
        file.write_text(json.dumps(recipes))
        done = subprocess.run(
            [sys.executable, Path(__file__).parent / "cached_rows.py", file],
            capture_output=True,
            text=True,
            check=False,
        )
        results = [json.loads(line[7:]) for line in done.stdout.splitlines() if line.startswith("RESULT ")]
        assert len(results) == len(recipes), done.stdout[-2000:] + done.stderr[-4000:]
        return results

    return run


def test_cached_rows_are_the_engines_own_whatever_the_recipe_says(recipe, read, registry, tiny, tmp_path):
    """And the process that trains makes the same key of its settings as we made of the recipe."""
    more = tmp_path / "data"
    shutil.copytree(registry, more)
    entries = json.loads((more / "dataset_info.json").read_text())
    entries["like_some"] = {"file_name": "like_train.json", "num_samples": 30}
    pairs = [{"instruction": "x?", "chosen": "Yes", "rejected": "No"}] * 9
    (more / "pairs.json").write_text(json.dumps(pairs))
    columns = {"prompt": "instruction", "chosen": "chosen", "rejected": "rejected"}
    entries["pairs"] = {"file_name": "pairs.json", "ranking": True, "columns": columns}
    (more / "dataset_info.json").write_text(json.dumps(entries))
    cache = str(tmp_path / "cache")
    base = recipe(dataset_dir=str(more), output_dir=str(tmp_path / "out"), tokenized_path=cache)
    changes = [
        {},
        {"template": "qwen3_nothink"},
        {"cutoff_len": 40},
        {"enable_thinking": None},
        {"eval_dataset": "like_eval, like_odd", "eval_on_each_dataset": True},
        {"dataset": ["like_train", "coin_train"], "mix_strategy": "interleave_under", "seed": 3},
        {"dataset": "like_some"},
        {"eval_dataset": None, "val_size": 0.1},
        {"eval_dataset": None, "val_size": 20, "seed": 7},
        {"packing": True},
        {"neat_packing": True, "cutoff_len": 64},
        {"mask_history": True, "max_samples": 9, "default_system": "Be brief."},
        {"train_on_prompt": True},
        {"add_tokens": "<a>,<b>", "resize_vocab": True},
        {"stage": "pt", "eval_dataset": None, "eval_strategy": "no"},
        {
            "stage": "dpo",
            "dataset": "pairs",
            "eval_dataset": None,
            "eval_strategy": "no",
            "template": "qwen3",
        },
    ]
    recipes = [
        {key: value for key, value in (base | change).items() if value is not None} for change in changes
    ]
    results = read(recipes)
    for change, result in zip(changes, results, strict=True):
        assert result["same"], change
        assert result["kept"], change
        assert result["read"], change
        assert result["rows"] >= 9 or "stage" in change, change
    assert len({result["folder"] for result in results}) == len(changes)


def test_a_second_run_reads_the_rows_and_computes_the_same(recipe, tmp_path):
    values = recipe(max_steps=20, eval_steps=10, save_steps=20, eval_dataset="like_eval,sums_eval")
    values["eval_on_each_dataset"] = True
    logs, states = [], []
    for name, options in (("plain", []), ("first", ["--cache"]), ("second", ["--cache"])):
        done = start(tmp_path, values, *options, f"output_dir=runs/{name}")
        assert done.returncode == 0, done.stdout[-3000:]
        logs.append(done.stdout)
        states.append(
            json.loads((tmp_path / "runs" / name / "trainer_state.json").read_text())["log_history"]
        )
    assert "tokenised rows" not in logs[0]
    assert "tokenised rows: kept in .cache/tokenized/tunebook-" in logs[1]
    assert "tokenised rows: read from .cache/tokenized/tunebook-" in logs[2]
    assert "Running tokenizer on dataset" in logs[1]
    assert "Running tokenizer on dataset" not in logs[2]
    figures = [[without_times(entry) for entry in history] for history in states]
    assert figures[0] == figures[1] == figures[2]
    assert any("eval_like_eval_macro_f1" in entry for entry in figures[2])
    assert any("eval_sums_eval_flexible_extract" in entry for entry in figures[2])
    assert [path.name for path in (tmp_path / ".cache" / "tokenized").iterdir()] == [
        Path(resolved(tmp_path, "second")["tokenized_path"]).name
    ]


def test_two_processes_keep_and_read_the_rows_of_one(recipe, tmp_path):
    values = recipe(max_steps=4, eval_steps=4, save_steps=4, eval_dataset="like_odd")
    logs, figures = [], []
    for name in ("first", "second"):
        done = start(tmp_path, values, "--cache", f"output_dir=runs/{name}", NPROC_PER_NODE="2")
        assert done.returncode == 0, done.stdout[-3000:]
        logs.append(done.stdout)
        state = json.loads((tmp_path / "runs" / name / "trainer_state.json").read_text())
        figures.append([without_times(entry) for entry in state["log_history"]])
    assert logs[0].count("tokenised rows: kept in") == 1
    assert logs[1].count("tokenised rows: read from .cache") == 2  # said by us before the start, and inside
    assert figures[0] == figures[1]
    assert len(list((tmp_path / ".cache" / "tokenized").iterdir())) == 1


# What one of two processes sees of a folder that is on the other's machine alone.
TWO_NODES = """
import os, sys
from pathlib import Path
from torch import distributed
from tunebook.hooks.token_cache import _seen_by_all
distributed.init_process_group("gloo")
rank = distributed.get_rank()
Path(f"seen.{rank}").write_text(f"{sorted(_seen_by_all(rank == 0))} {sorted(_seen_by_all(True))}")
distributed.destroy_process_group()
"""


def test_every_process_knows_whether_another_lacks_the_rows(tmp_path):
    (tmp_path / "two.py").write_text(TWO_NODES)
    done = run(tmp_path, PROGRAMS / "torchrun", "--nproc_per_node=2", "--master_port=29617", "two.py")
    assert done.returncode == 0, done.stdout
    assert [(tmp_path / f"seen.{rank}").read_text() for rank in (0, 1)] == ["[False, True] [True]"] * 2


def test_changed_data_are_never_taken_for_the_old(recipe, registry, tmp_path):
    shutil.copytree(registry, tmp_path / "data")
    values = recipe(dataset_dir="data", max_steps=2, eval_strategy="no", eval_dataset=None)
    assert start(tmp_path, values, "--cache", "output_dir=a").returncode == 0
    rows = json.loads((tmp_path / "data" / "like_train.json").read_text())
    (tmp_path / "data" / "like_train.json").write_text(json.dumps(rows[:50]))

    # The engine's own command on the resolved recipe of before, whose folder is that of the old rows.
    values = resolved(tmp_path, "a") | {"output_dir": "c"}
    (tmp_path / "old.yaml").write_text(yaml.safe_dump(values))
    done = run(tmp_path, PROGRAMS / "llamafactory-cli", "train", "old.yaml")
    assert done.returncode == 2
    assert (
        "is for other rows than this run's; it differs in datasets.like_train.files.like_train.json"
        in done.stdout
    )

    done = start(tmp_path, resolved(tmp_path, "a"), "output_dir=b")
    assert "tokenised rows: kept in" in done.stdout
    assert resolved(tmp_path, "a")["tokenized_path"] != resolved(tmp_path, "b")["tokenized_path"]

    # A folder without our mark was left by a run that was killed.
    folder = tmp_path / resolved(tmp_path, "b")["tokenized_path"]
    (folder / "tunebook.json").unlink()
    done = start(tmp_path, resolved(tmp_path, "b"), "output_dir=d")
    assert done.returncode == 2
    assert "were not written to the end" in done.stdout


def without_times(entry: dict) -> dict:
    timed = ("runtime", "per_second", "seconds", "flos")
    return {key: value for key, value in entry.items() if not key.endswith(timed)}


def resolved(folder: Path, output: str) -> dict:
    name = output if (folder / output).is_dir() else f"runs/{output}"
    return yaml.safe_load((folder / name / "tunebook" / "recipe.yaml").read_text())


def start(folder: Path, values: dict, *arguments: str, **env: str) -> subprocess.CompletedProcess:
    (folder / "recipe.yaml").write_text(yaml.safe_dump({**values, "output_dir": "runs/x"}))
    options = [argument for argument in arguments if argument.startswith("-")]
    overrides = [argument for argument in arguments if not argument.startswith("-")]
    return run(folder, PROGRAMS / "tunebook", "train", "recipe.yaml", *overrides, *options, **env)


def run(folder: Path, *command, **env: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, **env},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
