import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from tunebook.metrics import yes_no

CASES = Path(__file__).parent / "cases"


def cases(name):
    return [json.loads(line) for line in (CASES / name).read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize(("said", "answer"), [("Yes", "yes"), ("No", "no"), (" yes.", "yes"), ("NO\n", "no")])
def test_a_direct_answer_is_read(said, answer):
    assert yes_no.extract(said) == answer


def test_the_sample_cases_are_read_as_a_person_reads_them():
    wrong = [case for case in cases("yes_no.jsonl") if yes_no.extract(case["text"]) != case["expected"]]
    assert not wrong


def test_the_written_cases_are_read_as_a_person_reads_them():
    wrong = [
        case for case in cases("yes_no_written.jsonl") if yes_no.extract(case["text"]) != case["expected"]
    ]
    assert not wrong


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ("", "empty"),
        ("  \n", "empty"),
        ("<think>It is a thriller, so yes", "unfinished_think"),
        ("I'm sorry, but I can't help with that.", "refusal"),
        ("It depends on the mood.", "hedge"),
        ("Yes or no?", "options_only"),
        ("The user likes drama.", "no_answer_word"),
    ],
)
def test_an_unparsed_answer_has_its_reason(said, reason):
    score = yes_no.score(said, "yes")
    assert (score.parsed, score.rule, score.reason) == (None, None, reason)
    assert score.values["accuracy"] == 0.0


@given(st.text(), st.sampled_from(["yes", "no"]))
def test_thoughts_never_change_the_answer(thought, answer):
    assert yes_no.extract(f"<think>{thought}</think>{answer}") == answer


@given(st.text(max_size=200))
def test_a_score_has_a_rule_or_a_reason_and_never_both(said):
    score = yes_no.score(said, "no")
    assert (score.rule is None) == (score.parsed is None)
    assert (score.reason is None) == (score.parsed is not None)


def test_a_long_s_in_yes_does_not_stop_the_run():
    # Patterns that ignore case take the long s for an s; `lower` does not.
    assert yes_no.extract("Ye\u017f: 0.7, no: 0.3") == "no"


def test_a_verdict_is_found_far_from_the_ends_of_a_text():
    around = "The film is slow and quiet. It has a long score. " * 12
    assert yes_no.read(f"{around}I would recommend it. {around}").rule == "lexical"
    assert yes_no.read(around * 2).reason == "no_answer_word"


def test_a_reference_that_says_neither_is_the_datas_fault():
    with pytest.raises(ValueError, match="perhaps"):
        yes_no.score("yes", "perhaps")


def test_a_verdict_in_other_words_is_counted_apart():
    scores = [yes_no.score("I would not recommend it.", "no"), yes_no.score("No.", "no")]
    assert [score.rule for score in scores] == ["lexical", "bare"]
    assert yes_no.aggregate(scores)["lexical_rate"] == 0.5


def scores_of(parsed, references):
    said = {"yes": "Yes", "no": "No", None: ""}
    return [yes_no.score(said[one], other) for one, other in zip(parsed, references, strict=True)]


LABELS = st.lists(st.tuples(st.sampled_from(["yes", "no", None]), st.sampled_from(["yes", "no"])), min_size=1)


@pytest.mark.filterwarnings("ignore:A single label was found")
@settings(max_examples=40)
@given(LABELS)
def test_the_figures_are_scikit_learns(pairs):
    parsed, references = zip(*pairs, strict=True)
    figures = yes_no.aggregate(scores_of(parsed, references))
    said = [one or "unparsed" for one in parsed]
    usual = {"zero_division": 0, "labels": ["yes"], "average": "macro"}
    assert figures["accuracy"] == pytest.approx(sk.accuracy_score(references, said))
    assert figures["precision"] == pytest.approx(sk.precision_score(references, said, **usual))
    assert figures["recall"] == pytest.approx(sk.recall_score(references, said, **usual))
    assert figures["f1"] == pytest.approx(sk.f1_score(references, said, **usual))
    both = {**usual, "labels": ["yes", "no"]}
    assert figures["macro_f1"] == pytest.approx(sk.f1_score(references, said, **both))
    recalls = sk.recall_score(
        references, said, labels=sorted(set(references)), average="macro", zero_division=0
    )
    assert figures["balanced_accuracy"] == pytest.approx(recalls)
    assert figures["mcc"] == pytest.approx(sk.matthews_corrcoef(references, said))
    assert figures["specificity"] == pytest.approx(
        sk.recall_score(references, said, labels=["no"], average="macro", zero_division=0)
    )


def with_margin(score, margin, mass=0.9):
    return replace(score, values={**score.values, "margin": margin, "class_mass": mass})


def test_margins_give_the_threshold_free_figures():
    generator = np.random.default_rng(0)
    references = ["yes", "no"] * 50
    margins = np.round(generator.normal(size=100), 1)
    scores = [
        with_margin(score, margin)
        for score, margin in zip(scores_of(references, references), margins, strict=True)
    ]
    figures = yes_no.aggregate(scores)
    truth = [reference == "yes" for reference in references]
    assert figures["auroc"] == pytest.approx(sk.roc_auc_score(truth, margins))
    assert figures["average_precision"] == pytest.approx(sk.average_precision_score(truth, margins))
    assert figures["brier"] == pytest.approx(sk.brier_score_loss(truth, 1 / (1 + np.exp(-margins))))
    assert figures["class_mass"] == pytest.approx(0.9)


def test_a_figure_without_a_value_is_left_out():
    one_class = [with_margin(score, 1.0) for score in scores_of(["yes", "no"], ["yes", "yes"])]
    assert "auroc" not in yes_no.aggregate(one_class)
    assert "auroc" not in yes_no.aggregate(scores_of(["yes", "no"], ["yes", "no"]))
    assert yes_no.aggregate([]) == {}


@given(LABELS, st.booleans())
def test_the_metric_names_every_figure_it_gives(pairs, margins):
    scores = scores_of(*zip(*pairs, strict=True))
    if margins:
        scores = [with_margin(score, 0.5) for score in scores]
    assert set(yes_no.METRIC.aggregate(scores)) <= set(yes_no.METRIC.names)
    assert yes_no.METRIC.select_by in yes_no.METRIC.names
