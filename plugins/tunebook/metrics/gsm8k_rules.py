"""Rules that find the final number of a worked answer; `gsm8k` is the metric built on them.

The order: the last marked answer (`gsm8k_markers`), the last "answer is" clause, and else the last sentence
that states a number (`gsm8k_prose`). A marked answer that is no single number, a refusal and an output that
stops inside its work are unparsed: an earlier number is a step.
"""

from __future__ import annotations

import re
from fractions import Fraction
from typing import NamedTuple

from tunebook.metrics.gsm8k_markers import NOTHING, last_field, last_marked
from tunebook.metrics.gsm8k_prose import last_number, main_number, stops_inside
from tunebook.metrics.math_text import plain_math
from tunebook.metrics.number import Number
from tunebook.metrics.number_words import value_of_words
from tunebook.metrics.turns import before_next_question


class Reading(NamedTuple):
    """What was read, and how."""

    value: Fraction | None
    rule: str | None
    """None exactly when `value` is."""
    reason: str | None
    """None exactly when `value` is not."""


_DIGIT = re.compile(r"\d")
_TAIL = 4_000
"""Characters from the end that are searched for an answer that is not marked."""


def read(text: str) -> Reading:
    """Read the final number out of a visible answer.

    Args:
        text: What `response.visible` returned, not empty.
    """
    text = before_next_question(text, _DIGIT)
    tail = text[-_TAIL:]
    lowered = tail.lower()
    revised = _revised(tail, lowered)
    if revised is not None:
        return revised
    marked = last_marked(text) or last_field(text)
    if marked is not None:
        return _reading(marked.number, marked.rule)
    clause = _answer_clause(tail, lowered)
    if clause is not None:
        return _reading(clause, "answer_clause")
    if _refuses(text[-_OPENING:]) or (len(text) > _OPENING and _refuses(text[:_OPENING])):
        return Reading(None, None, "refusal")
    if _guesses(lowered):
        return Reading(None, None, "list")
    return _reading(last_number(text), "last_sentence")


def _reading(found: Number, rule: str) -> Reading:
    return Reading(found.value, rule if found.value is not None else None, found.reason)


# ------------------------------------------------------------------------------------- revised and refused

_REVISION_LITERALS = (
    "wait",
    "correction",
    "scratch that",
    "second thought",
    "oops",
    "mistake",
    "error",
    "let me",
    "actually",
)
_REVISES = (
    r"\(?(?:oh,? |no,? |but |hmm,? |oops,? ){0,2}(?:wait|correction|scratch that"
    r"|on second thought|oops"
    r"|(?:sorry,? )?i (?:have )?made an? (?:\w{1,12} )?(?:mistake|error)"
    r"|let me (?:re-?check|correct|redo|re-?calculate|fix)|actually)\b"
)
# Apart, since a pattern that may begin anywhere is tried at every character.
_OPENS_REVISED = re.compile(_REVISES, re.IGNORECASE)
_REVISION = re.compile(rf"[.!?\n]\s{{0,3}}{_REVISES}", re.IGNORECASE)
_REFUSAL_LITERALS = (
    "can", "unable", "not able", "not possible", "sorry", "apolog", "an ai", "not enough", "insufficient",
    "not know", "don't know", "no idea", "not sure", "impossible",
)  # fmt: skip
_REFUSAL = re.compile(
    r"\b(?:as an ai|i'm sorry|i am sorry|i apologi[sz]e|(?:can't|cannot|can not|unable to|not able to"
    r"|impossible to"
    r"|not possible to) (?:be )?(?:help|assist|answer|determine|solve|calculate|comply|say|tell|give"
    r"|know|find|provide"
    r"|compute)d?|not enough (?:information|data)|insufficient (?:information|data)|don't know"
    r"|do not know|no idea"
    r"|not sure)\b",
    re.IGNORECASE,
)
_OPENING = 300
_SECOND_GUESS = re.compile(
    r"\d[^\n=]{0,30}\b(?:but|or)\b[^\n\d]{0,20}\b(?:might be|could be|may be|maybe|perhaps|possibly)"
    r"\s\$?\d[\d.,]{0,20}\W{0,4}\Z"
)
_GUESS = re.compile(r"\b(?:could be|might be|may be|maybe|perhaps|possibly) \$?\d")
_GUESSES = {
    words: re.compile(rf"{words}\s\$?\d")
    for words in ("could be", "might be", "may be", "maybe", "perhaps", "possibly")
}
"""What each guess above holds, by its words."""


def _revised(text: str, lowered: str) -> Reading | None:
    """The number that follows an explicit "wait" or "correction" after a first answer."""
    if not any(literal in lowered for literal in _REVISION_LITERALS):
        return None
    last = _OPENS_REVISED.match(text)
    for last in _REVISION.finditer(text):  # noqa: B007
        pass
    if last is None or not _DIGIT.search(text, 0, last.start()):
        return None
    rest = text[last.end() :]
    marked = last_marked(rest)
    if marked is not None:
        return _reading(marked.number, marked.rule)
    found = _answer_clause(rest, rest.lower()) or last_number(rest)
    return _reading(found, "revised") if found.value is not None else None


def _refuses(text: str) -> bool:
    lowered = text.lower()
    return any(literal in lowered for literal in _REFUSAL_LITERALS) and _REFUSAL.search(lowered) is not None


def _guesses(lowered: str) -> bool:
    """Whether a text offers several numbers as possible."""
    if not any(words in lowered and guess.search(lowered) for words, guess in _GUESSES.items()):
        return False
    return _SECOND_GUESS.search(lowered[-_OPENING:]) is not None or len(_GUESS.findall(lowered)) > 1


# ------------------------------------------------------------------------------------------------- clauses

_IS = (
    r"\b(?:is|are|was|be|equals|es|est|ist|é)\b"
    r"(?! (?:found|given|obtained|calculated|the (?:sum|product|number|amount|total) of))[*_]{0,2}:?"
)
_ANSWER = re.compile(
    r"(?:answer|ans|respuesta|réponse|antwort|risposta|resposta|ответ)\b"
    rf"(?:[*_]{{0,2}}\s?(?:[:=]|->|→|[-–]\s)|[^.:=\n]{{0,80}}?(?:{_IS}|:|=)|[*_]{{0,2}}\s{{0,2}}\n"
    rf"|\.\s?(?=\d)"
    r"|[*_]{0,2}\s(?=[$\d]))"
    r"|(?:答案|答え|答|정답|답)\W{0,2}(?:是|は|은|为|為)?[：:]?",
    re.IGNORECASE,
)
_LABELS = (
    "answer",
    "respuesta",
    "réponse",
    "antwort",
    "risposta",
    "resposta",
    "ответ",
    "答案",
    "答え",
    "答",
    "정답",
    "답",
)
_ASCII_LABELS = ("ans ", "respuesta", "antwort", "risposta", "resposta")
_SHORT = r"\**(?=[afrct])(?:A|Ans|Final|Result|Total|Conclusion|Therefore)\**\s?[:=.](?!\d)"
_OPENS_SHORT_LABEL = re.compile(_SHORT, re.IGNORECASE)
_SHORT_LABEL = re.compile(rf"\n{_SHORT}", re.IGNORECASE)
_FILLER = re.compile(
    r"[\s*_:$(\\{\"'`=≈~-]{0,12}(?:(?:approximately|about|around|roughly|exactly|simply|just|only|now"
    r"|therefore|thus|then"
    r"|a|the|total|of|equal|to|is|in|that|he|she|it|they|there|are|will|be|would|has|have|had|spent"
    r"|earns|needs|makes"
    r"|final|number|amount|text|boxed|mathbf|textbf|not|no|minus|negative|either|between|clearly"
    r"|indeed|still|approx)\.?"
    r"[\s*_:$(\\{\"'`=≈~-]{1,8}){0,7}",
    re.IGNORECASE,
)
_SENTENCE_END = re.compile(r"[.!?](?=[\s*)\"']|$)(?<!\bRs\.)(?<!i\.e\.)(?<!e\.g\.)|\n|。")
_GOES_ON = re.compile(r"=|\b(?:so|therefore|thus|hence|total|altogether|in all|finally)\b", re.IGNORECASE)
_MAX_CLAUSES = 12
_LINE = 200


def _answer_clause(text: str, lowered: str) -> Number | None:
    """The number of the last "answer is" clause; of all that follows where the clause only opens the work."""
    for at in _clauses(text, lowered):
        rest = text[at:].lstrip(" \t\n*_:")
        end = _SENTENCE_END.search(rest)
        sentence, following = (rest[: end.start()], rest[end.end() :]) if end else (rest, "")
        if not sentence.strip():
            continue
        if not following and stops_inside(rest):
            return Number(None, "cut")
        if _begins_with_number(sentence) and not _opens_work(sentence, following):
            return main_number(sentence[:_LINE])
        if NOTHING.match(sentence):
            return Number(None, "no_number")
        if _DIGIT.search(rest):
            return last_number(rest)
    return None


def _clauses(text: str, lowered: str) -> list[int]:
    """Where the content of each clause begins, the last one first."""
    if len(lowered) != len(text):
        lowered = text
    opening = _OPENS_SHORT_LABEL.match(text)
    ends = [opening.end()] if opening else []
    ends += [match.end() for match in _SHORT_LABEL.finditer(text)]
    ends = ends[-_MAX_CLAUSES:]
    for label in _LABELS if not text.isascii() else _LABELS[:1] + _ASCII_LABELS:
        at = lowered.rfind(label)
        for _ in range(_MAX_CLAUSES):
            if at < 0:
                break
            match = _ANSWER.match(text, at)
            if match:
                ends.append(match.end())
            at = lowered.rfind(label, 0, at)
    return sorted(ends, reverse=True)


def _begins_with_number(sentence: str) -> bool:
    plain = plain_math(sentence[:_LINE])
    filler = _FILLER.match(plain)
    first = plain[filler.end() if filler else 0 :][:24]
    return (
        first[:1].isdigit()
        or first.startswith((".", "£", "€", "¥", "₹"))
        or value_of_words(first) is not None
    )


def _opens_work(sentence: str, following: str) -> bool:
    """Whether `Answer:` is followed by steps: its first sentence is long or a sum, and more sums follow."""
    longer = len(sentence.split()) > 5 or "=" in sentence
    return longer and _DIGIT.search(following) is not None and _GOES_ON.search(following) is not None
