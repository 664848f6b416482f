"""What a faulty recipe costs: the engine's own failure beside `tunebook check`.

Each case is a recipe with one fault. The engine is started on it as a user would, and ends with an error, or
goes on as if nothing were wrong. Prints wall and CPU time (user + system, children included) of both, and the
ratio of wall times. `tunebook check` is timed as a whole process, the median of several.

The engine needs a model: the tiny one that scripts/make_tiny_model.py makes in output/tiny/qwen3.

Example:
  python benchmarks/preflight.py
  python benchmarks/preflight.py --case unknown-key
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import click
import yaml

ROOT = Path(__file__).resolve().parents[1]
MODEL = ROOT / "output" / "tiny" / "qwen3"
CHECKS = 5

RECIPE: dict[str, Any] = {
    "model_name_or_path": str(MODEL),
    "template": "qwen3_nothink",
    "stage": "sft",
    "do_train": True,
    "finetuning_type": "lora",
    "dataset_dir": "data",
    "dataset": "rows",
    "eval_dataset": "rows",
    "eval_strategy": "steps",
    "eval_steps": 1,
    "save_steps": 1,
    "max_steps": 2,
    "cutoff_len": 64,
    "output_dir": "out",
    "report_to": "none",
    "use_cpu": True,
}
CASES: dict[str, dict[str, Any]] = {
    "unknown-key": {"cuttoff_len": 5},
    "bad-choice": {"finetuning_type": "lorra"},
    "undefined-dataset": {"dataset": "rowz"},
    "missing-data": {"dataset": "gone"},
    "partial-columns": {"dataset": "half"},
    "unknown-template": {"template": "qwen33"},
    "wrong-type": {"per_device_train_batch_size": "abc"},
    "save-eval-steps": {"load_best_model_at_end": True, "eval_steps": 2, "save_steps": 3},
    "early-stopping": {"early_stopping_steps": 2},
    "scheduler-options": {"lr_scheduler_type": "cosine", "lr_scheduler_kwargs": {"min_lr": 1.0e-6}},
    "metric-not-produced": {"load_best_model_at_end": True, "metric_for_best_model": "f2"},
    "registry-key": {"dataset": "misspelt"},
    "quoted-value": {"do_train": "false"},
    "settings-conflict": {"mask_history": True, "train_on_prompt": True},
    "attention-name": {"flash_attn": "fa3"},
    "ignored-key": {"logging_dir": "logs", "gradient_checkpointing": False},
    "repeated-dataset": {"dataset": "rows,rows"},
}
REGISTRY = {
    "rows": {"file_name": "rows.json"},
    "gone": {"file_name": "gone.json"},
    "half": {"file_name": "rows.json", "columns": {"prompt": "instruction"}},
    "misspelt": {"file_name": "rows.json", "column": {"prompt": "instruction", "response": "output"}},
}


class Timed(NamedTuple):
    """One finished process."""

    code: int
    wall: float
    cpu: float
    log: str


def timed(argv: list[str], folder: Path) -> Timed:
    """Run a process to its end."""
    log = folder / "log.txt"
    started = time.perf_counter()
    with log.open("w") as stream:
        process = subprocess.Popen(argv, cwd=folder, stdout=stream, stderr=subprocess.STDOUT)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    wall = time.perf_counter() - started
    return Timed(process.returncode, wall, usage.ru_utime + usage.ru_stime, log.read_text(errors="replace"))


def measure(case: str, engine: str) -> None:
    """Print one line for one case."""
    programs = Path(sys.executable).parent
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "data").mkdir()
        rows = [{"instruction": "Is it?", "input": "", "output": "Yes"}] * 16
        (folder / "data" / "rows.json").write_text(json.dumps(rows))
        (folder / "data" / "dataset_info.json").write_text(json.dumps(REGISTRY))
        (folder / "recipe.yaml").write_text(yaml.safe_dump({**RECIPE, **CASES[case]}, sort_keys=False))
        checks = [timed([str(programs / "tunebook"), "check", "recipe.yaml"], folder) for _ in range(CHECKS)]
        if checks[0].code != 1 or f"[{case}]" not in checks[0].log:
            raise SystemExit(f"{case}: the check did not find it:\n{checks[0].log}")
        failed = timed([engine, "train", "recipe.yaml"], folder)
    told = next((line.strip() for line in reversed(failed.log.splitlines()) if "Error" in line), "(no error)")
    wall = statistics.median(check.wall for check in checks)
    cpu = statistics.median(check.cpu for check in checks)
    outcome = f"exit {failed.code}" if failed.code else "exit 0: never reported"
    click.echo(
        f"{case:20} engine {failed.wall:6.1f} s wall {failed.cpu:6.1f} s CPU, {outcome}; "
        f"check {wall * 1000:4.0f} ms wall {cpu * 1000:4.0f} ms CPU; {failed.wall / wall:5.0f}x\n"
        f"{'':20} {told[:100]}"
    )


@click.command()
@click.option("--case", "cases", multiple=True, type=click.Choice(list(CASES)), help="Only this one.")
def main(cases: tuple[str, ...]) -> None:
    """Compare the engine's own failures with the check."""
    if not MODEL.is_dir():
        raise click.UsageError("make the model first: python scripts/make_tiny_model.py -o output/tiny/qwen3")
    engine = Path(sys.executable).parent / "llamafactory-cli"
    for case in cases or CASES:
        measure(case, str(engine))


if __name__ == "__main__":
    main()
