"""`RUN` stands for the same weights in `eval`, `compare`, `infer`, `verify` and `merge`."""

import json

import pytest

from test_infer import CONTRACT, make_checkpoint
from tunebook.comparison.rows import find_predictions
from tunebook.errors import TunebookError
from tunebook.evaluation import models
from tunebook.models import contract
from tunebook.models.source import find_model

STEPS = (10, 20, 30)


@pytest.fixture
def make_run(tmp_path):
    """A function that makes a run: its figures by set and step, and the step of the weights in its own folder."""

    def make(figures, *, trainers=None, final=None, saved=STEPS, larger=True, name="macro_f1"):
        run = tmp_path / "run"
        state = {"best_model_checkpoint": f"/elsewhere/run/checkpoint-{trainers}"} if trainers else {}
        for step in saved:
            make_checkpoint(run / f"checkpoint-{step}", step, **state)
        if final is not None:
            for file in (run / "checkpoint-30").iterdir():
                (run / file.name).write_bytes(file.read_bytes())
            (run / contract.FILE).write_text(json.dumps({**CONTRACT, "step": final}))
        ours = run / "tunebook"
        ours.mkdir(parents=True)
        (ours / "recipe.yaml").write_text("model_name_or_path: m\n")
        lines = []
        for dataset, by_step in figures.items():
            for step, value in by_step.items():
                values = dict(
                    zip((name, "loss"), value if isinstance(value, tuple) else (value,), strict=False)
                )
                line = {"dataset": dataset, "step": step, "values": values, "select_by": name}
                lines.append(line | {"larger_is_better": larger})
                row = {"dataset": dataset, "index": 0, "prediction": "Yes", "reference": "yes", "scores": {}}
                (ours / f"eval_records-{dataset}-{step}.jsonl").write_text(json.dumps(row) + "\n")
        (ours / "eval_metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        return run

    return make


def step_in(run, at=""):
    """The step that each command takes."""
    folder = find_model(f"{run}{at}").folder
    own = json.loads((folder / contract.FILE).read_text())["step"]
    compared = {path.stem.rpartition("-")[2] for path in find_predictions(f"{run}{at}").files.values()}
    (evaluated,) = models.choose(run, at.removeprefix("@") or "best").weights
    assert compared == {str(own)}, (compared, own)
    assert evaluated.step == own, (evaluated, own)
    return own


CASES = {
    "by the metric": ({"a": {0: 0.1, 10: 0.5, 20: 0.9, 30: 0.7}}, {}, 20),
    "the earliest of equals": ({"a": {10: 0.9, 20: 0.9, 30: 0.7}}, {}, 10),
    "of equals the lower loss": ({"a": {10: (0.4, 0.6), 20: (0.4, 0.2), 30: (0.4, 0.3)}}, {}, 20),
    "smaller is better": ({"a": {10: 5.0, 20: 4.0, 30: 7.0}}, {"larger": False, "name": "perplexity"}, 20),
    "the trainer's choice": ({"a": {10: 0.5, 20: 0.9, 30: 0.7}}, {"trainers": 30}, 30),
    "never the base": ({"a": {0: 0.9, 10: 0.1, 20: 0.2, 30: 0.3}}, {}, 30),
    "not a figure that is none": ({"a": {10: float("nan"), 20: 0.2, 30: 0.1}}, {}, 20),
    "not what was not saved": ({"a": {10: 0.5, 15: 0.99, 20: 0.6, 30: 0.1}}, {}, 20),
    "of two sets the first": ({"a": {10: 0.5, 20: 0.9, 30: 0.7}, "b": {10: 40.0, 20: 1.0, 30: 2.0}}, {}, 20),
    "in the run's own folder": ({"a": {10: 0.5, 20: 0.9, 30: 0.7}}, {"trainers": 20, "final": 20}, 20),
    "not the final one": ({"a": {10: 0.5, 20: 0.9, 30: 0.7}}, {"final": 30}, 20),
}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.replace(" ", "_"))
def test_a_run_is_the_same_step_in_every_command(make_run, case):
    figures, more, step = CASES[case]
    run = make_run(figures, **more)
    assert step_in(run) == step
    assert step_in(run, "@best") == step
    assert step_in(run, "@last") == 30
    assert step_in(run, "@10") == 10


def test_the_run_itself_is_taken_where_it_holds_these_weights(make_run):
    run = make_run({"a": {10: 0.5, 20: 0.9, 30: 0.7}}, trainers=20, final=20)
    found = find_model(str(run))
    assert (found.folder, found.chosen) == (run, "step 20, the Trainer's choice of the best")


def test_a_step_that_only_the_run_itself_holds_can_be_named(make_run):
    run = make_run({"a": {10: 0.5, 20: 0.9, 30: 0.7}}, final=30)
    for file in (run / "checkpoint-30").iterdir():
        file.unlink()
    (run / "checkpoint-30").rmdir()
    for at in ("@30", "@last"):
        assert find_model(f"{run}{at}").folder == run
        assert step_in(run, at) == 30


def test_where_nothing_says_what_is_best_the_last_is_taken_and_said(make_run):
    run = make_run({}, final=30)
    assert find_model(str(run)).folder == run
    assert "nothing says which step was best" in find_model(str(run)).chosen
    assert models.choose(run, "best").weights[0].step == 30
    with pytest.raises(TunebookError, match="nothing says which of its steps was best"):
        find_model(f"{run}@best")


def test_two_wishes_that_differ_are_refused(make_run):
    run = make_run({"a": {10: 0.5, 20: 0.9, 30: 0.7}})
    with pytest.raises(TunebookError, match="--checkpoint 20 asks for another"):
        find_model(f"{run}@10", checkpoint="20")
    assert find_model(f"{run}@10", checkpoint="10").folder == run / "checkpoint-10"
    with pytest.raises(TunebookError, match="its steps are: 10, 20, 30"):
        find_model(f"{run}@15")


def test_records_alone_are_compared_by_their_own_best(make_run):
    run = make_run({"a": {0: 0.95, 10: 0.5, 20: 0.9, 30: 0.7}}, saved=())
    (path,) = find_predictions(str(run)).files.values()
    assert path.name == "eval_records-a-20.jsonl"
