"""Multiple choice: reads the letter that an answer settles on.

Source: the rules are ours. MMLU and ARC are usually scored by log-likelihood of the letters; this metric
reads generated text.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

from tunebook.metrics.response import visible
from tunebook.types import UNPARSED, Figure, Metric, Score

LETTERS = "ABCDEFGHIJ"
"""Letters that are looked for in any answer; a reference beyond J adds those up to its own."""


class LetterReading(NamedTuple):
    """What was read, and how."""

    letter: str | None
    rule: str | None
    """None exactly when `letter` is."""
    reason: str | None
    """None exactly when `letter` is not."""


_BE = (
    r"(?:is|was|are|be|would\sbe|should\sbe|must\sbe|will\sbe|has\sto\sbe|could\sbe|may\sbe|might\sbe"
    r"|(?:seems|appears|looks|likely)\sto\sbe|remains)"
)
_HEDGE = (
    r"(?:\s?(?:most\slikely|more\slikely|likely|probably|clearly|definitely|certainly|obviously|indeed|therefore|thus"
    r"|then|simply|just|closest\sto|close\sto|nearest\sto|either\sway|perhaps|in\sfact|approximately|about))"
)
_BEST = (
    r"(?:best|correct|right|closest|nearest|only|final|(?:most\s(?:appropriate|likely|plausible|suitable|accurate"
    r"|reasonable|logical|probable|fitting|sensible|correct)))"
)
_NOUN = r"(?:answer|option|choice|alternative|response|match|statement|selection|one|fit|letter)"
# Words for "answer" before a colon or a verb, in the languages that fine-tuning data is most often in.
_OTHER_ANSWER = (
    r"Antwort|R[ée]ponse|Respuesta|Resposta|Risposta|Antwoord|Odpowied[źz]|Odpov[ěe][ďd]|Cevap|Yan[ıi]t|Jawaban"
    r"|Đáp\sán|Câu\strả\slời|Svar|Vastaus|Válasz|Răspuns|Απάντηση|Ответ|Відповідь|الإجابة|الاجابة|الجواب|پاسخ|جواب"
    r"|תשובה|उत्तर|उत्तर|উত্তর|பதில்|సమాధానం|คำตอบ"
)
_OTHER_BE = (
    r"(?:ist|lautet|est|es|é|è|is|to|jest|är|er|on|este|είναι|adalah|ialah|là|هي|هو|है|হল|คือ|это|[-–—])"
)


_ANSWER = (
    r"\banswers?\b(?:\s(?:choice|option|letter))?[\"'*_)]{0,3}(?:\sto\s(?:the|this)\s(?:\w+\s)?question)?"
)
_WORD = r"(?:(?:option|choice|letter|text|textbf|mathrm|mathbf|选项|選項|选|選)\s{0,2}[({（\[]?\s{0,2})?"
# What is right before the letter of an answer. It is looked for only there: a scan of the whole text for
# so many forms would cost ten times as much.
_SLOT = re.compile(
    r"(?:<answer>|\\boxed\s?\{|####"
    rf"|{_ANSWER}\s?(?:[:：=]|(?:would|should|must|will|could)?\s?{_BE}\b:?)(?:\s?(?:the|option|choice)\b)?"
    rf"{_HEDGE}{{0,2}}:?"
    rf"|\b{_BEST}\s(?:\w+\s){{0,2}}?{_NOUN}s?\s(?:here\s|among\sthese\s)?(?:{_BE}\b:?|[:：]){_HEDGE}{{0,2}}"
    r"|\b(?:choose|choosing|chose|pick|select|go\swith|going\swith|opt\sfor|vote\sfor|settle\son|lean\stowards?)\b"
    r"(?:\s(?:the|option|choice|letter|answer))?:?"
    r"|\b(?:most\slikely|likely\sto\sbe|appears\sto\sbe|seems\sto\sbe|closest\sto)\b"
    r"|(?:答案|正解|答え|回答|解答|正确选项|正確選項|正确的选项)(?:应该|應該|应|應|只能|就|可能|最可能)?"
    r"(?:是|为|為|选|選|は|係)?[】\])\s]{0,3}[:：]?"
    r"|(?:정답|답)(?:은|는|이|가)?\s?[:：]?"
    r"|(?:选择|選擇|选|選)(?!项|項)(?:了|择|定)?[:：]?"
    rf"|(?:{_OTHER_ANSWER})(?:\s[a-zà-ÿа-я]{{3,14}})?\s?(?:[:：]|{_OTHER_BE}\s))"
    rf"[\s*_`\"'‘“(（\[【「{{$\\<]{{0,8}}{_WORD}\Z",
    re.IGNORECASE,
)
# "Therefore, B." where the letter ends the line.
_CONCLUSION = re.compile(
    rf"\b(?:therefore|thus|hence|so),?\s(?:it\s{_BE}\s)?{_HEDGE}{{0,1}}[\s*_(\[]{{0,4}}\Z", re.IGNORECASE
)
_ENDS_LINE = re.compile(r"[\s*_)\].]{0,4}?(?:\Z|\n)")
_AFFIRMED = re.compile(
    rf"[)\]*]{{0,3}}\s(?:is|seems|appears|would\sbe|must\sbe|looks)\s(?:\w+\s){{0,2}}?(?:the\s)?{_BEST}\b"
    r"|(?:选项|選項|项|項)?(?:的说法|说法)?(?:才是|是|为|為)?"
    r"(?:正确|正確|对的|對的|是对|最合适|最合適|最佳|符合题意|符合題意)",
    re.IGNORECASE,
)
_OPTION_WORD = re.compile(r"(?:\b(?:option|choice)\s|(?:选项|選項)\s?)\Z", re.IGNORECASE)
# A is an article and I a pronoun: they are letters where no word follows that goes on.
_GOES_ON = re.compile(
    r"\s(?!because\b|since\b|as\b|which\b|for\b|due\b|is\b|and\b|or\b|if\b|given\b|seems\b|appears\b)[a-z]"
)
_ALONE = re.compile(
    r"\W*(?:(?:the\s)?(?:option|choice|answer|letter)|选项|選項|选|選)?\W*([A-Z])(?:选项|選項|项|項)?\W*",
    re.IGNORECASE,
)
_BEFORE = 90
"""Characters before a letter in which its cue is looked for."""
_MOST_LETTERS = 60
"""Letters that are looked at, from the end."""


@lru_cache
def _letter(last: str) -> re.Pattern[str]:
    """A capital letter by itself. No `\\b`: a Korean or Japanese word may follow without a space."""
    return re.compile(rf"[A-{last}](?<![A-Za-zÀ-ɏ0-9_'’\\][A-{last}])(?![A-Za-zÀ-ɏ0-9_'’])")


@lru_cache
def _start(last: str) -> re.Pattern[str]:
    """A letter that opens an answer, with what sets it off."""
    return re.compile(
        rf"[\s*_`\"'(（\[【]{{0,6}}(?:(?!I)([A-{last}])(?:[).:：）\]】,、。．]|\s{{0,2}}\n|\s[-–]|[*_`\"']|\Z)"
        r"|(I)[).:\]])"
    )


@lru_cache
def _more(last: str) -> re.Pattern[str]:
    """Another letter beside the one just read."""
    return re.compile(
        r"[)\]*_\"'）\s]{0,4}(?:\s?(?:or|and|and/or|nor)\s|\s?[/&,、，或和与]\s?(?:or\s|and\s)?)"
        rf"(?:option\s|choice\s)?[(\[*_\"'（]{{0,4}}([A-{last}])(?![\w'])(?!\s(?!or\b|and\b)[a-z])"
    )


_EDGE = " \t\r\n.,:;!?*_`\"'()[]{}<>$#-。、，：；！？（）【】「」"
_DENIED_BEFORE = re.compile(
    r"(?:\bnot|n't|\bexcept|\bexclude|\beliminate|\brule\sout|\brules\sout|\bnor|\bneither|\binstead\sof|\brather\sthan|排除|不选|不選|不是|而不是)"
    r"\s{0,2}(?:option\s|choice\s|选项)?[(\[*]{0,3}\Z",
    re.IGNORECASE,
)
_DENIED_AFTER = re.compile(
    r"[)\]*）]{0,3}[^.!?。\n]{0,20}?(?:\b(?:is|are|was|seems|would\sbe|can\sbe|could\sbe)\s(?:\w+\s)?(?:not\b|n't|in\w+|wrong|false|un\w+|im\w+"
    r"|ruled|eliminated|excluded|a\spossibility|possible|plausible|tempting|also)|isn't|cannot|can't|doesn't|不正确|不正確|错|錯|不对|不對|不符|不合)",
    re.IGNORECASE,
)
_TAIL = 4_000


def read(text: str, last: str = LETTERS[-1]) -> LetterReading:
    """Read a model's whole output: the letter, the rule that read it or the reason that nothing did.

    Args:
        text: The output.
        last: The last letter that may be an answer.
    """
    said = visible(text)
    if said.reason is not None:
        return LetterReading(None, None, said.reason)
    core = said.text.strip(_EDGE).upper()
    if len(core) == 1 and "A" <= core <= "Z":
        return LetterReading(core, "bare", None)
    alone = _ALONE.fullmatch(said.text) if len(said.text) < 60 else None
    if alone and alone[1].isupper():
        return LetterReading(alone[1], "bare", None)
    tail = said.text[-_TAIL:]
    # "a" and "b" in lower case are words; a letter is only read in upper case.
    letters = list(_letter(last).finditer(tail))[-_MOST_LETTERS:]
    for letter in reversed(letters):
        if _is_answer(tail, letter):
            return _settled(letter[0], "slot", _more(last).match(tail, letter.end()))
    first = _start(last).match(said.text)
    if first and not _DENIED_AFTER.match(said.text, first.end()):
        another = (
            _more(last).match(said.text, first.end(1 if first[1] else 2)) if len(said.text) < 30 else None
        )
        if another is None or another[1] == (first[1] or first[2]):
            return LetterReading(first[1] or first[2], "first_letter", None)
    mentioned = {letter[0] for letter in letters if _is_mentioned(tail, letter)}
    if len(mentioned) == 1:
        return LetterReading(mentioned.pop(), "only_letter", None)
    return LetterReading(None, None, "several_letters" if mentioned else "no_letter")


def _settled(letter: str, rule: str, another: re.Match[str] | None) -> LetterReading:
    if another and another[1] != letter:
        return LetterReading(None, None, "several_letters")
    return LetterReading(letter, rule, None)


def _is_answer(text: str, letter: re.Match[str]) -> bool:
    """Whether what is around a letter says that it is the answer."""
    start, end = letter.span()
    if letter[0] in "AI" and _GOES_ON.match(text, end):
        return False
    before = text[max(0, start - _BEFORE) : start]
    if _SLOT.search(before) or (_CONCLUSION.search(before) and _ENDS_LINE.match(text, end)):
        return True
    return bool(_AFFIRMED.match(text, end)) and not _DENIED_BEFORE.search(before)


def _is_mentioned(text: str, letter: re.Match[str]) -> bool:
    """Whether a letter is named as an option, and not ruled out."""
    start, end = letter.span()
    before, after = text[max(0, start - 24) : start], text[end : end + 2]
    # In `\ln(A)` it is a variable.
    in_brackets = (
        before[-1:] in ("(", "（") and after[:1] in (")", "）") and not re.search(r"[\w\\].\Z", before)
    )
    if not (in_brackets or (before.endswith("**") and after == "**") or _OPTION_WORD.search(before)):
        return False
    return not _DENIED_BEFORE.search(before) and not _DENIED_AFTER.match(text, end)


def extract(text: str) -> str | None:
    """Return the letter an output settles on, or None.

    >>> extract("(B) Paris"), extract("A good question. The answer is **C**."), extract("A or B")
    ('B', 'C', None)
    """
    return read(text).letter


def score(prediction: str, reference: str) -> Score:
    """Compare the letter in `prediction` with the one in `reference`.

    Returns:
        `accuracy` 1.0 or 0.0.

    Raises:
        ValueError: The reference holds no letter: the data is wrong, not the model.
    """
    wanted = extract(reference)
    if wanted is None:
        raise ValueError(f"the reference must be a letter from A to Z, not {reference[:80]!r}")
    reading = read(prediction, max(wanted, LETTERS[-1]))
    return Score(
        values={"accuracy": float(reading.letter == wanted)},
        parsed=reading.letter,
        reference=wanted,
        rule=reading.rule,
        reason=reading.reason,
    )


def aggregate(scores: Sequence[Score]) -> Mapping[str, float]:
    """Accuracy, the share without a letter, and the accuracy of always giving the most frequent reference."""
    if not scores:
        return {}
    n = len(scores)
    references = [score.reference for score in scores]
    return {
        "accuracy": sum(score.values["accuracy"] for score in scores) / n,
        "majority_accuracy": max(references.count(letter) for letter in set(references)) / n,
        "unparsed_rate": sum(score.parsed is None for score in scores) / n,
    }


METRIC = Metric(
    name="multiple_choice",
    score=score,
    aggregate=aggregate,
    figures=(
        Figure(name="accuracy"),
        Figure(name="majority_accuracy", label="majority baseline", descriptive=True, detail=True),
        UNPARSED,
    ),
    select_by="accuracy",
    classes={letter: (letter, f" {letter}", f"({letter}", f" ({letter}") for letter in LETTERS},
    default_max_new_tokens=16,
)
