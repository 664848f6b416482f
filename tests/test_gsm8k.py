import json
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunebook.metrics import gsm8k

CASES = Path(__file__).parent / "cases"


def cases(name):
    return [json.loads(line) for line in (CASES / name).read_text(encoding="utf-8").splitlines()]


def test_the_sample_cases_are_judged_as_a_person_judges_them():
    wrong = [
        case
        for case in cases("gsm8k.jsonl")
        if gsm8k.score(case["text"], case["gold"]).values["exact_match"] != float(case["correct"])
    ]
    assert not wrong


def test_the_written_cases_are_read_as_a_person_reads_them():
    wrong = []
    for case in cases("gsm8k_written.jsonl"):
        wanted = None if case["extracted"] is None else Fraction(case["extracted"])
        found = gsm8k.extract(case["text"])
        if (found is None) != (wanted is None) or (wanted is not None and not gsm8k.equal(found, wanted)):
            wrong.append((case, found))
    assert not wrong


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ("", "empty"),
        ("<think>6 * 7 = 42", "unfinished_think"),
        ("First, 6 * 7 = 42. Then we subtract the", "cut"),
        ("The answer is \\boxed{4", "cut"),
        ("I cannot answer this question.", "refusal"),
        ("#### 1, 2, 3", "list"),
        ("It takes 5 to 7 days.", "range"),
        ("#### 3:30", "time"),
        ("She sells her eggs.", "no_number"),
    ],
)
def test_an_unparsed_answer_has_its_reason(said, reason):
    score = gsm8k.score(said, "#### 42")
    assert (score.parsed, score.rule, score.reason) == (None, None, reason)
    assert score.values["exact_match"] == 0.0


def test_the_sign_is_kept():
    assert gsm8k.score("#### 5", "#### -5").values["exact_match"] == 0.0


@pytest.mark.parametrize("said", ["#### 500", "#### 0.05", "#### 5.0001"])
def test_a_factor_of_a_hundred_and_a_near_miss_are_wrong(said):
    assert gsm8k.score(said, "#### 5").values["exact_match"] == 0.0


@pytest.mark.parametrize("said", ["#### 0.333333", "#### 1/3", "\\boxed{\\frac{1}{3}}"])
def test_a_third_is_a_third_however_it_is_written(said):
    assert gsm8k.score(said, "1/3").values["exact_match"] == 1.0


WHOLE = st.integers(-(10**9), 10**9)
STYLES = [
    "#### {:,}", "#### {}", "#### {}.", "#### ${:,}.00", "The answer is {}.", "\\boxed{{{}}}", "<answer>{:,}</answer>",
    '{{"answer": {}}}', "So 1 + 1 = 2.\n\n**Answer:** {:,} eggs", "<think>#### 7</think>\nAnswer: {}",
]  # fmt: skip


@given(WHOLE, st.sampled_from(STYLES))
def test_a_number_survives_every_style(number, style):
    assert gsm8k.extract(style.format(number)) == number


@given(st.text(max_size=200))
def test_a_score_has_a_rule_or_a_reason_and_never_both(said):
    score = gsm8k.score(said, "42")
    assert (score.rule is None) == (score.parsed is None)
    assert (score.reason is None) == (score.parsed is not None)


@pytest.mark.parametrize("said", ["She has 18 eggs.", "She has eighteen eggs.", "3. Left: 18"])
def test_a_number_is_found_before_a_long_remark_without_one(said):
    remark = "The ducks lay them before breakfast. " * 40
    assert gsm8k.extract(f"{remark}{said} {remark}") == 18


def test_the_last_explicit_correction_counts():
    assert gsm8k.read("Wait, no. It is 20. Actually, she has 18 eggs.") == (18, "revised", None)
    assert gsm8k.read("Wait for 20 minutes. Then there are 18 eggs.").rule == "last_sentence"


def test_a_reference_without_a_number_is_the_datas_fault():
    with pytest.raises(ValueError, match="unknown"):
        gsm8k.score("#### 1", "#### unknown")


def test_the_harness_figures_keep_the_harness_faults():
    # What published numbers contain: the first marker, and a full stop that is part of the number.
    assert gsm8k.score("#### 36 (12*3)", "#### 36").values["flexible_extract"] == 0.0
    assert gsm8k.score("#### $42", "#### 42").values["strict_match"] == 0.0
    assert gsm8k.score("<think>#### 42", "#### 42").values["strict_match"] == 1.0


def test_the_aggregate_counts_what_it_could_not_read():
    scores = [gsm8k.score(said, "#### 42") for said in ("#### 42", "#### 41", "", "no idea")]
    figures = gsm8k.aggregate(scores)
    assert figures["exact_match"] == 0.25
    assert figures["exact_match_parsed"] == 0.5
    assert figures["unparsed_rate"] == 0.5
    assert set(figures) <= set(gsm8k.METRIC.names)


def test_a_question_that_opens_the_task_is_no_made_up_one():
    assert gsm8k.extract("Here is the task.\n\nQuestion: What is 6 * 7?\nAnswer: 42") == 42
    assert gsm8k.extract("Answer: 42\n\nQuestion: What is 2 * 2?\nAnswer: 4") == 42
