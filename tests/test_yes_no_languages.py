"""Yes and no in Chinese and other languages, and in texts that finally commit to nothing."""

import pytest

from tunebook.metrics import yes_no

CHINESE = [
    ("是\n\n解释：因为他看过类似的电影。", "yes"),
    ("否\n\n解释：因为他不看这种电影。", "no"),
    ("我觉得不是。", "no"),
    ("当然不是", "no"),
    ("肯定不会", "no"),
    ("应该是", "yes"),
    ("没错", "yes"),
    ("不行", "no"),
    ("[答案]是", "yes"),
    ("【答案】否", "no"),
    ("答案：否", "no"),
    ("答案是否定的。", "no"),
    ("答案是肯定的。", "yes"),
    ("这个说法是错误的。", "no"),
    ("这个说法是正确的。", "yes"),
    ("这个说法不正确。", "no"),
    ("好，我来分析一下。他喜欢动作片，而这是爱情片。因此他不会喜欢。", "no"),
    ("好。他不喜欢。", "no"),
    ("好，让我想想。因此，他不喜欢", "no"),
    ("好的，根据他的历史记录，他会喜欢这部电影。", "yes"),
    ("错", "no"),
    ("錯", "no"),
    ("對", "yes"),
    ("真", "yes"),
    ("假", "no"),
    ("正确", "yes"),
    ("错误。", "no"),
    ("能", "yes"),
    ("不能", "no"),
    ("推荐", "yes"),
    ("不推荐", "no"),
    ("属于", "yes"),
    ("不属于", "no"),
    ("支持", "yes"),
    ("反对", "no"),
    ("正面", "yes"),
    ("负面", "no"),
    ("是的，用户会喜欢。", "yes"),
    ("不会，因为他只看喜剧。", "no"),
    ("综上所述，用户不会喜欢这部电影。", "no"),
    ("用户很可能会喜欢这部电影。", "yes"),
    ("我不认为他会喜欢。", "no"),
    ("他并非不喜欢这部电影。", "yes"),
    ("会。他喜欢科幻片。", "yes"),
    ("对，他会喜欢。", "yes"),
    ("不对，他不会喜欢。", "no"),
    ("1", "yes"),
    ("０", "no"),
    ("有，但不", None),
    ("我不知道，是？", None),
    ("无法判断。", None),
    ("这取决于他的心情。", None),
    ("今天天气很好", None),
]
OTHERS = [
    ("نعم، يعجبه هذا الفيلم.", "yes"),
    ("لا، لن يعجبه.", "no"),
    ("हाँ, उसे पसंद आएगा।", "yes"),
    ("उत्तर: नहीं", "no"),
    ("नही", "no"),
    ("بله", "yes"),
    ("خیر", "no"),
    ("হ্যাঁ", "yes"),
    ("না", "no"),
    ("ஆம்", "yes"),
    ("இல்லை", "no"),
    ("Oui, il va l'aimer.", "yes"),
    ("Nein, das glaube ich nicht.", "no"),
    ("Ja, men nej", None),
    ("No, sí", None),
]
UNDECIDED = [
    "If you mean the city, then the answer is yes.\nTherefore, the answer (Yes or No) is: It depends.",
    "Some say the answer is no. We cannot find this out.\nTherefore, the answer (Yes or No) is unknown.",
    "The answer is yes and the sky is blue. Final answer: cannot be determined.",
]
DECIDED = [
    (
        """First, can a cat write? The answer is no.

Second, can a cat remember? The answer is yes.

So, the answer to your question is no, a cat cannot keep a diary.""",
        "no",
    ),
    ("So, to answer the question, no, lions did not live here.", "no"),
    ("It depends on the reader. Still, the answer is yes.", "yes"),
]


@pytest.mark.parametrize(("text", "answer"), [*CHINESE, *OTHERS])
def test_an_answer_in_another_language(text, answer):
    assert yes_no.extract(text) == answer


@pytest.mark.parametrize("text", UNDECIDED)
def test_the_last_slot_wins_when_it_commits_to_nothing(text):
    assert (yes_no.read(text).answer, yes_no.read(text).reason) == (None, "hedge")


@pytest.mark.parametrize(("text", "answer"), DECIDED)
def test_the_last_commitment_wins(text, answer):
    assert yes_no.extract(text) == answer


@pytest.mark.parametrize(
    ("prediction", "reference"), [("错误", "不对"), ("正确", "对"), ("yes", "1"), ("No.", "0"), ("1", "Yes")]
)
def test_words_of_one_class_agree(prediction, reference):
    assert yes_no.score(prediction, reference).values["accuracy"] == 1.0


def test_a_statement_of_what_is_not_known_is_a_hedge():
    assert yes_no.read("The answer (Yes or No) is not known.").reason == "hedge"


def test_doubt_is_no_assent():
    assert yes_no.extract("It is doubtful that she would like to travel with him.") == "no"
