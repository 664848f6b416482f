"""What any Trainer leaves: results files are evaluations, and the Trainer's own choice says figure and direction."""

import json

import pytest

from tunebook.comparison.rows import find_predictions
from tunebook.models.checkpoints import best_step
from tunebook.models.chosen import best_of
from tunebook.report.data import gather
from tunebook.runlog import read_run


def run(folder, evaluations=(), *, best=None, checkpoint=None, **files):
    """A run of 30 steps with `eval_*` figures at 10, 20 and 30, and results files."""
    history = [{"step": step, "epoch": step / 30, "loss": 2.0 - step / 30} for step in (10, 20, 30)]
    history += [
        {"step": step, "epoch": step / 30, **figures}
        for step, figures in zip((10, 20, 30), evaluations, strict=False)
    ]
    history.sort(key=lambda entry: entry["step"])
    state = {
        "global_step": 30,
        "max_steps": 30,
        "num_train_epochs": 1,
        "epoch": 1.0,
        "log_history": history,
        "best_metric": best,
        "best_model_checkpoint": checkpoint and f"out/checkpoint-{checkpoint}",
    }
    folder.mkdir(exist_ok=True)
    (folder / "trainer_state.json").write_text(json.dumps(state))
    for name, values in files.items():
        (folder / f"{name}.json").write_text(json.dumps(values))
    return folder


def headline(folder):
    return gather([folder]).runs[0].headline


def test_an_evaluation_after_training_lies_in_the_results_file(tmp_path):
    results = {
        "epoch": 1.0,
        "eval_loss": 1.21,
        "eval_rouge1": 41.6,
        "eval_runtime": 5.0,
        "eval_samples": 13368,
    }
    folder = run(tmp_path / "run", eval_results=results)
    (one,) = read_run(folder).evaluations
    assert (one.step, one.after_training, one.source, one.n) == (30, True, "eval_results.json", 13368)
    assert one.values == {"loss": 1.21, "rouge1": 41.6}
    assert "never evaluated" not in headline(folder)


def test_predictions_are_an_evaluation_under_their_own_name(tmp_path):
    folder = run(
        tmp_path / "run",
        predict_results={"predict_rouge-1": 41.0, "predict_bleu-4": 12.0, "predict_runtime": 3.0},
    )
    (one,) = read_run(folder).evaluations
    assert one.dataset == "predict"
    assert one.values == {"rouge-1": 41.0, "bleu-4": 12.0}


def test_what_the_log_has_too_counts_once(tmp_path):
    logged = [{"eval_loss": value} for value in (1.5, 1.4, 1.3)]
    folder = run(
        tmp_path / "run",
        logged,
        eval_results={"eval_loss": 1.3},
        all_results={"eval_loss": 1.3, "train_loss": 1},
    )
    assert len(read_run(folder).evaluations) == 3


@pytest.mark.parametrize(
    ("values", "best", "step", "larger"),
    [((0.6, 0.4, 0.45), 0.4, 20, False), ((0.6, 0.7, 0.65), 0.7, 20, True)],
)
def test_the_trainers_choice_says_figure_and_direction(tmp_path, values, best, step, larger):
    logged = [
        {"eval_loss": loss, "eval_wer": value} for loss, value in zip((0.5, 0.6, 0.7), values, strict=True)
    ]
    folder = run(tmp_path / "run", logged, best=best, checkpoint=step)
    (chosen,) = gather([folder]).runs[0].best
    assert (chosen.figure.name, chosen.figure.value, chosen.figure.step) == ("wer", best, step)
    assert chosen.figure.larger_is_better is larger
    assert "wer" in headline(folder)


def test_the_engines_figures_beside_ours_stand_in_the_same_evaluation(tmp_path):
    figures = [{"loss": 0.6, "rewards/accuracies": 0.5 + step / 10} for step in (3, 1, 2)]
    folder = measured(tmp_path / "run", figures, best=0.8, checkpoint=10, asked="rewards/accuracies")
    lines = [
        json.loads(line) for line in (folder / "tunebook" / "eval_metrics.jsonl").read_text().splitlines()
    ]
    for line in lines:
        line["values"] = {"macro_f1": 0.7, "perplexity": 1.1}
    (folder / "tunebook" / "eval_metrics.jsonl").write_text("".join(json.dumps(x) + "\n" for x in lines))
    state = json.loads((folder / "trainer_state.json").read_text())
    logged = [entry for entry in state["log_history"] if "eval_loss" in entry]
    for entry, values in zip(logged, figures, strict=True):
        entry |= {f"eval_{name}": value for name, value in values.items()} | {"eval_macro_f1": 0.7}
    (folder / "trainer_state.json").write_text(json.dumps(state))
    evaluations = read_run(folder).evaluations
    assert [(one.dataset, one.step) for one in evaluations] == [("set", 10), ("set", 20), ("set", 30)]
    assert evaluations[0].values == {
        "loss": 0.6,
        "rewards/accuracies": 0.8,
        "macro_f1": 0.7,
        "perplexity": 1.1,
    }
    assert "whose chosen answer has the larger reward 0.800" in headline(folder)


def test_rewards_of_the_last_of_several_sets_are_not_given_to_another(tmp_path):
    folder = measured(tmp_path / "run", [{"macro_f1": 0.7, "loss": 0.1}] * 3, best=None, checkpoint=None)
    path = folder / "tunebook" / "eval_metrics.jsonl"
    path.write_text(path.read_text().replace(', "loss": 0.1', ""))
    state = json.loads((folder / "trainer_state.json").read_text())
    for entry in state["log_history"]:
        if "eval_loss" in entry:
            entry |= {"eval_set_loss": entry.pop("eval_loss"), "eval_other_loss": 0.2}
            entry["eval_rewards/accuracies"] = 0.9
    (folder / "trainer_state.json").write_text(json.dumps(state))
    values = {one.dataset: one.values for one in read_run(folder).evaluations}
    assert set(values) == {"set", "other"}
    assert values["set"] == {"macro_f1": 0.7, "loss": 0.1}


def test_without_a_choice_no_direction_is_made_up(tmp_path):
    logged = [{"eval_loss": loss, "eval_wer": 0.5 - loss / 10} for loss in (0.5, 0.6, 0.7)]
    said = headline(run(tmp_path / "run", logged))
    assert "which way wer is better is not known" in said
    assert "no task metric" not in said
    assert "no task metric was measured" in headline(run(tmp_path / "other", [{"eval_loss": 0.5}] * 3))


def measured(folder, figures, *, best, checkpoint, asked=None):
    """A run whose evaluations at 10, 20 and 30 are of a set with the metric `yes_no`."""
    run(folder, [{"eval_loss": one["loss"]} for one in figures], best=best, checkpoint=checkpoint)
    (folder / "tunebook").mkdir()
    lines = [
        {
            "dataset": "set",
            "step": step,
            "n": 50,
            "in_training": True,
            "metric": ["yes_no"],
            "select_by": "macro_f1",
            "values": values,
        }
        for step, values in zip((10, 20, 30), figures, strict=True)
    ]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (folder / "tunebook" / "eval_metrics.jsonl").write_text(text)
    recipe = {"stage": "sft", **({"metric_for_best_model": asked} if asked else {})}
    (folder / "tunebook" / "recipe.yaml").write_text(json.dumps(recipe))
    for step in (10, 20, 30):
        name = f"eval_records-set-{step}.jsonl"
        (folder / "tunebook" / name).write_text(json.dumps({"dataset": "set", "index": 0, "step": step}))
    return folder


FIGURES = [
    {"loss": 0.5, "macro_f1": 0.6, "accuracy": 0.9},
    {"loss": 0.3, "macro_f1": 0.7, "accuracy": 0.8},
    {"loss": 0.4, "macro_f1": 0.9, "accuracy": 0.7},
]


@pytest.mark.parametrize(
    ("asked", "best", "step", "figure"),
    [
        ("accuracy", 0.9, 10, "accuracy"),
        ("eval_accuracy", 0.9, 10, "accuracy"),
        ("macro_f1", 0.9, 30, "macro_f1"),
        ("eval_loss", 0.3, 20, "loss"),
        (None, 0.3, 20, "macro_f1"),  # `load_best_model_at_end` by itself goes by the loss
    ],
)
def test_best_is_the_trainers_choice_in_every_command(tmp_path, asked, best, step, figure):
    folder = measured(tmp_path / "run", FIGURES, best=best, checkpoint=step, asked=asked)
    (one,) = gather([folder]).runs[0].best
    assert (one.figure.step, one.figure.name) == (step, figure)
    assert best_step(folder) == step
    assert find_predictions(str(folder)).chosen["set"].startswith(f"step {step}, the Trainer's choice")
    there = {number: folder / f"checkpoint-{number}" for number in (10, 20, 30)}
    assert best_of(folder, there).step == step


def test_a_better_step_by_the_metrics_own_figure_is_a_finding(tmp_path):
    def told(name, **choice):
        findings = gather([measured(tmp_path / name, FIGURES, **choice)]).runs[0].findings
        return [one for one in findings if "than the checkpoint that was chosen" in one.title]

    (finding,) = told("a", best=0.9, checkpoint=10, asked="accuracy")
    assert finding.title.startswith("step 30 is better by macro-F1")
    assert "chose step 10" in finding.evidence
    assert "0.600" in finding.evidence
    assert "0.900 at step 30" in finding.evidence
    assert not told("b", best=0.9, checkpoint=30, asked="macro_f1")


def test_without_a_choice_of_the_trainer_the_metric_says_what_is_best(tmp_path):
    folder = measured(tmp_path / "run", FIGURES, best=None, checkpoint=None)
    (one,) = gather([folder]).runs[0].best
    assert (one.figure.step, one.figure.name) == (30, "macro_f1")
    assert find_predictions(str(folder)).chosen == {"set": "step 30, the best by macro_f1"}
    assert best_of(folder, {10: folder, 30: folder}).step == 30
