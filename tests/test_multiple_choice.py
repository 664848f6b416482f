"""The letter that an answer settles on, in the forms that models give it."""

import json
from pathlib import Path

import pytest

from tunebook.metrics import multiple_choice

CASES = [
    # English: verbs, hedges, superlatives
    ("The answer is most likely E.", "E"),
    ('the answer is most likely B, "cupboard".', "B"),
    ("The answer is probably B, depression.", "B"),
    ("The answer is closest to D, 35%", "D"),
    ("It is likely to be D", "D"),
    ("The answer appears to be B", "B"),
    ("The correct answer is probably B.", "B"),
    ("The best option is C.", "C"),
    ("Option B is correct.", "B"),
    ("The most appropriate choice is B.", "B"),
    ("I would go with B.", "B"),
    ("I'd choose B", "B"),
    ("the most likely answer is B", "B"),
    ("The answer would be B", "B"),
    ("The answer must be (C)", "C"),
    ("The answer is (H).", "H"),
    ("Statement one fails, so (D) is incorrect. The answer is (H).", "H"),
    ("The answer is B because it floats.", "B"),
    ("The answer is A because it floats.", "A"),
    ("So the answer is A", "A"),
    ("Therefore, B.", "B"),
    ("Therefore it is C", "C"),
    ("The right choice is E", "E"),
    ("The closest answer is **F**.", "F"),
    ("Of these, J is the best answer.", "J"),
    ("The final answer: (G)", "G"),
    ("My answer: I.", "I"),
    ("Answer: C) Paris", "C"),
    ("$\\\\boxed{D}$", "D"),
    ("<answer>E</answer>", "E"),
    ("#### B", "B"),
    ("(B) Paris", "B"),
    ("**A**", "A"),
    ("B", "B"),
    ("b.", "B"),
    ("Option C", "C"),
    ("(D) is tempting, and not (A). Let me compute. It gives 12, which is (C).", "C"),
    ('Option (D) is not likely either. So the answer is most likely B, "cupboard".', "B"),
    ("First I thought the answer is A. Actually the answer is B.", "B"),
    ("Choice B", "B"),
    ("I pick option D", "D"),
    # none, or several
    ("A or B", None),
    ("The answer is A or B.", None),
    ("The answer is C. No: the answer is A or B.", None),
    ("not A. Option (B) is a possibility", None),
    ("$\\\\ln(k) = \\\\ln(A) - \\\\frac{E_a}{RT}$ so the slope", None),
    ("A good question.", None),
    ("I think that we need more data", None),
    ("The answer is a number", None),
    ("AB", None),
    ("None of these.", None),
    ("A cat sat on a mat.", None),
    ("The answer is not B.", None),
    # Chinese
    ("答案：B", "B"),
    ("答案是B", "B"),
    ("答案为 C。", "C"),
    ("选B", "B"),
    ("选择B。", "B"),
    ("B、北京", "B"),
    ("B：北京", "B"),
    ("（B）", "B"),
    ("Ｂ", "B"),
    ("正确答案是B", "B"),
    ("故选：B", "B"),
    ("故选B", "B"),
    ("因此选项B是正确的", "B"),
    ("应该选 B 选项", "B"),
    ("排除A和C，选B", "B"),
    ("A错误，B正确", "B"),
    ("【答案】B", "B"),
    ("选项 B", "B"),
    ("B项正确", "B"),
    ("本题选D。", "D"),
    ("所以答案应该是 A。", "A"),
    ("A不正确，C才是正确的", "C"),
    ("答案：A和B", None),
    # other languages
    ("정답: B", "B"),
    ("정답은 C입니다", "C"),
    ("Ответ: B", "B"),
    ("Правильный ответ: D", "D"),
    ("الإجابة: B", "B"),
    ("正解はBです", "B"),
    ("答えはCです。", "C"),
    ("Antwort: B", "B"),
    ("Die richtige Antwort ist C.", "C"),
    ("Réponse : B", "B"),
    ("La réponse est D.", "D"),
    ("Respuesta: B", "B"),
    ("La respuesta correcta es A.", "A"),
    ("Resposta: E", "E"),
    ("A resposta é C.", "C"),
    ("Risposta: B", "B"),
    ("La risposta è D.", "D"),
    ("Đáp án: B", "B"),
    ("Đáp án là C.", "C"),
    ("Jawaban: B", "B"),
    ("Cevap: B", "B"),
    ("Odpowiedź: B", "B"),
    ("उत्तर: B", "B"),
    ("คำตอบ: B", "B"),
    ("คำตอบคือ C", "C"),
]


@pytest.mark.parametrize(("text", "letter"), CASES)
def test_the_letter_that_an_answer_settles_on(text, letter):
    assert multiple_choice.extract(text) == letter


def test_the_written_cases_are_read_as_a_person_reads_them():
    path = Path(__file__).parent / "cases" / "multiple_choice_written.jsonl"
    cases = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    wrong = [
        case
        for case in cases
        if multiple_choice.score(case["text"], case["extracted"] or "A").parsed != case["extracted"]
    ]
    assert not wrong


@pytest.mark.parametrize("letter", "ABCDEFGHIJKLMNOPQRSTUVWXYZ")
def test_every_letter_may_be_a_reference(letter):
    score = multiple_choice.score(f"The answer is ({letter}).", letter)
    assert (score.values["accuracy"], score.parsed) == (1.0, letter)


def test_another_letter_is_wrong():
    assert multiple_choice.score("The answer is (H).", "D").values["accuracy"] == 0.0


def test_a_reference_without_a_letter_is_refused():
    with pytest.raises(ValueError, match="must be a letter from A to Z"):
        multiple_choice.score("B", "the second")
