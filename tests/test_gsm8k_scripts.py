"""Numbers beside letters of scripts without spaces, units of ten thousand, unknowns and unfinished sums."""

import pytest

from tunebook.metrics import gsm8k

READ = [
    ("一共有1,018个", "1018"),
    ("共有1,800个", "1800"),
    ("需要7/18的时间", "7/18"),
    ("还剩-5度", "-5"),
    ("答：小明一共有18个苹果。", "18"),
    ("因此她每天赚18美元。", "18"),
    ("结果是18。", "18"),
    ("总数为18个", "18"),
    ("即18", "18"),
    ("价格为12.50元", "12.5"),
    ("合計18個です。", "18"),
    ("48÷2=24（个）\n48+24=72（个）\n答：一共卖了72个。", "72"),
    ("答案是1.8万", "18000"),
    ("答案是3亿", "300000000"),
    ("百分之20", "20"),
    ("答案是：１８", "18"),
    ("全部で２４個です。", "24"),
    ("총 18개입니다.", "18"),
    ("정답은 1,250원입니다.", "1250"),
    ("รวมทั้งหมด18บาท", "18"),
    ("答案：$18", "18"),
    ("他花了¥36元", "36"),
    ("一共需要2.5小时。", "2.5"),
    ("所以一共是5+13=18个。", "18"),
]


@pytest.mark.parametrize(("text", "number"), READ)
def test_a_number_beside_letters_is_read_whole(text, number):
    assert gsm8k.score(text, f"#### {number}").values["exact_match"] == 1.0


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("一共有1,018个", "18"),
        ("共有1,800个", "800"),
        ("需要7/18的时间", "18"),
        ("还剩-5度", "5"),
        ("1.8万", "1.8"),
    ],
)
def test_the_tail_of_a_number_is_not_the_number(text, wrong):
    assert gsm8k.score(text, f"#### {wrong}").values["exact_match"] == 0.0


@pytest.mark.parametrize(
    "text",
    [
        "#### 3x + 6",
        "#### 2x + 3",
        "#### 15 + 2x (unknown)",
        "#### (3/2)x + 4",
        "#### 4y - 1",
        "#### Answer: 40 * 4 * 21 = ####",
        "#### 12 + 5 =",
    ],
)
def test_what_the_model_left_open_is_no_number(text):
    score = gsm8k.score(text, "#### 18")
    assert (score.parsed, score.reason) == (None, "no_number")


@pytest.mark.parametrize(
    "text", ["#### 6 * 7", "The answer is 40 * 4 * 21.", "So she pays 3 + 4", "\\boxed{20 - 2}", "答：12×5"]
)
def test_a_sum_that_was_not_worked_out_is_cut(text):
    assert gsm8k.score(text, "#### 18").reason == "cut"


@pytest.mark.parametrize(
    "text",
    [
        "1/3 = 0." + "3" * 120,
        "so 8/3 = 2." + "6" * 20,
        "She has 12 eggs.\n" * 30 + "She has 12",
        "He scares away 20 birds, scaring away 20 birds, scaring",
        "他有5个苹果，" * 20 + "他有5",
    ],
)
def test_a_loop_that_the_limit_cut_is_cut(text):
    assert gsm8k.score(text, "#### 18").reason == "cut"


@pytest.mark.parametrize(
    ("prediction", "reference", "right"),
    [
        ("It is 7", "A: 7", 1.0),
        ("It is 8", "A: 7", 0.0),
        ("so 2.5", "A: 2.50", 1.0),
        ("1,018", "答案是1,018", 1.0),
    ],
)
def test_a_reference_without_a_hash_line_is_compared_by_its_number(prediction, reference, right):
    # The harness's label would be the whole text, which no prediction equals.
    assert gsm8k.score(prediction, reference).values["flexible_extract"] == right


def test_means_is_no_label_of_an_answer():
    assert gsm8k.extract("That means 64/4=16 logs.\nSo he makes 80*1.2=$96.") == 96


@pytest.mark.parametrize(
    ("text", "number"), [("#### 12 x 20 = 240", "240"), ("#### 5 x $3 = $15", "15"), ("#### 3 + 4 = 7", "7")]
)
def test_a_sum_that_was_worked_out_is_read(text, number):
    assert gsm8k.score(text, f"#### {number}").values["exact_match"] == 1.0


def test_a_correction_that_says_nothing_is_read_over():
    assert gsm8k.extract("The answer is 18.\nwait") == 18
