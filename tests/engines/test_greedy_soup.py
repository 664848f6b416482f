"""`tunebook merge --greedy` with the real LLaMA-Factory: what it keeps, and that it goes on from what it has."""

import json
import os
import shutil
import subprocess

import pytest
import torch
import yaml
from eval_runs import ENVIRONMENT, TUNEBOOK
from safetensors.torch import load_file

pytestmark = pytest.mark.engine


@pytest.fixture(scope="module")
def untrained(tiny, tmp_path_factory):
    """The tiny model with weights that no training has seen."""
    import transformers

    folder = tmp_path_factory.mktemp("untrained") / "untrained"
    torch.manual_seed(3)
    config = transformers.AutoConfig.from_pretrained(tiny)
    transformers.AutoModelForCausalLM.from_config(config).float().save_pretrained(folder)
    transformers.AutoTokenizer.from_pretrained(tiny).save_pretrained(folder)
    return folder


def greedy(*arguments, code=0):
    done = subprocess.run(
        [TUNEBOOK, "merge", *map(str, arguments)],
        env={**os.environ, **ENVIRONMENT},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == code, done.stderr[-3000:] + done.stdout[-500:]
    return done


def test_what_has_learned_nothing_is_left_out(learned, untrained, recipe, tmp_path):
    file = tmp_path / "recipe.yaml"
    file.write_text(yaml.safe_dump({**recipe(), "output_dir": str(tmp_path / "run")}))
    checkpoints = sorted(learned.output.glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))
    trained = []
    for path in checkpoints[-2:]:
        trained.append(tmp_path / path.name.replace("checkpoint", "model"))
        shutil.copytree(path, trained[-1])
    evals, output = tmp_path / "evals", tmp_path / "soup"
    common = (untrained, *trained, "--recipe", file, "--evals", evals)

    done = greedy(*common, "--greedy", "like_evil", "-o", output, code=2)
    assert "like_evil" in done.stderr
    told = json.loads(greedy(*common, "--greedy", "like_odd", "-o", output, "--dry-run", "--json").stdout)
    assert told["greedy"]["evaluations_at_most"] == 5
    assert not evals.exists()

    told = json.loads(greedy(*common, "--greedy", "like_odd", "-o", output, "--json").stdout)
    chosen = told["greedy"]
    assert (chosen["figure"], chosen["larger_is_better"]) == ("macro_f1", True)
    steps = {step["candidate"]: step for step in chosen["steps"]}
    assert steps.keys() == {str(path) for path in (untrained, *trained)}
    assert [step["own"] for step in chosen["steps"]] == sorted(
        (step["own"] for step in steps.values()), reverse=True
    )
    assert {step["n"] for step in steps.values()} == {41}
    assert not steps[str(untrained)]["kept"]
    assert steps[str(untrained)]["with"] < steps[str(untrained)]["without"]
    for step in chosen["steps"][1:]:
        assert step["kept"] == (step["with"] >= step["without"])
    kept = [step for step in chosen["steps"] if step["kept"]]
    assert [given["name"] for given in told["inputs"]] == [step["candidate"] for step in kept]

    # What is on disk is the average of what was kept.
    made = load_file(output / "model.safetensors")
    parts = [load_file(f"{step['folder']}/model.safetensors") for step in kept]
    for name, tensor in made.items():
        mean = torch.stack([part[name].double() for part in parts]).mean(0)
        assert torch.allclose(tensor.double(), mean, atol=1e-6), name
    assert kept[-1]["with"] >= max(step["own"] for step in steps.values())
    assert "| left out |" in (output / "README.md").read_text()
    assert "no fair judge" in (output / "README.md").read_text()
    assert not list(tmp_path.glob(".soup*"))

    # Started again, nothing is evaluated a second time.
    logs = {path: path.stat().st_mtime_ns for path in evals.glob(".journal/jobs/*/engine.log")}
    assert len(logs) == 5
    again = json.loads(
        greedy(*common, "--greedy", "like_odd", "-o", tmp_path / "b", "--no-check", "--json").stdout
    )
    assert again["greedy"] == chosen
    assert {path: path.stat().st_mtime_ns for path in evals.glob(".journal/jobs/*/engine.log")} == logs
    assert (tmp_path / "b" / "model.safetensors").read_bytes() == (output / "model.safetensors").read_bytes()
