"""Our metrics inside the evaluation of the unmodified Axolotl."""

import csv
import json
import math

import pytest
import yaml
from axolotl_cases import LORA, logged, output_of, run_many, state_of
from engine_cases import Run, liking

pytestmark = pytest.mark.axolotl


@pytest.fixture(scope="session")
def runs(axolotl_recipe, axolotl_learned, registry, tiny, tmp_path_factory) -> dict[str, Run]:
    """Every variant that a test below reads, run in one process."""
    folder = tmp_path_factory.mktemp("many")
    edited = registry / "edited.json"
    info = json.loads((registry / "dataset_info.json").read_text())
    info["edited"] = {"file_name": "edited.json", "metric": "yes_no"}
    (registry / "dataset_info.json").write_text(json.dumps(info))
    edited.write_text(json.dumps(liking(20, 20)))
    (registry / "empty_answers.json").write_text(
        json.dumps([{"messages": [{"role": "user", "content": "Hello"}]}] * 8)
    )
    short = {"max_steps": 2}
    lora = axolotl_recipe("like_train", "like_odd", **LORA)
    edit = axolotl_recipe("like_train", "edited", **short)
    trained = axolotl_learned.output
    evaluated = axolotl_recipe("like_train", "like_eval", output_dir=str(trained))
    unlabelled = axolotl_recipe("like_train", "like_odd")
    values = yaml.safe_load(unlabelled.read_text())
    values["datasets"] = [{"path": str(registry / "empty_answers.json"), "type": "chat_template"}]
    unlabelled.write_text(yaml.safe_dump(values))
    ours = ("test_datasets", "plugins", "tunebook_dataset_dir", "tunebook_eval_datasets", "eval_steps")
    stock = axolotl_recipe("like_train", sample_packing=True, **dict.fromkeys(ours), **short)
    plans = {
        # First, since Axolotl patches torch's data loading for packing, for the rest of the process.
        "packed": {
            "verb": "train",
            "recipe": axolotl_recipe("like_train", "like_odd", sample_packing=True, **short),
        },
        "packed_stock": {"verb": "train", "recipe": stock},
        "lora": {"verb": "train", "recipe": lora},
        "generate": {"verb": "train", "recipe": axolotl_recipe("sums_train", "sums_eval", **short)},
        "several": {
            "verb": "train",
            "recipe": axolotl_recipe(
                "like_train",
                "like_odd",
                "sums_loss",
                metric_for_best_model="like_odd_macro_f1",
                load_best_model_at_end=True,
            ),
        },
        "smaller": {
            "verb": "train",
            "recipe": axolotl_recipe(
                "like_train",
                "like_odd",
                metric_for_best_model="perplexity",
                greater_is_better=False,
                early_stopping_patience=3,
                max_steps=6,
            ),
        },
        "wished": {
            "verb": "train",
            "recipe": axolotl_recipe(
                "like_train",
                "like_odd",
                metric_for_best_model="token_accuracy",
                greater_is_better=False,
                load_best_model_at_end=True,
                max_steps=6,
            ),
        },
        "before": {"verb": "train", "recipe": edit},
        "after": {
            "verb": "train",
            "recipe": edit,
            "options": {"output_dir": str(folder / "after")},
            "write": {str(edited): json.dumps(liking(10, 21))},
        },
        "dropped": {
            "verb": "train",
            "recipe": axolotl_recipe(
                "like_train",
                "edited",
                **short,
            ),
            "write": {
                str(edited): json.dumps(
                    [*liking(5, 22), {"instruction": "Is it liked? " * 200, "input": "", "output": "No"}]
                )
            },
        },
        "lost_plugin": {
            "verb": "train",
            "recipe": axolotl_recipe(
                "like_train", "like_odd", plugins=["no_such.Plugin", "tunebook.hooks.axolotl.TunebookPlugin"]
            ),
        },
        "interlocked": {
            "verb": "train",
            "recipe": axolotl_recipe("like_train", "like_odd", eval_steps=None, train_on_inputs=True),
        },
        "unlabelled": {"verb": "train", "recipe": unlabelled},
        "bare_base": {"verb": "evaluate", "recipe": evaluated},
        "base_on_purpose": {
            "verb": "evaluate",
            "recipe": evaluated,
            "options": {"output_dir": str(folder / "base")},
        },
        "after_training": {"verb": "evaluate", "recipe": evaluated, "options": {"base_model": str(trained)}},
        "fresh_adapter": {"verb": "evaluate", "recipe": lora},
        "adapter": {
            "verb": "evaluate",
            "recipe": lora,
            "options": {"lora_model_dir": str(output_of(lora) / "checkpoint-2")},
        },
    }
    return dict(zip(plans, run_many(folder, list(plans.values())), strict=True))


def test_metrics_reach_the_terminal_the_history_and_the_model_card(axolotl_learned):
    assert "like_eval: macro_f1" in axolotl_learned.log
    assert "'eval_macro_f1':" in axolotl_learned.log
    assert list(logged(axolotl_learned, 80, "eval_macro_f1")) == [0, 20, 40, 60, 80]
    assert "Macro F1" in (axolotl_learned.output / "README.md").read_text()


def test_the_best_checkpoint_is_the_one_with_the_best_metric(axolotl_learned):
    by_step = logged(axolotl_learned, 80, "eval_macro_f1")
    state = state_of(axolotl_learned, 80)
    assert max(by_step.values()) > 0.9, by_step
    assert state["best_metric"] == max(by_step.values())
    best = axolotl_learned.output / f"checkpoint-{state['best_global_step']}"
    assert by_step[state["best_global_step"]] == state["best_metric"]
    assert (best / "model.safetensors").read_bytes() == (
        axolotl_learned.output / "model.safetensors"
    ).read_bytes()


def test_every_row_leaves_one_record_in_the_order_of_the_file(axolotl_learned, registry):
    records = axolotl_learned.records("like_eval", 40)
    rows = json.loads((registry / "like_eval.json").read_text())
    assert [record["index"] for record in records] == list(range(101))
    assert [record["reference"] for record in records] == [row["output"] for row in rows]
    assert all(row["instruction"] in record["prompt"] for row, record in zip(rows, records, strict=True))


@pytest.mark.parametrize(
    ("name", "rows"), [("lora", 41), ("generate", 48), ("packed", 41), ("before", 20), ("after", 10)]
)
def test_a_variant_scores_every_row_once(runs, name, rows):
    run = runs[name]
    assert run.code == 0, run.log[-4000:]
    assert [line["n"] for line in run.evaluations()] == [rows] * len(run.evaluations())
    assert math.isfinite(run.evaluations()[-1]["values"]["loss"])


def test_lora_saves_an_adapter_and_reports(runs):
    assert (runs["lora"].output / "adapter_model.safetensors").is_file()
    assert set(logged(runs["lora"], 4, "eval_accuracy")) == {0, 2, 4}


def test_gsm8k_is_generated(runs):
    line = runs["generate"].evaluations()[-1]
    assert line["mode"] == "generate"
    assert line["metric"] == ["gsm8k"]
    assert set(logged(runs["generate"], 2, f"eval_{line['select_by']}")) == {0, 2}


def test_several_sets_have_their_own_metrics_and_one_of_them_chooses(runs):
    run = runs["several"]
    assert run.code == 0, run.log[-4000:]
    state = state_of(run, 4)
    names = {name for row in state["log_history"] for name in row}
    assert {"eval_like_odd_macro_f1", "eval_like_odd_loss", "eval_sums_loss_perplexity"} <= names
    assert "eval_sums_loss_macro_f1" not in names
    assert state["best_metric"] == max(logged(run, 4, "eval_like_odd_macro_f1").values())


def test_a_metric_where_smaller_is_better_keeps_the_smallest(runs):
    run = runs["smaller"]
    assert run.code == 0, run.log[-4000:]
    by_step = {step: value for step, value in logged(run, 6, "eval_perplexity").items() if step}
    assert state_of(run, 6)["best_metric"] == min(by_step.values())
    assert by_step[6] < by_step[2], "the test says nothing unless the perplexity falls"
    assert "early stopping required metric_for_best_model" not in run.log


def test_the_recipe_s_own_word_on_what_is_better_holds(runs):
    # As for a user's metric, of which we cannot know; Axolotl drops `greater_is_better: false`.
    run = runs["wished"]
    assert run.code == 0, run.log[-4000:]
    by_step = {step: value for step, value in logged(run, 6, "eval_token_accuracy").items() if step}
    assert state_of(run, 6)["best_metric"] == min(by_step.values()) < max(by_step.values())


def test_rows_that_axolotl_drops_are_reported(runs):
    run = runs["dropped"]
    assert "edited: 5 of 6 rows are evaluated: Axolotl drops rows above sequence_len = 256" in run.log
    assert run.evaluations()[-1]["n"] == 5


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("lost_plugin", "no_such.Plugin: cannot be imported, and Axolotl would go on without it"),
        ("unlabelled", "none of the first 8 training rows has a label"),
        ("fresh_adapter", "--lora-model-dir"),
        ("bare_base", "--base-model"),
    ],
)
def test_what_axolotl_would_pass_over_stops_the_run(runs, name, said):
    assert runs[name].code == 2, runs[name].log[-4000:]
    assert said in runs[name].log


def test_the_option_model_names_every_key_to_change(runs):
    assert runs["interlocked"].code == 1
    assert "set `eval_steps`" in runs["interlocked"].log
    assert "set `train_on_inputs: false`" in runs["interlocked"].log


def test_evaluation_rows_are_not_packed_and_training_rows_stay_as_they_are(runs):
    packed, stock = runs["packed"], runs["packed_stock"]
    assert packed.code == stock.code == 0, packed.log[-3000:]
    assert packed.evaluations()[0]["n"] == 41
    losses = [
        [entry["loss"] for entry in state_of(run, 2)["log_history"] if "loss" in entry]
        for run in (packed, stock)
    ]
    assert losses[0] == losses[1] != []


def test_evaluating_the_trained_model_gives_the_number_of_the_training(runs, axolotl_learned):
    run = runs["after_training"]
    assert run.code == 0, run.log[-4000:]
    last, best = run.evaluations()[-1], state_of(axolotl_learned, 80)["best_global_step"]
    inside = next(line for line in run.evaluations() if line["step"] == best and line["in_training"])
    assert (last["step"], last["in_training"], last["n"]) == (best, False, 101)
    assert last["values"] == pytest.approx(inside["values"], rel=1e-6)


def test_axolotl_evaluate_reports_only_the_evaluation_set(runs):
    rows = list(csv.DictReader((runs["after_training"].output / "eval_summary.csv").open()))
    figures = {row["metric"]: row["validation"] for row in rows}
    assert float(figures["macro_f1"]) > 0.9
    assert {row["training"] for row in rows} == {""}


def test_the_base_model_can_be_scored_into_a_folder_of_its_own(runs):
    run = runs["base_on_purpose"]
    assert run.code == 0, run.log[-4000:]
    assert [(line["step"], line["in_training"]) for line in run.evaluations()] == [(0, False)]


def test_a_trained_adapter_is_scored_at_its_own_step(runs):
    line = runs["adapter"].evaluations()[-1]
    inside = next(one for one in runs["lora"].evaluations() if one["step"] == 2 and one["in_training"])
    assert (line["step"], line["in_training"]) == (2, False)
    assert line["values"] == pytest.approx(inside["values"], rel=1e-6)


@pytest.fixture(scope="session")
def two_ranks(axolotl_recipe, runs, tmp_path_factory) -> Run:
    recipe = axolotl_recipe("like_train", "like_odd", "sums_eval", max_steps=2)
    return run_many(tmp_path_factory.mktemp("ranks"), [{"verb": "train", "recipe": recipe}], ranks=2)[0]


@pytest.mark.parametrize(("dataset", "alone"), [("like_odd", "several"), ("sums_eval", "generate")])
def test_two_processes_report_what_one_does(two_ranks, runs, dataset, alone):
    assert two_ranks.code == 0, two_ranks.log[-4000:]
    first = [
        next(line for line in run.evaluations() if line["dataset"] == dataset)
        for run in (two_ranks, runs[alone])
    ]
    counted = [
        {name: line[name] for name in ("step", "n", "n_unparsed", "unparsed_reasons", "mode", "tokens")}
        for line in first
    ]
    assert counted[0] == counted[1]
    seconds = {"generation_seconds"}
    figures = [
        {name: value for name, value in line["values"].items() if name not in seconds} for line in first
    ]
    assert figures[0] == pytest.approx(figures[1], rel=1e-6)
    records = [
        [(record["index"], record["prediction"], record["reference"]) for record in run.records(dataset, 0)]
        for run in (two_ranks, runs[alone])
    ]
    assert records[0] == records[1]
