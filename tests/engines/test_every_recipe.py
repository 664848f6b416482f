"""Every recipe with its smoke overlay: trains two steps, evaluates, saves, and can be read back."""

import functools
import json
from math import isfinite

import every_recipe
import pytest

from recipe_cases import Case, cases

CASES = [
    *(pytest.param(case, id=case.name, marks=pytest.mark.engine) for case in cases("llamafactory")),
    *(pytest.param(case, id=case.name, marks=pytest.mark.axolotl) for case in cases("axolotl")),
]
SCRIPTS = {"llamafactory": "many_runs.py", "axolotl": "axolotl_runs.py"}
# Axolotl evaluates the model as it was, too.
STEPS = {"llamafactory": {2}, "axolotl": {0, 2}}


def engine_of(case: Case) -> str:
    return case.name.partition("/")[0]


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    """A function that gives the outcomes of an engine's recipes; all of them are run at the first call."""

    @functools.cache
    def run(engine: str):
        folder = tmp_path_factory.mktemp(engine)
        every_recipe.prepare(folder, cases(engine))
        return every_recipe.train(folder, cases(engine), SCRIPTS[engine])

    return run


@pytest.mark.parametrize("case", CASES)
def test_a_recipe_trains_evaluates_saves_and_can_be_read_back(outcomes, case):
    done = outcomes(engine_of(case))[case.name]
    assert done.code == 0, done.log[-4000:]
    history = json.loads((done.output / "checkpoint-2" / "trainer_state.json").read_text())["log_history"]
    losses = [row["loss"] for row in history if "loss" in row]
    assert len(losses) == 2
    assert all(isfinite(loss) for loss in losses)
    lines = (done.output / "tunebook" / "eval_metrics.jsonl").read_text().splitlines()
    evaluated = {(line["dataset"], line["step"]) for line in map(json.loads, lines)}
    steps = {*STEPS[engine_of(case)], *([0] if case.values.get("eval_on_start") else [])}
    assert evaluated == {(name, step) for name in case.evaluation_sets for step in steps}
    assert done.reloaded.get("error") is None, done.reloaded["error"]
    assert done.reloaded["finite"]
    assert done.reloaded["moved"] > 0
