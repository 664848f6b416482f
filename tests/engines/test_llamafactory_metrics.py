"""Our metrics inside the evaluation of the unmodified `llamafactory-cli train`."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from engine_cases import Run

pytestmark = pytest.mark.engine


def test_metrics_reach_the_log_the_history_and_the_result_files(learned):
    assert "like_eval: macro_f1" in learned.log
    assert "'eval_macro_f1':" in learned.log
    assert len(learned.logged("eval_macro_f1")) == 4
    assert "eval_macro_f1" in json.loads((learned.output / "all_results.json").read_text())
    assert [line["step"] for line in learned.evaluations() if line["in_training"]] == [20, 40, 60, 80]


def test_the_best_checkpoint_is_the_one_with_the_best_metric(learned):
    state = learned.state()
    by_step = {e["step"]: e["eval_macro_f1"] for e in state["log_history"] if "eval_macro_f1" in e}
    best = max(by_step.values())
    assert best > 0.9, by_step
    assert state["best_metric"] == best
    assert by_step[state["best_global_step"]] == best
    assert json.loads((learned.output / "eval_results.json").read_text())["eval_macro_f1"] == best


def test_every_row_leaves_one_record(learned):
    records = learned.records("like_eval", 40)
    assert [record["index"] for record in records] == list(range(101))
    right = sum(record["scores"]["yes_no"]["values"]["accuracy"] for record in records)
    line = next(line for line in learned.evaluations() if line["step"] == 40)
    assert line["values"]["accuracy"] == right / 101
    assert line["n"] == 101


@pytest.mark.parametrize("step", [20, 40])
def test_answer_mode_equals_answers_generated_separately(learned, step):
    from tunebook.metrics import yes_no

    path = learned.output / "tunebook" / f"eval_records-like_eval-{step}.jsonl"
    done = subprocess.run(
        [
            sys.executable,
            Path(__file__).parent / "greedy_answers.py",
            learned.output / f"checkpoint-{step}",
            path,
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    generated = [json.loads(line) for line in done.stdout.splitlines()]
    records = learned.records("like_eval", step)
    ours = [record["scores"]["yes_no"]["parsed"] for record in records]
    assert ours == [yes_no.extract(text) for text in generated]
    assert {"yes", "no"} >= set(ours)


def test_after_training_the_same_checkpoint_gives_the_same_figures(learned, recipe, train):
    values = recipe(
        model_name_or_path=str(learned.output / "checkpoint-40"),
        do_eval=True,
        **dict.fromkeys(["do_train", "dataset", "max_steps", "eval_steps", "eval_strategy", "save_steps"]),
    )
    after = train(values).evaluations()[0]["values"]
    during = next(line["values"] for line in learned.evaluations() if line["step"] == 40)
    assert during == pytest.approx(after, abs=1e-9)
    assert {"macro_f1", "auroc", "loss"} <= set(during)


def test_the_loss_is_the_stock_loss_and_training_is_untouched(recipe, train, learned):
    stock = train(recipe(max_steps=40), TUNEBOOK_HOOK="0")
    assert "tunebook" not in stock.log
    assert not (stock.output / "tunebook").exists()
    for theirs, ours in zip(stock.logged("eval_loss"), learned.logged("eval_loss"), strict=False):
        assert math.isclose(theirs, ours, abs_tol=1e-5)
    trained = [e["loss"] for e in learned.state()["log_history"] if "loss" in e]
    assert trained[:8] == [e["loss"] for e in stock.state()["log_history"] if "loss" in e]


def test_on_random_labels_the_metric_says_so_where_token_accuracy_flatters(recipe, train):
    changes = {"dataset": "coin_train", "eval_dataset": "coin_eval", "max_steps": 40}
    stock = train(recipe(**changes, compute_accuracy=True), TUNEBOOK_HOOK="0")
    ours = train(recipe(**changes, compute_accuracy=True))
    flattering = max(stock.logged("eval_accuracy"))
    honest = ours.logged("eval_accuracy")
    print(f"\non coin flips: LLaMA-Factory's compute_accuracy {flattering:.3f}, answer accuracy {honest}")
    assert flattering > 0.8
    assert all(abs(value - 0.5) < 0.12 for value in honest)
    # The same number, under the name that says what it is.
    assert ours.logged("eval_token_accuracy") == pytest.approx(stock.logged("eval_accuracy"), abs=1e-6)


def test_classes_of_the_data_are_measured_and_choose_the_best(recipe, train):
    run = train(
        recipe(
            dataset="kinds_train", eval_dataset="kinds_eval,two_kinds", eval_on_each_dataset=True,
            metric_for_best_model="kinds_eval_macro_f1", load_best_model_at_end=True, max_steps=80,
        )
    )  # fmt: skip
    assert run.code == 0, run.log[-3000:]
    scores = run.logged("eval_kinds_eval_macro_f1")
    assert run.state()["best_metric"] == max(scores) > 0.8
    figures = next(
        line for line in run.evaluations() if line["step"] == 80 and line["dataset"] == "kinds_eval"
    )
    assert figures["metric"] == ['classification{"labels": ["food item", "place", "tool"]}']
    assert {"f1_food_item", "f1_place", "f1_tool", "majority_accuracy"} <= figures["values"].keys()
    # Trained on other labels, it says neither of these two; its probabilities still rank them.
    two = next(line for line in run.evaluations() if line["step"] == 80 and line["dataset"] == "two_kinds")
    assert two["values"]["unparsed_rate"] == 1.0
    assert two["values"]["f1"] == 0.0
    assert 0 <= two["values"]["auroc"] <= 1


def test_the_smallest_brier_score_is_the_best_by_both_doors(recipe, train, tmp_path):
    values = recipe(
        metric_for_best_model="brier", load_best_model_at_end=True, max_steps=12, eval_steps=4, save_steps=4
    )
    runs = [train(values)]
    file = tmp_path / "recipe.yaml"
    file.write_text(yaml.safe_dump({**values, "output_dir": str(tmp_path / "output")}))
    done = subprocess.run(
        [Path(sys.executable).parent / "tunebook", "train", file],
        env={**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    runs.append(Run(done.returncode, done.stdout, tmp_path / "output"))
    for run in runs:
        assert run.code == 0, run.log[-3000:]
        assert "brier: smaller is better; greater_is_better set to false" in run.log
        scores = {line["step"]: line["values"]["brier"] for line in run.evaluations() if line["in_training"]}
        assert run.state()["best_metric"] == min(scores.values()) < max(scores.values())
        assert run.state()["best_global_step"] == min(scores, key=scores.__getitem__)
