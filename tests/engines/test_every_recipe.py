"""Every LLaMA-Factory recipe with its smoke overlay: trains two steps, evaluates, saves, and can be read back."""

import json
from math import isfinite

import every_recipe
import pytest

from recipe_cases import cases

pytestmark = [pytest.mark.engine, pytest.mark.timeout(900)]

CASES = cases("llamafactory")


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkout")
    every_recipe.prepare(folder, CASES)
    return every_recipe.train(folder, CASES, "many_runs.py")


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_recipe_trains_evaluates_saves_and_can_be_read_back(outcomes, case):
    done = outcomes[case.name]
    assert done.code == 0, done.log[-4000:]
    history = json.loads((done.output / "checkpoint-2" / "trainer_state.json").read_text())["log_history"]
    losses = [row["loss"] for row in history if "loss" in row]
    assert len(losses) == 2
    assert all(isfinite(loss) for loss in losses)
    lines = (done.output / "tunebook" / "eval_metrics.jsonl").read_text().splitlines()
    figures = [json.loads(line) for line in lines]
    assert {(line["dataset"], line["step"]) for line in figures} == {
        (name, 2) for name in case.evaluation_sets
    }
    assert done.reloaded.get("error") is None, done.reloaded["error"]
    assert done.reloaded["finite"]
    assert done.reloaded["moved"] > 0
