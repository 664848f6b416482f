"""Predictions and references are read alike: what a reader of the chat sees of either."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunebook import metrics

TEXT_METRICS = (
    "exact_match", "rouge", "bleu", "chrf", 'rouge{"tokenize": "auto"}', 'rouge{"tokenize": "char"}',
    'rouge{"tokenize": "words"}', 'bleu{"tokenize": "auto"}', 'bleu{"tokenize": "zh"}', 'bleu{"tokenize": "char"}',
)  # fmt: skip
BEST = {"exact_match": 1.0, "verbatim": 1.0, "rougeL": 1.0, "sentence_bleu": 100.0, "sentence_chrf": 100.0}
EMPTY_THINK = "<think>\n\n</think>\n\n"
STRINGS = (
    "It’s fine", "你好！", "北京。", "「東京」", "باريس؟", "दिल्ली।", "Paris…", "¿Sí?", "２０２４年", "（甲）", "答案：北京",
    "是的，没错。", "ＡＢＣ", "a，b", "½", "x²", "１２３", "!", "—", "“quoted”", "e\u0301", "é", "İstanbul", "ﬁne", "Straße",
    f"{EMPTY_THINK}Paris", "<think>why?</think> Paris.", "Paris<|im_end|>", "a &lt; b", "[THINK]x[/THINK]Rome",
)  # fmt: skip


@pytest.mark.parametrize("name", TEXT_METRICS)
@pytest.mark.parametrize("text", STRINGS)
def test_a_text_equals_itself_or_is_refused(name, text):
    check_itself(name, text)


@given(
    st.text(max_size=40)
    | st.sampled_from(STRINGS).flatmap(lambda a: st.sampled_from(STRINGS).map(lambda b: a + b))
)
def test_any_text_equals_itself_or_is_refused(text):
    for name in (*TEXT_METRICS, "yes_no", "gsm8k", "multiple_choice"):
        check_itself(name, text)


def check_itself(name, text):
    metric = metrics.load(name)
    try:
        score = metric.score(text, text)
    except ValueError:
        return
    for figure, best in BEST.items():
        if figure in score.values and not (
            figure == "sentence_bleu" and score.values["bleu_reference_tokens"] == 0
        ):
            assert score.values[figure] == pytest.approx(best), (name, figure)
    if name in ("yes_no", "multiple_choice"):
        assert score.values["accuracy"] == 1.0


@pytest.mark.parametrize(
    ("prediction", "reference", "equal"),
    [
        ("北京", "北京。", 1.0),
        ("東京", "「東京」", 1.0),
        ("باريس", "باريس؟", 1.0),
        ("दिल्ली", "दिल्ली।", 1.0),
        ("Paris", "Paris…", 1.0),
        ("Sí", "¿Sí?", 1.0),
        ("北京", "北京！", 1.0),
        ("e\u0301", "é", 1.0),
        ("１８％", "18 %", 1.0),
        ("it's", "It’s", 1.0),
        (f"{EMPTY_THINK}London", f"{EMPTY_THINK}Paris", 0.0),
        ("北京", "南京", 0.0),
        ("不是", "是", 0.0),
    ],
)
def test_one_rule_of_punctuation_holds_for_all_scripts(prediction, reference, equal):
    assert metrics.load("exact_match").score(prediction, reference).values["exact_match"] == equal


def test_verbatim_compares_what_is_there():
    values = metrics.load("exact_match").score("it's", "It’s").values
    assert values == {"exact_match": 1.0, "verbatim": 0.0}


@pytest.mark.parametrize(
    ("name", "figure"), [("rouge", "rouge1"), ("bleu", "sentence_bleu"), ("chrf", "sentence_chrf")]
)
def test_thoughts_are_no_part_of_an_answer(name, figure):
    score = metrics.load(name).score
    long = "<think>" + "some words about nothing at all " * 5 + "</think> The cat sat on the mat today."
    plain = "The cat sat on the mat today."
    assert score(long, plain).values[figure] == score(plain, plain).values[figure]
    apart = score(f"{EMPTY_THINK}London", f"{EMPTY_THINK}Paris").values[figure]
    assert apart == score("London", "Paris").values[figure]
    unfinished = score("<think>The cat sat on the mat", plain)
    assert (unfinished.parsed, unfinished.reason) == (None, "unfinished_think")
    assert unfinished.values[figure] == 0.0


@pytest.mark.parametrize(
    "reference",
    [
        "2023年公司盈利了15%，扩招一倍。",
        "2024年第3季度净利润为5亿元",
        "В 2023 году компания выросла",
        "2023년 회사는 15% 성장했다",
        "कंपनी 2023 में 15% बढ़ी",
        "Η εταιρεία 2023 μεγάλωσε",
    ],
)
def test_rouge_of_the_digits_alone_is_refused(reference):
    with pytest.raises(ValueError, match="or measure chrf"):
        metrics.load("rouge").score("2023 15", reference)


@pytest.mark.parametrize(
    "reference", ["Überraschung für Jörg", "Điều này thật tuyệt vời", "été à Orléans", "15", "3.5 km"]
)
def test_rouge_takes_latin_letters_with_marks(reference):
    assert metrics.load("rouge").score(reference, reference).values["rouge1"] == 1.0
