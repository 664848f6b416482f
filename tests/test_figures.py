"""A figure is declared once, by its metric; whoever speaks of it asks there."""

import json
import re
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml

from tunebook import extensions, metrics
from tunebook.checks.run import check_recipe
from tunebook.comparison.figures import compare_figures
from tunebook.comparison.tables import PairedVerdicts
from tunebook.metrics import figures as declared
from tunebook.report import figures as shown
from tunebook.scoring.figures import reported_figures, selection
from tunebook.types import Figure, Metric, Score

BUILT_IN = tuple(metrics.BUILT_IN)
MODULE = """
from tunebook.types import Figure, Metric, Score

def score(prediction, reference):
    wrong = sum(a != b for a, b in zip(prediction.split(), reference.split()))
    return Score(values={"wer": wrong / max(1, len(reference.split()))}, parsed=prediction)

def aggregate(scores):
    return {"wer": sum(score.values["wer"] for score in scores) / len(scores)}

DECLARED = Metric(name="words", score=score, aggregate=aggregate, select_by="wer",
    figures=(Figure(name="wer", label="word error rate", smaller_is_better=True, high=None),))
NAMED = Metric(name="words", score=score, aggregate=aggregate, figures=("wer",), select_by="wer",
    smaller_is_better=frozenset({"wer"}))

def function(prediction, reference):
    return {"anything": 1.0}

def number(prediction, reference) -> float:
    return 1.0

def declares(prediction, reference):
    return {"wer": 1.0}

declares.figures = [Figure(name="wer", smaller_is_better=True)]
"""


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder with a recipe's data and a module of metrics; the test is run in it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "mine.py").write_text(MODULE)
    (tmp_path / "rows.json").write_text(json.dumps([{"instruction": "?", "input": "", "output": "Yes"}] * 10))
    yield tmp_path
    sys.modules.pop("mine", None)
    declared.known_figures.cache_clear()
    shown._known.cache_clear()


def findings(place, metric, **changed):
    """What `check` says of the choice of the best model, by rule."""
    (place / "dataset_info.json").write_text(
        json.dumps(
            {"train": {"file_name": "rows.json"}, "test": {"file_name": "rows.json", "metric": metric}}
        )
    )
    values = {
        "model_name_or_path": "Qwen/Qwen3-0.6B",
        "stage": "sft",
        "do_train": True,
        "template": "qwen3_nothink",
        "dataset_dir": ".",
        "dataset": "train",
        "eval_dataset": "test",
        "eval_strategy": "steps",
        "eval_steps": 10,
        "save_steps": 10,
        "load_best_model_at_end": True,
        "output_dir": "out",
        **changed,
    }
    (place / "recipe.yaml").write_text(yaml.safe_dump(values))
    found = check_recipe("recipe.yaml", place).result.findings
    rules = {"greater-is-better", "metric-not-produced"}
    return {finding.rule: finding.severity for finding in found if finding.rule in rules}


@pytest.mark.parametrize(
    "figure", ["brier", "ece", "unparsed_rate", "answers_cut", "perplexity", "lexical_rate"]
)
def test_a_figure_that_the_hook_turns_round_is_clean(place, figure):
    assert findings(place, "yes_no", metric_for_best_model=figure) == {}
    assert findings(place, "yes_no", metric_for_best_model=figure, greater_is_better=False) == {}


def test_a_direction_that_is_written_and_wrong_is_hinted_at(place):
    assert findings(place, "yes_no", metric_for_best_model="brier", greater_is_better=True) == {
        "greater-is-better": "hint"
    }
    assert findings(place, "yes_no", metric_for_best_model="f1", greater_is_better=False) == {
        "greater-is-better": "warning"
    }


@pytest.mark.parametrize("metric", ["mine:DECLARED", "mine:NAMED"])
def test_a_metric_of_a_package_says_which_way_is_better(place, metric):
    assert findings(place, metric, metric_for_best_model="wer") == {}
    assert findings(place, metric, metric_for_best_model="wer", greater_is_better=False) == {}


@pytest.mark.parametrize("metric", ["yes_no", "mine:DECLARED", ["yes_no", "mine:NAMED"]])
@pytest.mark.parametrize("figure", ["nan", "banana", "eval_banana"])
def test_a_figure_that_no_metric_declares_is_refused(place, metric, figure):
    assert findings(place, metric, metric_for_best_model=figure) == {"metric-not-produced": "error"}


def test_the_figures_of_a_users_function_are_known_when_it_has_run(place):
    assert findings(place, "mine:function", metric_for_best_model="banana") == {"metric-not-produced": "hint"}
    false = {"metric_for_best_model": "banana", "greater_is_better": False}
    assert findings(place, "mine:function", **false) == {"metric-not-produced": "hint"}


@pytest.mark.parametrize("function", ["number", "declares"])
def test_a_function_that_says_what_it_returns_is_taken_at_its_word(place, function):
    refused = {"metric-not-produced": "error"}
    assert findings(place, f"mine:{function}", metric_for_best_model="banana") == refused
    chosen = {"number": "score", "declares": "wer"}[function]
    assert metrics.load(f"mine:{function}").select_by == chosen
    assert findings(place, f"mine:{function}", metric_for_best_model=chosen) == {}
    wrong = {"metric_for_best_model": chosen, "greater_is_better": function == "declares"}
    assert set(findings(place, f"mine:{function}", **wrong)) == {"greater-is-better"}


def test_one_set_evaluated_on_its_own_has_its_name_in_its_figures(place):
    each = {"eval_on_each_dataset": True}
    assert findings(place, "yes_no", metric_for_best_model="test_brier", **each) == {}
    assert findings(place, "yes_no", metric_for_best_model="brier", **each) == {
        "metric-not-produced": "error"
    }


def test_our_evaluation_takes_the_place_of_what_the_engine_would_report(place):
    for figure, keys in (
        ("accuracy", {"compute_accuracy": True}),
        ("rouge-l", {"predict_with_generate": True}),
    ):
        found = findings(place, "gsm8k", metric_for_best_model=figure, **keys)
        assert found == {"metric-not-produced": "error"}
    # LLaMA-Factory's pretraining is not bound to.
    assert findings(place, "yes_no", metric_for_best_model="f1", stage="pt") == {
        "metric-not-produced": "error"
    }


def test_what_every_generating_evaluation_reports_may_be_chosen(place):
    for mode, refused in (("generate", False), (None, False), ("answer", True)):
        metric = {"name": "yes_no"} | ({"mode": mode} if mode else {})
        found = findings(place, metric, metric_for_best_model="generation_cut_rate")
        assert bool(found) is refused, mode


def test_two_metrics_with_one_figure_are_told_apart_by_name(place):
    both = ["yes_no", "multiple_choice"]
    assert findings(place, both, metric_for_best_model="yes_no_accuracy") == {}
    # Neither reports it under the plain name.
    assert findings(place, both, metric_for_best_model="accuracy") == {"metric-not-produced": "error"}


def test_a_metric_in_one_file_is_known_everywhere(place, monkeypatch):
    sys.path.insert(0, str(place))
    import mine

    monkeypatch.setattr(extensions, "installed", lambda group, built_in: {"words": None})
    monkeypatch.setattr(extensions, "load_entry_point", lambda point: mine.DECLARED)
    declared.known_figures.cache_clear()
    assert findings(place, "words", metric_for_best_model="wer") == {}
    assert findings(place, "words", metric_for_best_model="wre") == {"metric-not-produced": "error"}
    metric = metrics.load("words")
    assert shown.figure("wer").label == "word error rate"
    assert shown.figure("wer").smaller_is_better
    assert not shown.figure("wer").detail
    assert shown.order({"wer", "loss", "stranger"}, None) == ["loss", "wer", "stranger"]
    assert selection([metric]) == ("wer", False)
    assert reported_figures([metric], generates=False)["wer"].smaller_is_better
    assert not compare_figures(metric, pair("wer"))[0].larger_is_better
    # A row's value that stands in for a corpus figure goes the same way as that.
    assert not compare_figures(metric, pair("sentence_wer"))[0].larger_is_better


def test_a_report_asks_the_metrics_of_an_evaluation(place):
    # Installed or not; a name that two metrics of a set share is told by the metric's.
    assert shown.figure("wer", ("mine:DECLARED",)).label == "word error rate"
    assert shown.figure("words", ("mine:gone",)).label == "words"
    both = ("yes_no", "multiple_choice")
    assert shown.figure("yes_no_accuracy", both).label == "accuracy (yes_no)"
    assert shown.figure("yes_no_unparsed_rate", both).smaller_is_better


def test_a_metric_is_loaded_again_by_the_name_that_its_records_have(place):
    assert metrics.load("mine:DECLARED").name == "mine:DECLARED"


def pair(figure):
    """Two sides of 40 rows, of which the second has fewer errors."""
    rows = np.arange(40)
    zeros = np.zeros(40, np.int64)
    return PairedVerdicts(
        index=rows,
        first={figure: np.full(40, 0.5) + rows % 2, "unparsed_rate": np.zeros(40)},
        second={figure: np.full(40, 0.25), "unparsed_rate": np.zeros(40)},
        first_parsed=zeros,
        second_parsed=zeros,
        classes=zeros,
        names={},
        lengths=zeros,
        lengths_of="prompt characters",
        other_texts=zeros.astype(bool),
    )


@pytest.mark.parametrize("name", BUILT_IN)
def test_every_built_in_figure_has_a_label_and_a_range_that_holds_its_values(name):
    metric = metrics.load(name)
    assert len(set(metric.names)) == len(metric.names)
    predictions = ["Yes", "no", "#### 18", "B", "a long answer about nothing", ""]
    references = {"gsm8k": "#### 18", "multiple_choice": "B", "json": "[1]"}.get(name, "Yes")
    scores = [metric.score(prediction, references) for prediction in predictions]
    figures = {one.name: one for one in metric.figures}
    for figure, value in metric.aggregate(scores).items():
        one = figures[figure]
        assert one.label
        assert one.low is None or value >= one.low, figure
        assert one.high is None or value <= one.high + 1e-9, figure


def test_a_bare_name_is_a_figure():
    metric = Metric(
        name="m",
        score=lambda p, r: Score(values={}, parsed=p),
        aggregate=lambda scores: {},
        figures=("a", Figure(name="b", smaller_is_better=True, may_be_undefined=True)),
        select_by="a",
        smaller_is_better=frozenset({"a"}),
    )
    assert metric.names == ("a", "b")
    assert metric.smaller_is_better == {"a", "b"}
    assert metric.may_be_undefined == {"b"}
    assert [one.smaller_is_better for one in replace(metric, name="n").figures] == [True, True]


def test_the_table_of_the_docs_is_what_the_metrics_declare():
    page = (Path(__file__).parents[1] / "docs" / "metrics.md").read_text(encoding="utf-8")
    rows = [line for line in page.splitlines() if re.match(r"\| `\w+` \| `\w+` \|", line)]
    assert rows == [
        table_row(metric, figure)
        for metric in BUILT_IN
        for figure in metrics.load(metric).figures
        if "_ref_" not in figure.name
    ]


def table_row(metric, figure):
    """The line of docs/metrics.md that says what a figure is."""
    low, high = ("" if end is None else f"{end:g}" for end in (figure.low, figure.high))
    better = "neither" if figure.descriptive else "smaller" if figure.smaller_is_better else "larger"
    return f"| `{metric}` | `{figure.name}` | {figure.label} | {low} to {high or 'any'} | {better} |"


def test_every_metric_of_the_folder_has_a_name():
    folder = Path(metrics.__file__).parent
    declared_in = {path.stem for path in folder.glob("*.py") if "\nMETRIC = " in path.read_text("utf-8")}
    assert declared_in == set(BUILT_IN) == {one.name for one in metrics.installed()}
