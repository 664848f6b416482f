"""Nodes train on their own folders of one split; one joint job needs the whole, or rows go unseen."""

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest
from axolotl_cases import run_many
from click.testing import CliRunner

from tunebook.cli.data_split import split
from tunebook.data.registry import load_registry
from tunebook.engines.axolotl.datasets import render_block
from tunebook.splits import joint_dataset_dir

HERE = Path(__file__).parent


def divide(name: str, registry: Path, out: Path, *options: str) -> None:
    done = CliRunner().invoke(split, [name, "--dataset-dir", str(registry), "-o", str(out), *options])
    assert done.exit_code == 0, done.output


@pytest.fixture(scope="session")
def divided(registry, tmp_path_factory) -> Path:
    """400 rows: 40 held out, 90 for each of four nodes."""
    out = tmp_path_factory.mktemp("split") / "out"
    options = ["--nodes", "4", "--eval", "40", "--eval-metric", "yes_no", "--balance", "bytes"]
    divide("like_train", registry, out, *options)
    return out


def rows_of(folder: Path, name: str) -> set[str]:
    entry = load_registry(folder).entry(name)
    return {row["instruction"] for row in json.loads((folder / entry.values["file_name"]).read_text())}


@pytest.mark.engine
def test_four_nodes_train_on_four_folders_under_llamafactory(divided, recipe, train_many):
    short = {"max_steps": 2, "eval_steps": 2, "save_steps": 2, "per_device_train_batch_size": 4}
    runs = train_many(
        [
            # One names the hold-out, one a set of the registry that was split: both have to be there.
            recipe(
                dataset_dir=str(divided / f"node_{node}"),
                eval_dataset="like_train_eval" if node % 2 else "like_odd",
                **short,
            )
            for node in range(4)
        ]
    )
    for node, run in enumerate(runs):
        assert run.code == 0, run.log[-3000:]
        assert run.state()["epoch"] == pytest.approx(2 / math.ceil(90 / 4))
        assert run.evaluations()[-1]["n"] == (40 if node % 2 else 41)
        assert run.logged("eval_f1") or run.logged("eval_macro_f1")


@pytest.mark.axolotl
def test_four_nodes_train_on_four_folders_under_axolotl(divided, axolotl_recipe, tmp_path):
    plans = []
    for node in range(4):
        folder = divided / f"node_{node}"
        nodes_own = load_registry(folder)
        blocks = {
            name: render_block(nodes_own.entry(name), str(folder))
            for name in ("like_train", "like_train_eval")
        }
        plans.append(
            {
                "verb": "train",
                "recipe": axolotl_recipe(
                    "like_train",
                    "like_train_eval",
                    datasets=[blocks["like_train"]],
                    test_datasets=[blocks["like_train_eval"]],
                    tunebook_dataset_dir=str(folder),
                    dataset_prepared_path=str(tmp_path / f"prepared{node}"),
                    max_steps=2,
                ),
            }
        )
    for run in run_many(tmp_path, plans):
        assert run.code == 0, run.log[-3000:]
        assert run.evaluations()[-1]["n"] == 40


@pytest.mark.engine
def test_a_joint_job_sees_each_row_once_only_if_every_node_has_the_whole(tmp_path, recipe):
    registry = tmp_path / "info"
    registry.mkdir()
    rows = [{"instruction": f"This is row {number}.", "input": "", "output": "Yes"} for number in range(32)]
    (registry / "rows.json").write_text(json.dumps(rows))
    (registry / "dataset_info.json").write_text(json.dumps({"rows": {"file_name": "rows.json"}}))
    out = tmp_path / "out"
    divide("rows", registry, out, "--nodes", "2")
    joint = joint_dataset_dir(out)
    values = recipe(
        dataset="rows",
        eval_dataset=None,
        eval_strategy=None,
        eval_steps=None,
        max_steps=None,
        num_train_epochs=1,
        save_strategy="no",
        save_steps=None,
        per_device_train_batch_size=4,
        ddp_timeout=120,
    )
    plans = [
        {
            "recipe": {**values, "output_dir": str(tmp_path / name)},
            "dataset_dirs": [str(folder) for folder in folders],
            "seen": str(tmp_path / f"seen_{name}"),
        }
        for name, folders in {
            "apart": (out / "node_0", out / "node_1"),
            "together": (joint, joint),
        }.items()
    ]
    (tmp_path / "plans.json").write_text(json.dumps(plans))
    torchrun = [Path(sys.executable).parent / "torchrun", "--standalone", "--nproc_per_node=2"]
    done = subprocess.run(
        [*torchrun, HERE / "split_ranks.py", tmp_path / "plans.json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4000:]
    apart, together = (
        [json.loads((Path(plan["seen"]) / f"{rank}.json").read_text()) for rank in range(2)] for plan in plans
    )
    # Each rank takes every second batch of what it believes all ranks hold: half of its own part.
    assert [len(seen) for seen in apart] == [8, 8]
    assert len(set(apart[0] + apart[1])) == 16
    assert sorted(together[0] + together[1]) == list(range(32))
