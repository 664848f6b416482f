"""A `"metric"` on a set of preferences under Axolotl: answers are scored beside TRL's own figures."""

import json

import pytest
from axolotl_cases import LORA, logged, output_of, run_many
from engine_cases import LIKED, NOUNS, liking

pytestmark = pytest.mark.axolotl

OTHER = {"Yes": "No", "No": "Yes"}
ASKED = "<|im_start|>user\n{prompt}<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
SETS = {"pairs_eval": 41, "marked_eval": 27}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A registry of pairs and of marked answers, and the blocks that read them."""
    found = tmp_path_factory.mktemp("pairs")
    info = {}
    for name, rows in (("train", liking(48, 21)), ("eval", liking(41, 22))):
        asked = [{"prompt": ASKED.format(prompt=row["instruction"])} for row in rows]
        answers = [row["output"] for row in rows]
        pairs = [
            {**row, "chosen": one, "rejected": OTHER[one]} for row, one in zip(asked, answers, strict=True)
        ]
        marked = [
            {**row, "completion": one if number % 3 else OTHER[one], "label": number % 3 != 0}
            for number, (row, one) in enumerate(zip(asked, answers, strict=True))
        ]
        for kind, values in (("pairs", pairs), ("marked", marked)):
            (found / f"{kind}_{name}.json").write_text(json.dumps(values))
            info[f"{kind}_{name}"] = {"file_name": f"{kind}_{name}.json", "metric": "yes_no"}
    (found / "dataset_info.json").write_text(json.dumps(info))
    return found


@pytest.fixture(scope="module")
def runs(axolotl_recipe, folder):
    """A model that has learned the task, then one training of each kind on preferences."""
    plain = {"plugins": None, "tunebook_dataset_dir": None, "tunebook_eval_datasets": None}
    base = axolotl_recipe(
        "like_train",
        max_steps=80,
        eval_steps=None,
        save_steps=80,
        test_datasets=None,
        val_set_size=0,
        **plain,
    )

    def recipe(kind, rl, **changes):
        block = {"split": "train", "ds_type": "json"}  # without a type: the columns are TRL's own
        values = {
            "base_model": str(output_of(base)),
            "chat_template_kwargs": None,
            "datasets": [{"path": str(folder / f"{kind}_train.json"), **block}],
            "test_datasets": [{"path": str(folder / f"{kind}_eval.json"), **block}],
            "tunebook_dataset_dir": str(folder),
            "tunebook_eval_datasets": [f"{kind}_eval"],
            "rl": rl,
            "rl_beta": 0.1,
            "learning_rate": 1.0e-5,
            "remove_unused_columns": False,
            "load_best_model_at_end": True,
            "metric_for_best_model": "accuracy",
            **changes,
        }
        return axolotl_recipe("like_train", **values)

    recipes = {
        "base": base,
        "dpo": recipe("pairs", "dpo"),
        "stock": recipe("pairs", "dpo", metric_for_best_model=None, load_best_model_at_end=None, **plain),
        "lora": recipe("pairs", "ipo", metric_for_best_model="rewards/margins", **LORA),
        "kto": recipe("marked", "kto", metric_for_best_model="rewards/margins"),
        "orpo": recipe("pairs", "orpo", metric_for_best_model="nll_loss"),
        "simpo": recipe("pairs", "simpo", metric_for_best_model="perplexity", simpo_gamma=0.5),
        "short": recipe(
            "pairs", "dpo", sequence_len=56, metric_for_best_model=None, load_best_model_at_end=None
        ),
        "stops": recipe("pairs", "dpo", early_stopping_patience=1, max_steps=20),
        "typo": recipe("pairs", "dpo", metric_for_best_model="rewards/accuracy"),
    }
    done = run_many(folder, [{"verb": "train", "recipe": path} for path in recipes.values()])
    return dict(zip(recipes, done, strict=True))


@pytest.mark.parametrize("name", ["dpo", "lora", "kto", "orpo", "simpo"])
def test_answers_are_generated_and_scored_against_the_chosen_ones(runs, name):
    run = runs[name]
    assert run.code == 0, run.log[-3000:]
    dataset = "marked_eval" if name == "kto" else "pairs_eval"
    assert [line["step"] for line in run.evaluations()][:3] == [0, 2, 4]
    for line in run.evaluations():
        assert (line["n"], line["mode"]) == (SETS[dataset], "generate")
        records = run.records(dataset, line["step"])
        right = [record["scores"]["yes_no"]["values"]["accuracy"] for record in records]
        assert line["values"]["accuracy"] == pytest.approx(sum(right) / len(right))
        assert sum(right) / len(right) > 0.9, records[:3]
        for record in records:
            noun = next(noun for noun in NOUNS if f" saw a {noun} " in record["prompt"])
            assert record["reference"] == ("Yes" if noun in LIKED else "No")


def test_the_engines_own_figures_are_untouched(runs):
    assert runs["stock"].code == 0, runs["stock"].log[-3000:]
    for key in ("eval_loss", "eval_rewards/accuracies", "eval_rewards/margins", "eval_logps/chosen", "loss"):
        theirs = logged(runs["stock"], 4, key)
        assert theirs
        assert logged(runs["dpo"], 4, key) == theirs


@pytest.mark.parametrize(
    ("name", "figure", "best"),
    [
        ("dpo", "accuracy", max),
        ("lora", "rewards/margins", max),
        ("kto", "rewards/margins", max),
        ("orpo", "nll_loss", min),
        ("simpo", "perplexity", min),
    ],
)
def test_the_best_model_is_chosen_by_either_kind_of_figure(runs, name, figure, best):
    run = runs[name]
    values = {step: value for step, value in logged(run, 4, f"eval_{figure}").items() if step}
    state = json.loads((run.output / "checkpoint-4" / "trainer_state.json").read_text())
    assert len(values) == 2
    assert state["best_metric"] == pytest.approx(best(values.values()))


def test_early_stopping_acts_on_a_figure_of_the_answers(runs):
    run = runs["stops"]
    assert run.code == 0, run.log[-3000:]
    assert max(line["step"] for line in run.evaluations()) < 20


def test_the_log_says_on_how_many_rows(runs):
    assert "27 of 41 rows, since the others are marked as bad answers" in runs["kto"].log


def test_rows_that_axolotl_drops_are_told(runs):
    run = runs["short"]
    assert run.code == 0, run.log[-3000:]
    n = {line["n"] for line in run.evaluations()}.pop()
    assert 0 < n < 41
    assert f"pairs_eval: {n} of 41 rows are evaluated: Axolotl drops rows above sequence_len = 56" in run.log


def test_a_figure_that_no_evaluation_reports_stops_the_run(runs):
    run = runs["typo"]
    assert run.code == 2
    assert "metric_for_best_model is 'rewards/accuracy', which no evaluation will report" in run.log
