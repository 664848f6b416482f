"""Run a short smoke on other versions of the engines than the pinned ones, and print a line for each.

Makes an environment for each set below `output/versions` (uv's cache makes that cheap), trains the demo for
40 steps, evaluates the run, answers prompts, verifies the model, and checks the engine's own examples of that
version. Prints the figures, which should be those of the pinned set, and how many examples have an error.

Example:
  .venv/bin/python scripts/try_versions.py llamafactory-0.9.4
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import click

ROOT = Path(__file__).resolve().parents[1]
FOLDER = Path("output/versions")
KEPT = re.compile(r"(?:torch|torchaudio|torchvision|torchdata|triton|nvidia-[\w-]+)==.*")
"""Pins that every set shares: what is large, and what engines ask little of."""


class Set(NamedTuple):
    """One set of versions."""

    engine: str
    packages: tuple[str, ...]
    """As pip takes them; none for the environment that `make setup` made."""
    tag: str
    """Of the engine's repository, whose examples are checked."""


LLAMAFACTORY = "https://github.com/hiyouga/LLaMA-Factory"
AXOLOTL = "https://github.com/axolotl-ai-cloud/axolotl"
SETS = {
    "llamafactory-pinned": Set("llamafactory", (), "v0.9.5"),
    "llamafactory-0.9.4": Set("llamafactory", ("llamafactory==0.9.4",), "v0.9.4"),
    "llamafactory-0.9.5-transformers-4.57": Set(
        "llamafactory", ("llamafactory==0.9.5", "transformers==4.57.1"), "v0.9.5"
    ),
    "llamafactory-main": Set("llamafactory", (f"llamafactory @ git+{LLAMAFACTORY}",), "main"),
    "axolotl-pinned": Set("axolotl", (), "v0.19.0"),
    **{
        f"axolotl-{version}": Set("axolotl", (f"axolotl=={version}",), f"v{version}")
        for version in ("0.16.1", "0.17.0", "0.18.0")
    },
}


def environment(name: str, one: Set) -> Path:
    """Return the set's environment, made where it is not there."""
    if not one.packages:
        return ROOT / (".venv" if one.engine == "llamafactory" else ".venv-axolotl")
    folder = (FOLDER / name / "venv").absolute()
    if (folder / "complete").exists():
        return folder
    pins = (ROOT / "constraints" / f"{one.engine}.txt").read_text(encoding="utf-8").splitlines()
    kept = folder.parent / "constraints.txt"
    kept.parent.mkdir(parents=True, exist_ok=True)
    kept.write_text("\n".join(line for line in pins if KEPT.fullmatch(line)), encoding="utf-8")
    uv = os.environ.get("UV", "uv")
    subprocess.run(
        [uv, "venv", "--quiet", "--allow-existing", "--python", sys.executable, folder], check=True
    )
    install = [uv, "pip", "install", "--quiet", "--python", folder / "bin" / "python", "-c", kept]
    subprocess.run([*install, *one.packages, "-e", ROOT], check=True)
    (folder / "complete").touch()
    return folder


def smoke(name: str, one: Set, examples: Path | None) -> dict[str, str]:
    """Do everything with one set; what fails is told by its step's last line."""
    where = environment(name, one)
    variables = {f"TUNEBOOK_{one.engine.upper()}_ENV": str(where), "OMP_NUM_THREADS": "1"}

    def tunebook(*words: str | Path) -> subprocess.CompletedProcess[str]:
        argv = [sys.executable, "-m", "tunebook", *map(str, words)]
        return subprocess.run(
            argv, env={**os.environ, **variables}, capture_output=True, text=True, check=False, timeout=900
        )

    run = FOLDER / name / "run"
    for old in (run, FOLDER / name / "eval"):
        shutil.rmtree(old, ignore_errors=True)
    # By each set's own transformers: 4.57 cannot read a tokenizer that 5 has saved.
    model, key = FOLDER / name / "tiny", "base_model" if one.engine == "axolotl" else "model_name_or_path"
    make = [where / "bin" / "python", "scripts/make_tiny_model.py", "--architecture", "qwen3", "-o", model]
    subprocess.run(make, check=True, capture_output=True)
    steps: dict[str, tuple[str | Path, ...]] = {
        "train": ("train", f"{one.engine}/demo/full_sft_recommend", "max_steps=40", "eval_steps=20",
                  "save_steps=20", f"{key}={model}", f"output_dir={run}"),
        "evaluate": ("eval", run, "-o", FOLDER / name / "eval"),
        "infer": ("infer", run, "datasets_info/demo/eval.json", "-o", FOLDER / name / "answers.jsonl",
                  "--overwrite", "--max-new-tokens", "8"),
        "verify": ("verify", run),
    }  # fmt: skip
    said = {}
    for step, words in steps.items():
        done = tunebook(*words)
        # verify: 1 is a difference between template and tokenizer, which this model has.
        fine = done.returncode == 0 or (step == "verify" and done.returncode == 1)
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        said[step] = "runs" if fine else f"exit status {done.returncode}: {last}"
    figures = run / "tunebook" / "eval_metrics.jsonl"
    if figures.is_file():
        last_line = json.loads(figures.read_text(encoding="utf-8").splitlines()[-1])
        said["figures"] = json.dumps(last_line)
    files = [] if examples is None else sorted(map(str, examples.rglob("*.y*ml")))
    if files:
        checked = json.loads(tunebook("check", "--without-files", "--json", *files).stdout)
        wrong = [
            f"{Path(result['name']).name}: {finding['rule']} {finding['key']}: {finding['message']}"
            for result in checked
            for finding in result["findings"]
            if finding["severity"] == "error"
        ]
        said["check"] = f"{len(wrong)} errors in {len(files)} examples"
        said |= {f"error {number}": text for number, text in enumerate(wrong, 1)}
    return said


@click.command()
@click.argument("names", nargs=-1)
@click.option("--examples", type=click.Path(path_type=Path), help="A checkout of the engine's examples.")
def main(names: tuple[str, ...], examples: Path | None) -> None:
    """Run the smoke of the named sets, by default of all."""
    for name in names or tuple(SETS):
        one = SETS[name]
        folder = examples
        if folder is None:
            folder = (FOLDER / name / "engine").absolute()
            if not folder.is_dir():
                source = LLAMAFACTORY if one.engine == "llamafactory" else AXOLOTL
                subprocess.run(
                    ["git", "clone", "--quiet", "--depth", "1", "--branch", one.tag, source, folder],
                    check=False,
                )
            folder /= "examples"
        click.echo(f"== {name}")
        for step, text in smoke(name, one, folder).items():
            click.echo(f"{step}: {text}")


if __name__ == "__main__":
    main()
