"""A shipped Axolotl recipe, run as a user runs it: by `tunebook train`, from the core's environment."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from engine_cases import ROOT

from recipe_cases import shipped
from tunebook import paths
from tunebook.errors import TunebookError

pytestmark = pytest.mark.axolotl


@pytest.fixture(scope="module")
def checkout(tmp_path_factory) -> Path:
    """A checkout's recipes and registry, with the demo model and data made where recipes look for them."""
    folder = tmp_path_factory.mktemp("checkout")
    for name in ("recipes", "scripts"):
        (folder / name).symlink_to(ROOT / name)
    registry = folder / "datasets_info"
    registry.mkdir()
    (registry / "dataset_info.json").write_bytes((ROOT / "datasets_info" / "dataset_info.json").read_bytes())
    for command in (
        ["scripts/make_tiny_model.py", "-o", "output/tiny/qwen3"],
        ["scripts/prepare_demo.py", "-o", "datasets_info/demo"],
    ):
        subprocess.run([sys.executable, *command], cwd=folder, check=True)
    return folder


@pytest.fixture(scope="module")
def core() -> Path:
    """Another environment than Axolotl's, where there is one."""
    try:
        return paths.engine_environment("llamafactory")
    except TunebookError:
        return Path(sys.prefix)


@pytest.fixture(scope="module")
def trained(checkout, core) -> subprocess.CompletedProcess:
    return subprocess.run(
        [core / "bin" / "tunebook", "train", "axolotl/qwen3-0.6b/qlora_sft_movielens", "-o", "smoke"],
        cwd=checkout,
        env={
            **os.environ,
            "TUNEBOOK_AXOLOTL_ENV": sys.prefix,
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )


def test_tunebook_train_runs_an_axolotl_recipe(checkout, trained):
    assert trained.returncode == 0, trained.stdout[-4000:]
    output = checkout / "output" / "smoke" / "axolotl" / "qwen3-movielens-qlora"
    state = json.loads((output / "checkpoint-8" / "trainer_state.json").read_text())
    by_step = {row["step"]: row["eval_f1"] for row in state["log_history"] if "eval_f1" in row}
    assert set(by_step) == {0, 4, 8}
    assert state["best_metric"] == max(value for step, value in by_step.items() if step)
    run = json.loads((output / "tunebook" / "run.json").read_text())
    assert "AXOLOTL_DO_NOT_TRACK=1" in run["command"]
    assert set(run["datasets"]) == {"demo_recommend_train", "demo_recommend_eval"}
    assert run["versions"]["axolotl"] == "0.19.0"


def test_the_report_reads_an_axolotl_run(checkout, core, trained):
    output = "output/smoke/axolotl/qwen3-movielens-qlora"
    done = subprocess.run(
        [core / "bin" / "tunebook", "report", output, "-o", "reports/smoke"],
        cwd=checkout,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    report = (checkout / "reports" / "smoke" / "report.md").read_text()
    assert "demo_recommend_eval" in report
    assert "macro_f1" in report


@pytest.mark.parametrize(
    ("override", "said"), [("lora_rank=4", "write lora_r"), ("plugins=[no_such.Plugin]", "no module no_such")]
)
def test_the_engine_is_not_reached_with_a_fault(checkout, core, override, said):
    done = subprocess.run(
        [core / "bin" / "tunebook", "train", "axolotl/demo/qlora_sft_recommend", override],
        cwd=checkout,
        env={**os.environ, "TUNEBOOK_AXOLOTL_ENV": sys.prefix},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert said in done.stderr
    assert not (checkout / "output" / "smoke" / "axolotl" / "recommend-qlora").exists()


@pytest.mark.parametrize("recipe", shipped("axolotl"), ids=lambda recipe: recipe.name)
def test_the_engine_accepts_every_recipe_on_a_machine_with_gpus(recipe, monkeypatch):
    # The smoke overlays switch off what needs a GPU; here it is on, and nothing is loaded.
    from axolotl.cli.config import prepare_plugins
    from axolotl.utils.config import validate_config
    from axolotl.utils.dict import DictDefault

    monkeypatch.chdir(ROOT)
    config = DictDefault(dict(recipe.values))
    prepare_plugins(config)
    machine = {
        "bf16": True,
        "fp8": True,
        "tf32": True,
        "n_gpu": 4,
        "n_node": 1,
        "compute_capability": "sm_90",
    }
    accepted = validate_config(config, capabilities=machine, env_capabilities={"torch_version": "2.13.0"})
    assert accepted.base_model == recipe.values["base_model"]
    if "axolotl.integrations.liger.LigerPlugin" in recipe.values.get("plugins", []):
        assert accepted.liger_fused_linear_cross_entropy
