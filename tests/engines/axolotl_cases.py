"""Runs of Axolotl and what they leave, shared by the tests of that engine."""

import json
import os
import subprocess
import sys
from pathlib import Path

import yaml
from engine_cases import Run

HERE = Path(__file__).parent
NO_KERNELS = dict.fromkeys(
    ("lora_mlp_kernel", "lora_qkv_kernel", "lora_o_kernel", "lora_embedding_kernel"), False
)  # they are Triton, and switched on by themselves
LORA = {"adapter": "lora", "lora_r": 8, "lora_alpha": 16, "lora_target_linear": True, **NO_KERNELS}


def state_of(run: Run, step: int) -> dict:
    return json.loads((run.output / f"checkpoint-{step}" / "trainer_state.json").read_text())


def logged(run: Run, step: int, key: str) -> dict[int, float]:
    """Every value of one key in the history that checkpoint `step` keeps, by step."""
    return {row["step"]: row[key] for row in state_of(run, step)["log_history"] if key in row}


def output_of(recipe: Path) -> Path:
    return Path(yaml.safe_load(recipe.read_text())["output_dir"])


def axolotl_train(recipe: Path, **env: str) -> Run:
    done = subprocess.run(
        [Path(sys.executable).parent / "axolotl", "train", recipe, "--launcher", "python"],
        env={**os.environ, **env},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4000:]
    return Run(done.returncode, done.stdout, output_of(recipe))


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
