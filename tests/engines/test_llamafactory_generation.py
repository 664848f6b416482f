"""Metrics that generate, inside the engine's evaluation."""

import json

import pytest

from tunebook.metrics import bleu, chrf

pytestmark = pytest.mark.engine

SHORT = {"dataset": "sums_train", "max_steps": 40, "eval_steps": 20, "save_steps": 20, "seed": 3}


@pytest.fixture(scope="module")
def runs(recipe, train_many):
    """With generation at evaluations and without, otherwise the same; full and LoRA."""
    base = recipe(**SHORT)
    lora = {"finetuning_type": "lora", "lora_rank": 4, "lora_dropout": 0.1}
    changes = {
        "generated": {"eval_dataset": "sums_eval"},
        "loss_only": {"eval_dataset": "sums_loss"},
        "lora_generated": {"eval_dataset": "sums_eval", **lora},
        "lora_loss_only": {"eval_dataset": "sums_loss", **lora},
        "subset": {"eval_dataset": "sums_subset"},
        "all": {"eval_dataset": "sums_all"},
    }
    return dict(zip(changes, train_many([{**base, **change} for change in changes.values()]), strict=True))


@pytest.mark.parametrize("kind", ["", "lora_"])
def test_generation_leaves_training_as_it_was(runs, kind):
    with_, without = runs[f"{kind}generated"], runs[f"{kind}loss_only"]
    assert with_.code == 0, with_.log[-2000:]
    losses = [[e["loss"] for e in run.state()["log_history"] if "loss" in e] for run in (with_, without)]
    assert losses[0] == losses[1]
    assert with_.logged("eval_loss") == without.logged("eval_loss")


def test_a_generated_metric_counts_every_row_once_and_says_what_it_cost(runs):
    line = runs["generated"].evaluations()[0]
    assert line["mode"] == "generate"
    assert line["n"] == 48
    assert line["values"]["generation_seconds"] > 0
    assert 0 <= line["values"]["generation_cut_rate"] <= 1


def test_after_training_the_same_checkpoint_gives_the_same_figures(runs, recipe, train_many):
    trained = runs["all"]
    during = next(line for line in trained.evaluations() if line["step"] == 40)
    values = recipe(
        model_name_or_path=str(trained.output / "checkpoint-40"),
        eval_dataset="sums_all",
        do_eval=True,
        **dict.fromkeys(["do_train", "dataset", "max_steps", "eval_steps", "eval_strategy", "save_steps"]),
    )
    after = train_many([values])[0].evaluations()[0]
    timing = {"generation_seconds"}
    assert set(during["values"]) == set(after["values"])
    for name in set(during["values"]) - timing:
        assert after["values"][name] == pytest.approx(during["values"][name], abs=1e-9), name
    assert {"exact_match", "strict_match", "rougeL", "bleu", "chrf"} <= set(after["values"])
    assert during["signatures"] == {"bleu": bleu.signature(), "chrf": chrf.signature()}


def test_a_subset_is_the_same_rows_at_every_evaluation(runs):
    run = runs["subset"]
    chosen = [[record["index"] for record in run.records("sums_subset", step)] for step in (20, 40)]
    assert chosen[0] == chosen[1]
    assert len(chosen[0]) == 10
    # A promise: figures of different runs are of the same rows.
    assert chosen[0] == sorted(chosen[0])
    assert run.evaluations()[0]["n"] == 10


@pytest.fixture(scope="module")
def offline(tmp_path_factory):
    """The folder that W&B keeps its offline runs in."""
    return tmp_path_factory.mktemp("wandb")


@pytest.fixture(scope="module")
def gsm8k(recipe, train, offline):
    """A training whose generated answers come right, reported to both trackers."""
    run = train(
        recipe(
            dataset="sums_train",
            eval_dataset="sums_bleu",
            max_steps=240,
            eval_steps=80,
            save_steps=80,
            per_device_train_batch_size=16,
            metric_for_best_model="exact_match",
            load_best_model_at_end=True,
            report_to=["wandb", "tensorboard"],
        ),
        WANDB_MODE="offline",
        WANDB_DIR=str(offline),
    )
    assert run.code == 0, run.log[-3000:]
    return run


def test_gsm8k_rises_and_chooses_the_best_model(gsm8k):
    scores = gsm8k.logged("eval_exact_match")
    print("\nexact_match by evaluation:", scores)
    assert max(scores) > 0.6
    assert gsm8k.state()["best_metric"] == max(scores)
    results = json.loads((gsm8k.output / "eval_results.json").read_text())
    assert results["eval_exact_match"] == max(scores)


def test_figures_and_examples_reach_the_trackers(gsm8k, offline):
    tables = sorted(offline.glob("wandb/offline-run-*/files/media/table/**/*.table.json"))
    assert len(tables) == 4  # three evaluations in training, one of the best model
    table = json.loads(tables[0].read_text())
    assert table["columns"] == ["row", "prompt", "reference", "prediction", "parsed", "score", "reason"]
    assert len(table["data"]) == 20
    stream = next(offline.glob("wandb/offline-run-*/*.wandb")).read_bytes()
    assert b"eval/exact_match" in stream
    assert b"eval/bleu_signature" in stream
    assert bleu.signature().encode() in stream
    events = b"".join(path.read_bytes() for path in gsm8k.output.glob("runs/*/events*"))
    assert b"eval/sums_bleu/examples" in events
    assert b"eval/exact_match" in events
