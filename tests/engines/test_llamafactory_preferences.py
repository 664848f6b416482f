"""A `"metric"` on a set of preferences: answers are scored beside LLaMA-Factory's own figures."""

import json

import pytest
from engine_cases import LIKED, NOUNS, liking

pytestmark = pytest.mark.engine

OTHER = {"Yes": "No", "No": "Yes"}
STEP = {"max_steps": 4, "eval_steps": 2, "save_steps": 2, "learning_rate": 1.0e-5}


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    """A dataset_dir with pairs, marked answers and plain text, each measured by a metric."""
    folder = tmp_path_factory.mktemp("pairs")

    def pair(row):
        return {"instruction": row["instruction"], "chosen": row["output"], "rejected": OTHER[row["output"]]}

    def marked(number, row):
        good = number % 3 != 0
        answer = row["output"] if good else OTHER[row["output"]]
        return {"instruction": row["instruction"], "input": "", "output": answer, "kto_tag": good}

    rows, seen = liking(48, 21), liking(41, 22)
    ranked = {
        "ranking": True,
        "columns": {"prompt": "instruction", "chosen": "chosen", "rejected": "rejected"},
    }
    tagged = {
        "columns": {"prompt": "instruction", "query": "input", "response": "output", "kto_tag": "kto_tag"}
    }
    dropped = [*map(pair, seen[:9]), {"instruction": "Is it liked?", "chosen": "Yes", "rejected": None}]
    sets = {
        "pairs": (list(map(pair, rows)), ranked),
        "pairs_eval": (list(map(pair, seen)), {**ranked, "metric": ["yes_no", "exact_match"]}),
        "pairs_few": (dropped, {**ranked, "metric": "yes_no"}),
        "pairs_long": (
            [
                {**pair(row), **({"rejected": "No " * 400} if number == 5 else {})}
                for number, row in enumerate(seen)
            ],
            {**ranked, "metric": "yes_no"},
        ),
        "marked": ([marked(*one) for one in enumerate(rows)], tagged),
        "marked_eval": ([marked(*one) for one in enumerate(seen)], {**tagged, "metric": "yes_no"}),
        "marked_bad": (
            [marked(0, row) for row in seen[:8]],
            {**tagged, "metric": "yes_no"},
        ),
        "text": ([{"text": row["instruction"]} for row in rows], {"columns": {"prompt": "text"}}),
        "text_eval": (
            [{"text": row["instruction"]} for row in seen],
            {"columns": {"prompt": "text"}, "metric": "yes_no"},
        ),
    }
    info = {}
    for name, (values, entry) in sets.items():
        (folder / f"{name}.json").write_text(json.dumps(values))
        info[name] = {"file_name": f"{name}.json", **entry}
    (folder / "dataset_info.json").write_text(json.dumps(info))
    return folder


@pytest.fixture(scope="module")
def thinker(recipe, train):
    """A model that has learned to answer behind the empty think block of the default template."""
    run = train(recipe(enable_thinking=None, max_steps=80, eval_strategy="no", eval_dataset=None))
    assert run.code == 0, run.log[-3000:]
    return run.output


@pytest.fixture(scope="module")
def recipes(recipe, pairs, thinker):
    base = recipe(model_name_or_path=str(thinker), dataset_dir=str(pairs), enable_thinking=None, **STEP)
    dpo = {**base, "stage": "dpo", "dataset": "pairs", "eval_dataset": "pairs_eval"}
    kto = {**base, "stage": "kto", "dataset": "marked", "eval_dataset": "marked_eval"}
    best = {"load_best_model_at_end": True}
    return {
        "dpo": {**dpo, **best, "metric_for_best_model": "accuracy"},
        "margins": {**dpo, **best, "metric_for_best_model": "rewards/margins", "finetuning_type": "lora"},
        "orpo": {**dpo, **best, "metric_for_best_model": "perplexity", "pref_loss": "orpo"},
        "kto": {**kto, **best, "metric_for_best_model": "rewards/margins"},
        "few": {**dpo, "eval_dataset": "pairs_few"},
        "long": {**dpo, "eval_dataset": "pairs_long", "cutoff_len": 72},
        "each": {
            **dpo,
            **best,
            "eval_dataset": "pairs_eval,pairs",
            "eval_on_each_dataset": True,
            "metric_for_best_model": "pairs_eval_accuracy",
        },
        "rm": {
            **base,
            "finetuning_type": "lora",
            "stage": "rm",
            "dataset": "pairs",
            "eval_dataset": "pairs_eval",
        },
        "pt": {**base, "stage": "pt", "dataset": "text", "eval_dataset": "text_eval", "packing": False},
        "bad": {**kto, "eval_dataset": "marked_bad"},
        "typo": {**dpo, **best, "metric_for_best_model": "rewards/accuracy"},
        "kto_typo": {**kto, **best, "metric_for_best_model": "rewards/accuracies"},
    }


@pytest.fixture(scope="module")
def runs(recipes, train_many):
    return dict(zip(recipes, train_many(list(recipes.values())), strict=True))


@pytest.fixture(scope="module")
def stock(recipes, train_many):
    names = ("dpo", "kto", "rm")
    plain = [
        {
            k: v
            for k, v in recipes[name].items()
            if k not in ("metric_for_best_model", "load_best_model_at_end")
        }
        for name in names
    ]
    return dict(zip(names, train_many(plain, TUNEBOOK_HOOK="0"), strict=True))


@pytest.mark.parametrize(("name", "dataset", "n"), [("dpo", "pairs_eval", 41), ("kto", "marked_eval", 27)])
def test_answers_are_generated_and_scored_against_the_chosen_ones(runs, name, dataset, n):
    run = runs[name]
    assert run.code == 0, run.log[-3000:]
    for line in run.evaluations():
        assert (line["n"], line["mode"]) == (n, "generate")
        records = run.records(dataset, line["step"])
        right = [record["scores"]["yes_no"]["values"]["accuracy"] for record in records]
        assert line["values"]["accuracy"] == pytest.approx(sum(right) / n)
        assert sum(right) / n > 0.9, records[:3]
        for record in records:
            noun = next(noun for noun in NOUNS if f" saw a {noun} " in record["prompt"])
            assert record["reference"].endswith("Yes" if noun in LIKED else "No")


def test_identical_answers_are_right_behind_the_default_think_block(runs):
    records = runs["dpo"].records("pairs_eval", 4)
    same = [record for record in records if record["prediction"] == record["reference"]]
    assert len(same) > 35
    assert all(record["prediction"].startswith("<think>") for record in same)
    for record in same:
        assert record["scores"]["exact_match"]["values"]["exact_match"] == 1.0
        assert record["scores"]["yes_no"]["values"]["accuracy"] == 1.0


@pytest.mark.parametrize(
    ("name", "figure"),
    [("dpo", "eval_rewards/accuracies"), ("kto", "eval_rewards/margins"), ("rm", "eval_accuracy")],
)
def test_the_engines_own_figures_and_training_are_untouched(runs, stock, name, figure):
    assert stock[name].code == 0, stock[name].log[-3000:]
    assert "tunebook" not in stock[name].log
    ours, theirs = (run.state()["log_history"] for run in (runs[name], stock[name]))
    assert sum(figure in entry for entry in theirs) == 2
    timed = ("runtime", "per_second")
    for own, entry in zip(ours, theirs, strict=False):
        expected = {key: value for key, value in entry.items() if not key.endswith(timed)}
        assert {key: own.get(key) for key in expected} == expected


@pytest.mark.parametrize(
    ("name", "figure", "best"),
    [
        ("dpo", "accuracy", max),
        ("each", "pairs_eval_accuracy", max),
        ("margins", "rewards/margins", max),
        ("kto", "rewards/margins", max),
        ("orpo", "perplexity", min),
    ],
)
def test_the_best_model_is_chosen_by_either_kind_of_figure(runs, name, figure, best):
    run = runs[name]
    assert run.code == 0, run.log[-3000:]
    values = run.logged(f"eval_{figure}")
    assert len(values) == 2
    assert run.state()["best_metric"] == best(values)


def test_the_log_says_what_is_measured_and_on_how_many_rows(runs):
    assert "pairs_eval: answers are scored against the chosen ones" in runs["dpo"].log
    assert "measures pairs_eval: yes_no, exact_match\n" in runs["each"].log
    assert {line["dataset"] for line in runs["each"].evaluations()} == {"pairs_eval"}
    assert "27 of 41 rows, since the others are marked as bad answers" in runs["kto"].log
    assert "pairs_long: 1 of 41 rows lost part of the answer or of the assistant header" in runs["long"].log
    assert "(rows 5)" in runs["long"].log
    assert "pairs_few: 9 of 10 rows are evaluated: LLaMA-Factory drops" in runs["few"].log


@pytest.mark.parametrize(("name", "why"), [("rm", "no language head"), ("pt", "plain text")])
def test_a_stage_without_answers_says_so_in_one_line(runs, name, why):
    run = runs[name]
    assert run.code == 0, run.log[-3000:]
    told = [line for line in run.log.splitlines() if "[tunebook]" in line and "leaves out" in line]
    assert len(told) == 1
    assert why in told[0]
    assert not (run.output / "tunebook" / "eval_metrics.jsonl").exists()


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("bad", "none of its 8 rows is marked as a good answer"),
        ("typo", "metric_for_best_model is 'rewards/accuracy', which no evaluation will report"),
        ("kto_typo", "metric_for_best_model is 'rewards/accuracies', which no evaluation will report"),
    ],
)
def test_what_cannot_be_measured_stops_the_run(runs, name, told):
    run = runs[name]
    assert (run.code, told in run.log, "Traceback" in run.log) == (2, True, False), run.log[-3000:]
