"""What any Trainer leaves: results files are evaluations, and the Trainer's own choice says figure and direction."""

import json

import pytest

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


def test_without_a_choice_no_direction_is_made_up(tmp_path):
    logged = [{"eval_loss": loss, "eval_wer": 0.5 - loss / 10} for loss in (0.5, 0.6, 0.7)]
    said = headline(run(tmp_path / "run", logged))
    assert "which way wer is better is not known" in said
    assert "no task metric" not in said
    assert "no task metric was measured" in headline(run(tmp_path / "other", [{"eval_loss": 0.5}] * 3))
