"""Runs the smoke form of many recipes in one process of their engine, and reads the saved models back."""

import json
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from engine_cases import ROOT

from recipe_cases import MODEL_KEYS, Case, twin_of
from tunebook.recipes import engine_yaml

HERE = Path(__file__).parent
# What make_tiny_model.py does for one; all of them share the imports, which take longest.
BUILD = """
import sys
from pathlib import Path
sys.path.insert(0, "scripts")
from make_tiny_model import build
for name in sys.argv[1:]:
    build(name, Path("output/tiny") / name)
"""


class Outcome(NamedTuple):
    """What became of one recipe."""

    code: int
    log: str
    output: Path
    reloaded: dict
    """`finite` and `moved`, see reload_models.py; `error` where the model cannot be read back."""


def prepare(folder: Path, cases: list[Case]) -> None:
    """Make in `folder` what recipes need of a checkout: recipes, registry, demo data and tiny models."""
    for name in ("recipes", "scripts"):
        (folder / name).symlink_to(ROOT / name)
    registry = folder / "datasets_info"
    registry.mkdir()
    (registry / "dataset_info.json").write_bytes((ROOT / "datasets_info" / "dataset_info.json").read_bytes())
    scripts = (["scripts/prepare_demo.py"], ["scripts/prepare_demo_gsm8k.py"])
    twins = sorted({twin_of(model_of(case)) for case in cases})
    for command in (*scripts, ["-c", BUILD, *twins]):
        subprocess.run([sys.executable, *command], cwd=folder, check=True)


def model_of(case: Case) -> str:
    return next(case.values[key] for key in MODEL_KEYS.values() if key in case.values)


def train(folder: Path, cases: list[Case], script: str) -> dict[str, Outcome]:
    """Train every case in one process of `script`, then read every model back in another."""
    runs = []
    for case in cases:
        file = folder / f"{Path(case.output).name}.yaml"
        file.write_text(engine_yaml.dump(case.values))
        runs.append(dict(case.values) if script == "many_runs.py" else {"verb": "train", "recipe": str(file)})
    trained = _results(folder, script, runs)
    reloads = [{"output": case.output, "base": model_of(case)} for case in cases]
    reloaded = _results(folder, "reload_models.py", reloads)
    return {
        case.name: Outcome(one["code"], one["log"], folder / case.output, back)
        for case, one, back in zip(cases, trained, reloaded, strict=True)
    }


def _results(folder: Path, script: str, work: list[dict]) -> list[dict]:
    file = folder / f"{Path(script).stem}.json"
    file.write_text(json.dumps(work))
    done = subprocess.run(
        [sys.executable, HERE / script, file],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    results = [json.loads(line[7:]) for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    assert len(results) == len(work), done.stdout[-2000:] + done.stderr[-4000:]
    return results
