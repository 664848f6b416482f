"""The real LLaMA-Factory on the real cluster: stopped and put back into the queue, and two nodes as one."""

# ruff: noqa: F401, F811 - fixtures are imported by name
import json
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from emulated_cluster import cluster

pytestmark = [pytest.mark.infra, pytest.mark.engine]

ROOT = Path(__file__).resolve().parents[2]
TUNEBOOK = Path(sys.executable).parent / "tunebook"
SETTINGS = {"setup": "export OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1\n", "time": "20", "gpus_per_node": 1}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory) -> Path:
    """A tiny model, 400 rows, a split of them in two, a recipe and the cluster's settings."""
    folder = tmp_path_factory.mktemp("cluster")
    script = ROOT / "scripts" / "make_tiny_model.py"
    subprocess.run([sys.executable, script, "--architecture", "qwen3", "-o", folder / "model"], check=True)
    rows = [
        {
            "instruction": f"Is {number} even? Answer Yes or No.",
            "input": "",
            "output": "No" if number % 2 else "Yes",
        }
        for number in range(400)
    ]
    (folder / "data").mkdir()
    (folder / "data" / "train.json").write_text(json.dumps(rows[:300]))
    (folder / "data" / "eval.json").write_text(json.dumps(rows[300:]))
    info = {"even": {"file_name": "train.json"}, "even_eval": {"file_name": "eval.json", "metric": "yes_no"}}
    (folder / "data" / "dataset_info.json").write_text(json.dumps(info))
    recipe = {
        "model_name_or_path": str(folder / "model"),
        "template": "qwen3",
        "enable_thinking": False,
        "stage": "sft",
        "do_train": True,
        "finetuning_type": "full",
        "dataset_dir": str(folder / "data"),
        "dataset": "even",
        "eval_dataset": "even_eval",
        "cutoff_len": 128,
        "per_device_train_batch_size": 8,
        "per_device_eval_batch_size": 50,
        "learning_rate": 1.0e-3,
        "lr_scheduler_type": "constant",
        "eval_strategy": "steps",
        "eval_steps": 20,
        "save_steps": 20,
        "logging_steps": 1,
        "max_steps": 100,
        "output_dir": str(folder / "run"),
        "report_to": "none",
        "ddp_timeout": 120,
        "seed": 1,
    }
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    (folder / "cluster.yaml").write_text(yaml.safe_dump(SETTINGS))
    split = [TUNEBOOK, "data", "split", "even", "--nodes", "2", "--joint", "-o", folder / "split"]
    subprocess.run([*split, "--dataset-dir", folder / "data"], check=True, capture_output=True)
    return folder


def launch(prepared: Path, *arguments: object) -> list[object]:
    return [TUNEBOOK, "launch", prepared / "recipe.yaml", "--cluster", prepared / "cluster.yaml", *arguments]


def losses(output: Path) -> dict[int, float]:
    log = json.loads((output / "trainer_state.json").read_text())["log_history"]
    return {entry["step"]: entry["loss"] for entry in log if "loss" in entry}


def test_a_preempted_array_goes_on_and_ends_as_if_it_had_not_been(cluster, prepared):
    run = prepared / "preempted"
    common = launch(prepared, "--split", prepared / "split", "--via", "slurm")
    job = re.search(r"job (\d+)", cluster.run(*common, f"output_dir={run}"))[1]
    asked = set()
    deadline = time.monotonic() + 300
    while asked != {0, 1}:
        for rank in {0, 1} - asked:
            log = run / "logs" / f"node_{rank}.log"
            if log.exists() and "step 20, " in log.read_text(errors="replace"):
                cluster.run("scancel", "--batch", "--signal=USR1", f"{job}_{rank}")
                asked.add(rank)
        assert time.monotonic() < deadline, cluster.run("squeue")
        time.sleep(0.05)
    states = cluster.wait_for_job(job, timeout=400)
    assert states == {"0": "COMPLETED", "1": "COMPLETED"}, (run / "logs" / "node_0.log").read_text()[-3000:]
    whole = prepared / "whole"
    other = re.search(r"job (\d+)", cluster.run(*common, f"output_dir={whole}"))[1]
    assert set(cluster.wait_for_job(other, timeout=400).values()) == {"COMPLETED"}
    for rank in range(2):
        node = run / f"node_{rank}"
        first, second = (
            json.loads((node / "tunebook/run-1.json").read_text()),
            json.loads((node / "tunebook/run.json").read_text()),
        )
        assert first["resumed_from"] is None
        assert second["resumed_from"].startswith("checkpoint-")
        assert losses(node) == losses(whole / f"node_{rank}")
        assert max(losses(node)) == 100
    assert losses(run / "node_0") != losses(run / "node_1")


@pytest.mark.parametrize("via", ["slurm", "ssh"])
def test_two_nodes_train_one_model_together(cluster, prepared, via):
    run = prepared / f"joint_{via}"
    arguments = launch(
        prepared, "--split", prepared / "split", "--joint", f"output_dir={run}", "max_steps=20"
    )
    if via == "ssh":
        (prepared / "hosts").write_text("node0\nnode1\n")
        out = cluster.run(*arguments, "--via", "ssh", "--hosts", prepared / "hosts", timeout=400)
        assert "all 2 nodes are done" in out
    else:
        job = re.search(r"job (\d+)", cluster.run(*arguments, "--via", "slurm"))[1]
        assert cluster.wait_for_job(job, timeout=400) == {"all": "COMPLETED"}, (
            run / "logs/node_0.log"
        ).read_text()[-3000:]
    log = (run / "logs" / "node_0.log").read_text(errors="replace")
    assert "world size: 2" in log
    assert "Total train batch size (w. parallel, distributed & accumulation) = 16" in log
    # Every node reads the whole: 300 rows, not the 150 of a part.
    assert "Num examples = 300" in log
    state = json.loads((run / "trainer_state.json").read_text())
    assert state["global_step"] == 20
    assert any("eval_accuracy" in entry for entry in state["log_history"])
    shown = cluster.run(TUNEBOOK, "status", run)
    assert "20/20" in shown
