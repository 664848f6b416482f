"""The settings users combine with our metrics: what works, and what is refused with the key to change."""

import json

import pytest

pytestmark = pytest.mark.engine


@pytest.fixture(scope="module")
def refused(recipe, train_many):
    """Recipes that cannot be measured, run in one process."""
    faults = {
        "packing": {"packing": True, "tokenized_path": "kept"},
        "train_on_prompt": {"train_on_prompt": True},
        "metric": {"eval_dataset": "unknown_metric"},
        "reference": {"eval_dataset": "maybe_eval"},
        "best": {"metric_for_best_model": "macrof1", "load_best_model_at_end": True},
        "cuts": {"metric_for_best_model": "generation_cut_rate", "load_best_model_at_end": True},
        "merged": {"eval_dataset": "like_eval,sums_eval"},
        "mode": {"eval_dataset": "reason_answer"},
    }
    base = recipe(max_steps=2, eval_steps=2, save_steps=2)
    runs = train_many([{**base, **changes} for changes in faults.values()])
    return dict(zip(faults, runs, strict=True))


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        ("packing", "tokenized_path: rows kept in kept are packed"),
        ("train_on_prompt", "set `train_on_prompt: false`"),
        ("metric", "yes_or_no"),
        ("reference", "maybe_eval, row 0: yes_no cannot use the reference 'Perhaps'"),
        ("best", "metric_for_best_model is 'macrof1', which no evaluation will report"),
        ("cuts", "metric_for_best_model is 'generation_cut_rate', and no answer is generated"),
        ("merged", "set `eval_on_each_dataset: true`"),
        ("mode", 'reason_answer: yes_no has "mode": "answer", but the supervised text does not begin'),
    ],
)
def test_what_cannot_be_measured_stops_the_run_with_the_key_to_change(refused, fault, told):
    run = refused[fault]
    assert run.code == 2
    assert told in run.log
    assert "\nfix: " in run.log
    assert "Traceback" not in run.log


FROM_THE_START = {"eval_on_start": True, "cutoff_len": 255}
PACKS = {"packing": True, "cutoff_len": 256}  # LLaMA-Factory takes one token of it away


@pytest.fixture(scope="module")
def variants(recipe, train_many):
    """Runs that work, in one process: nothing here changes the process group or the precision."""
    short = {"max_steps": 8, "eval_steps": 4, "save_steps": 4}
    changes = {
        "lora": {
            "finetuning_type": "lora",
            "lora_rank": 4,
            "eval_dataset": "like_eval,like_odd",
            "eval_on_each_dataset": True,
            "metric_for_best_model": "like_odd_macro_f1",
            "load_best_model_at_end": True,
        },
        "checkpointing_off": {"disable_gradient_checkpointing": True},
        "checkpointing_on": {"disable_gradient_checkpointing": False},
        "cut": {"cutoff_len": 40, "eval_dataset": "like_odd"},
        "split": {"dataset": "like_odd", "eval_dataset": None, "val_size": 0.5},
        "perplexity": {
            "dataset": "sums_train",
            "eval_dataset": "sums_loss",
            "metric_for_best_model": "perplexity",
            "load_best_model_at_end": True,
        },
        "thinking": {
            "enable_thinking": True,
            "metric_for_best_model": "generation_cut_rate",
            "load_best_model_at_end": True,
        },
        "batch_1": {"per_device_eval_batch_size": 1},
        "plain": FROM_THE_START,
        "packed": {**FROM_THE_START, **PACKS},
        "neat": {**FROM_THE_START, **PACKS, "neat_packing": True},
        "stock_packed": {**PACKS, "eval_strategy": "no", "eval_dataset": None},
        "streamed": {**FROM_THE_START, "streaming": True, "dataloader_num_workers": 1},
    }
    base = recipe(**short)
    recipes = [{k: v for k, v in {**base, **change}.items() if v is not None} for change in changes.values()]
    return dict(zip(changes, train_many(recipes), strict=True))


@pytest.mark.parametrize("name", ["packed", "neat", "streamed"])
def test_evaluation_rows_stay_apart_where_training_rows_are_packed_or_streamed(variants, name):
    run, plain = variants[name], variants["plain"]
    assert run.code == 0, run.log[-2000:]
    first, same = run.evaluations()[0], plain.evaluations()[0]
    assert (first["step"], first["n"]) == (0, 101)
    assert {key: first[key] for key in first if key.startswith(("loss", "macro", "auroc", "brier"))} == {
        key: same[key] for key in first if key.startswith(("loss", "macro", "auroc", "brier"))
    }
    if name == "streamed":
        assert "like_eval: 101 rows of the stream are evaluated" in run.log


def test_packed_training_rows_stay_as_they_are(variants):
    packed, stock = variants["packed"], variants["stock_packed"]
    assert packed.logged("loss") == stock.logged("loss") != variants["plain"].logged("loss")


def test_several_sets_under_lora_each_get_their_own_figures(variants):
    run = variants["lora"]
    assert run.code == 0, run.log[-2000:]
    assert len(run.logged("eval_like_eval_macro_f1")) == 2
    assert len(run.logged("eval_like_odd_loss")) == 2
    assert {line["dataset"]: line["n"] for line in run.evaluations()} == {"like_eval": 101, "like_odd": 41}
    assert run.state()["best_metric"] == max(run.logged("eval_like_odd_macro_f1"))


def test_gradient_checkpointing_does_not_change_a_figure(variants):
    on, off = variants["checkpointing_on"], variants["checkpointing_off"]
    assert on.logged("eval_loss") == pytest.approx(off.logged("eval_loss"), abs=1e-6)
    assert on.logged("eval_auroc") == off.logged("eval_auroc")


def test_padding_does_not_change_an_answer(variants):
    one, many = variants["batch_1"], variants["checkpointing_on"]
    for step in (4, 8):
        pairs = zip(one.records("like_eval", step), many.records("like_eval", step), strict=True)
        for alone, together in pairs:
            assert alone["prediction"] == together["prediction"]
            assert alone["nll"] == pytest.approx(together["nll"], abs=2e-5)
            assert alone["margin"] == pytest.approx(together["margin"], abs=2e-5)


def test_rows_cut_at_the_length_limit_are_counted_and_named(variants):
    run = variants["cut"]
    cut = run.evaluations()[0]["answers_cut"]
    assert cut > 0
    assert (
        f"{cut} of 41 rows lost part of the answer or of the assistant header at cutoff_len = 40" in run.log
    )
    assert run.logged("eval_answers_cut") == [cut, cut]


def test_a_share_of_the_training_set_is_measured_by_its_own_metric(variants):
    run = variants["split"]
    assert run.code == 0, run.log[-2000:]
    assert run.evaluations()[0]["n"] in (20, 21)
    assert len(run.logged("eval_macro_f1")) == 2


def test_smaller_is_better_for_perplexity(variants):
    run = variants["perplexity"]
    assert run.code == 0, run.log[-2000:]
    assert "perplexity: smaller is better" in run.log
    assert run.state()["best_metric"] == min(run.logged("eval_perplexity"))


@pytest.mark.parametrize("command", ["llamafactory-cli", "tunebook"])
def test_the_smallest_brier_score_is_kept_by_both_commands(recipe, train, command):
    best = {"metric_for_best_model": "brier", "load_best_model_at_end": True}
    run = train(recipe(**best, max_steps=8, eval_steps=4, save_steps=4), command=command)
    assert run.code == 0, run.log[-2000:]
    assert "brier: smaller is better; greater_is_better set to false" in run.log
    assert run.state()["best_metric"] == min(run.logged("eval_brier")) < max(run.logged("eval_brier"))


def test_a_think_block_in_the_labels_makes_the_metric_generate(variants):
    run = variants["thinking"]
    assert run.code == 0, run.log[-2000:]
    assert "yes_no generates its answers" in run.log
    assert {line["mode"] for line in run.evaluations()} == {"generate"}
    assert run.state()["best_metric"] == min(run.logged("eval_generation_cut_rate"))


def test_without_a_metric_in_the_registry_the_engine_is_left_alone(recipe, train, registry, tmp_path):
    info = json.loads((registry / "dataset_info.json").read_text())
    for name, entry in info.items():
        entry.pop("metric", None)
        entry["file_name"] = str(registry / f"{name}.json")
    (tmp_path / "dataset_info.json").write_text(json.dumps(info))
    run = train(recipe(dataset_dir=str(tmp_path), max_steps=2, eval_steps=2))
    assert run.code == 0
    assert "tunebook" not in run.log
    # What `tunebook status` reads is all that is written.
    assert [path.name for path in (run.output / "tunebook").iterdir()] == ["engine.json"]


def test_another_environments_torchrun_is_not_used(recipe, train, tmp_path):
    foreign = tmp_path / "torchrun"
    foreign.write_text("#!/bin/sh\necho foreign torchrun\nexit 9\n")
    foreign.chmod(0o755)
    run = train(
        recipe(max_steps=1, eval_steps=1),
        FORCE_TORCHRUN="1",
        NPROC_PER_NODE="1",
        PATH=f"{tmp_path}:/usr/bin:/bin",
    )
    assert run.code == 0, run.log[-2000:]
    assert f"not {foreign} from PATH" in run.log


def test_brain_floats_measure_the_same_rows(recipe, train):
    run = train(recipe(max_steps=2, eval_steps=2, bf16=True, use_cpu=True))
    assert run.code == 0, run.log[-2000:]
    assert run.evaluations()[0]["n"] == 101


def test_a_future_engine_without_our_seam_is_named():
    from types import ModuleType

    from tunebook.hooks.llamafactory import bind

    with pytest.raises(AttributeError, match="has no run_sft and no CustomSeq2SeqTrainer"):
        bind(ModuleType("llamafactory.train.sft.workflow"))
