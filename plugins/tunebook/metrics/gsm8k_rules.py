"""Rules that find the final number of a worked answer; `gsm8k` is the metric built on them.

The order: the last marked answer (`gsm8k_markers`), the last "answer is" clause, and else the last sentence
that states a number (`gsm8k_prose`). A marked answer that is no single number, a refusal and an output that
stops inside its work are unparsed: an earlier number is a step.
"""

from __future__ import annotations

import re
from fractions import Fraction
from typing import NamedTuple

from tunebook.metrics import number
from tunebook.metrics.gsm8k_prose import last_number, main_number, stops_inside, until_purpose
from tunebook.metrics.math_text import numbers_apart, plain_math
from tunebook.metrics.number import SCALES, Number, value_of_words
from tunebook.metrics.turns import DOES_NOT_KNOW, before_next_question, takes_back


class NumberReading(NamedTuple):
    """What was read, and how."""

    value: Fraction | None
    rule: str | None
    """None exactly when `value` is."""
    reason: str | None
    """None exactly when `value` is not."""


_DIGIT = re.compile(r"\d")
_TAIL = 4_000
"""Characters from the end that are searched for an answer that is not marked."""


def read(text: str) -> NumberReading:
    """Read the final number out of a visible answer.

    Args:
        text: What `response.visible` returned, not empty.
    """
    text = before_next_question(numbers_apart(text), _DIGIT)
    tail = text[-_TAIL:]
    lowered = tail.lower()
    revised = _revised(tail, lowered)
    if revised is not None:
        return revised
    marked = last_marked(text) or last_field(text)
    if marked is not None:
        return _reading(marked.number, marked.rule)
    clause = _answer_clause(tail, lowered)
    if (clause is None or clause.value is not None) and _taken_back(tail):
        return NumberReading(None, None, "refusal")
    if clause is not None:
        return _reading(clause, "answer_clause")
    if _refuses(text[-_OPENING:]) or (len(text) > _OPENING and _refuses(text[:_OPENING])):
        return NumberReading(None, None, "refusal")
    if _guesses(lowered):
        return NumberReading(None, None, "list")
    return _reading(last_number(text), "last_sentence")


def _reading(found: Number, rule: str) -> NumberReading:
    return NumberReading(found.value, rule if found.value is not None else None, found.reason)


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
_REVISION_CHINESE = ("不对", "不對", "更正", "重新", "等等", "等一下")
_REVISES = (
    r"\(?(?:oh,? |no,? |but |hmm,? |oops,? ){0,2}(?:wait|correction|scratch that"
    r"|on second thought|oops"
    r"|(?:sorry,? )?i (?:have )?made an? (?:\w{1,12} )?(?:mistake|error)"
    r"|let me (?:re-?check|correct|redo|re-?calculate|fix)|actually\b)"
    r"|(?:不对|不對|等等|更正|等一下|让我重新|我重新)"
)
# Apart, since a pattern that may begin anywhere is tried at every character.
_OPENS_REVISED = re.compile(_REVISES, re.IGNORECASE)
_REVISION = re.compile(rf"[.!?\n。！]\s{{0,3}}(?:{_REVISES})", re.IGNORECASE)
_REFUSAL_LITERALS = (
    "can", "unable", "not able", "not possible", "sorry", "apolog", "an ai", "not enough", "insufficient",
    "not know", "don't know", "ne sais", "lo so", "non so", "tahu", "wiem", "weet",
    "bilmiy", "no idea", "not sure", "impossible",
)  # fmt: skip
_UNKNOWING = (
    "no sé", "lo sé", "weiß", "não sei", "знаю", "biết", "りません", "らない", "でき",
    "모르", "알 수", "لا أ", "पता", "ไม่",
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


def _revised(text: str, lowered: str) -> NumberReading | None:
    """The number that follows an explicit "wait" or "correction" after a first answer."""
    if not any(map(lowered.__contains__, _REVISION_LITERALS)) and (
        text.isascii() or not any(map(text.__contains__, _REVISION_CHINESE))
    ):
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
    if any(map(lowered.__contains__, _REFUSAL_LITERALS)):
        return (_REFUSAL.search(lowered) or DOES_NOT_KNOW.search(lowered)) is not None
    return (
        not text.isascii()
        and any(map(lowered.__contains__, _UNKNOWING))
        and DOES_NOT_KNOW.search(lowered) is not None
    )


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
    r"|(?:答案|答え|答|정답|답)[^\w+$-]{0,2}(?:是|は|은|为|為)?[：:]?",
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
_SHORT_REST = 16
"""Characters after a number in which nothing can be taken back."""
# "The answer is 25%. The answer (as a fraction) is 1/4."
_OTHER_FORM = re.compile(r"\b(?:as an?|in) (?:fraction|decimal|percent|percentage|ratio)\b", re.IGNORECASE)
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
        if "=" not in sentence:
            plain = plain_math(sentence[:_LINE])
            found = number.tokens(plain)
            if found and number.is_open(plain, found):
                return Number(None, "no_number")
        if _DIGIT.search(rest):
            # "The answer is that she needs 8 weeks to collect 200 sticks."
            stated = "" if _DIGIT.search(following) or "=" in sentence else until_purpose(sentence)
            return last_number(stated or rest)
    return None


def _taken_back(text: str) -> bool:
    """Whether the answer is taken back after the last number: "However, this cannot be determined"."""
    at = max(map(text.rfind, "0123456789")) + 1
    return 0 < at < len(text) - _SHORT_REST and takes_back(text, at)


def _clauses(text: str, lowered: str) -> list[int]:
    """Where the content of each clause begins, the last one first."""
    if len(lowered) != len(text):
        lowered = text
    opening = _OPENS_SHORT_LABEL.match(text)
    ends = [opening.end()] if opening else []
    ends += [match.end() for match in _SHORT_LABEL.finditer(text)]
    ends = ends[-_MAX_CLAUSES:]
    again: list[int] = []
    for label in _LABELS if not text.isascii() else _LABELS[:1] + _ASCII_LABELS:
        at = lowered.rfind(label)
        for _ in range(_MAX_CLAUSES):
            if at < 0:
                break
            # "means that" holds "ans ".
            match = None if label[0] < "\x7f" and lowered[at - 1 : at].isalpha() else _ANSWER.match(text, at)
            if match:
                (again if _OTHER_FORM.search(match[0]) else ends).append(match.end())
            at = lowered.rfind(label, 0, at)
    return sorted(ends or again, reverse=True)


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


# Finds the last marked answer: a `####` line, a complete `\boxed{}`, an `<answer>` or a field of JSON.


class Marked(NamedTuple):
    """What a marker holds."""

    number: Number
    rule: str


# Each alternative begins with one character, so that `re` looks for those three first.
_MARKER = re.compile(r"##{2,5}|\\f?boxed\s?|<(?:final_)?answer>", re.IGNORECASE)
_TAG_END = re.compile(">(?<=[Aa][Nn][Ss][Ww][Ee][Rr]>)")
_MAX_MARKERS = 40

NOTHING = re.compile(
    r"[\s*:$]{0,6}(?:n/?a\b|none\b|null\b|nan\b|unknown|undefined|undetermined|cannot|can't|not "
    r"|(?:it )?depends|no (?:answer|solution)"
    r"|error|impossible|\?)",
    re.IGNORECASE,
)
"""An answer that says there is none."""


def last_marked(text: str) -> Marked | None:
    """The last marked answer; None where nothing is marked. A heading and an empty box mark nothing.

    A box that is cut off at the end of the output hides the answer, unless it only repeats the one before.
    """
    cut_box: str | None = None
    for match in _markers_from_the_end(text):
        rule, found = _read(text, match)
        if rule == "cut":
            cut_box = text[match.end() :].strip(" {$\\")
            continue
        if found is None:
            continue
        if cut_box and not _repeats(cut_box, found):
            break
        return Marked(found, rule)
    return Marked(Number(None, "cut"), "boxed") if cut_box is not None else None


def _markers_from_the_end(text: str) -> list[re.Match[str]]:
    if "#" not in text and "\\" not in text and "<" not in text:
        return []
    found = list(_MARKER.finditer(text, max(0, len(text) - _TAIL))) if len(text) > _TAIL else []
    if not found and ("###" in text or "boxed" in text or _TAG_END.search(text)):
        found = list(_MARKER.finditer(text))
    return found[: -_MAX_MARKERS - 1 : -1]


def _read(text: str, match: re.Match[str]) -> tuple[str, Number | None]:
    if match[0][0] == "#":
        return "hash_line", _hash_line(text, match)
    if match[0][0] == "<":
        return "answer_tag", _tagged(text[match.end() : match.end() + _TAIL])
    content = _box(text, match.end())
    if content is None:
        return "cut", None
    if not content.strip():
        return "boxed", None
    if _ALTERNATIVE.search(text[max(0, match.start() - 16) : match.start()]):
        return "boxed", Number(None, "list")
    return "boxed", Number(None, "no_number") if NOTHING.match(
        content.replace("\\text{", "")
    ) else number.single(content)


def _repeats(cut: str, found: Number) -> bool:
    return found.value is not None and str(found.value).startswith(cut.replace(",", ""))


# --------------------------------------------------------------------------------------------- #### lines

_HEADING = re.compile(
    r"\s{0,4}\**(?:step|part|solution|explanation|calculation|given|breakdown|summary|note|reasoning"
    r"|day|week)\b"
    r"|\s{0,4}\d{1,2}[.)]\s{1,3}\**[A-Za-z]",
    re.IGNORECASE,
)
_LABEL = re.compile(
    r"\s{0,4}\**(?:the )?(?:final |correct )?(?:answer|result)\**(?:\s?[:=]|\s{1,3}is\b|\s{0,3}$)",
    re.IGNORECASE,
)


def _hash_line(text: str, match: re.Match[str]) -> Number | None:
    """The number of a `#### 42` line, or of the line below a bare `####`; None for a heading."""
    line, _, following = text[match.end() : match.end() + _TAIL].partition("\n")
    exact = len(match[0]) == 4
    if not line.strip(" :*"):
        line, _, following = following.lstrip("\n ").partition("\n")
        if not exact or not line.strip() or _HEADING.match(line):
            return None
    if NOTHING.match(line):
        return Number(None, "no_number")
    label = _LABEL.match(line)
    if label:
        below = following.lstrip("\n ").partition("\n")[0]
        return main_number((line[label.end() :].strip(" *") or below)[:_LINE])
    heading = _HEADING.match(line) is not None
    if not exact or (heading and following.strip()):
        return None
    found = main_number(line[:_LINE])
    nothing = found.reason == "no_number" or (found.reason == "cut" and heading)
    return None if nothing and (heading or following.strip()) else found


# ------------------------------------------------------------------------------------------ tags and boxes

_CLOSING = re.compile("</")
_MAX_BOX = 400
_ALTERNATIVE = re.compile(r"\}[\s$)]{0,4}(?:or|and)[\s$(]{0,4}\Z")
_SCALE = re.compile(
    rf"[\s$]{{0,4}}(?:\\text\{{)?\s?({'|'.join(word for word in SCALES if len(word) > 2)})s?\b", re.IGNORECASE
)


def _tagged(rest: str) -> Number | None:
    content = _CLOSING.split(rest, maxsplit=1)[0].strip()
    if not content:
        return None
    return main_number(content) if len(content) < _LINE and "\n" not in content else last_number(content)


def _box(text: str, start: int) -> str | None:
    """Content of the braces that open at `start`, with a scale after them; None where they never close."""
    if text[start : start + 1] != "{":
        return re.split(r"[\n$]| and ", text[start : start + 40], maxsplit=1)[0]
    depth = 0
    for at in range(start, min(len(text), start + _MAX_BOX)):
        depth += (text[at] == "{") - (text[at] == "}")
        if not depth:
            scale = _SCALE.match(text, at + 1)
            return text[start + 1 : at] + (f" {scale[1]}" if scale else "")
    return None


# --------------------------------------------------------------------------------------------------- JSON

_FIELD = re.compile(
    r"[\"'](?:final[_ ]?answer|answer|result|solution|value|output)[\"']\s{0,3}:\s{0,3}"
    r"(?:[\"']([^\"'\n]{0,120})[\"']|(-?[\d.,eE+]{1,40})|(?:null|None))",
    re.IGNORECASE,
)


def last_field(text: str) -> Marked | None:
    """The last `"answer": 42` of an output that holds JSON."""
    if "{" not in text:
        return None
    found = list(_FIELD.finditer(text))
    if not found:
        return None
    return Marked(number.single((found[-1][1] or found[-1][2] or "").rstrip(",")), "json")
