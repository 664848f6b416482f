"""Each yes and no of a text that states an answer, and the choice among them.

"No" also is a determiner (`no reason`), a number (`No. 5`) and a title (`Dr. No`); both words are quoted,
asked, reported, negated and offered as options. Such words state nothing and are ignored.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from tunebook.metrics.yes_no_words import Answer, lower_case, words


class YesNoReading(NamedTuple):
    """What was read, and how."""

    answer: Answer | None
    rule: str | None
    """None exactly when `answer` is."""
    reason: str | None
    """None exactly when `answer` is not."""


class Hit(NamedTuple):
    """A word that states an answer."""

    start: int
    end: int
    answer: Answer


# --------------------------------------------------------------------------------------------- preparing

_MARKUP = re.compile('[*_`~#"]')
_ASCII_MARKUP = str.maketrans(dict.fromkeys('*_`~#"', " "))
_OUTER_QUOTE = re.compile(r"'(?:(?<!\w')|(?!\w))")
# Begins with a set of characters, which `re` looks for first, but not where the whole pattern ignores case.
_OPTIONS = re.compile(
    r"[ynYN](?<![\w'][ynYN])(?i:(?:es|o)(?:\W{0,3}(?:/|\||\bor\b|\bnor\b)\W{0,3}|\s{1,3}(?:and"
    r"|&)\W{1,3})(?:an?\s)?"
    r"(?:yes|no)(?![\w'-])|\s?/\s?n(?!\w))"
)


def plain(text: str) -> str:
    """The text without emphasis and quotation marks; characters keep their places."""
    # `translate` is the faster one for ASCII and ten times slower for anything else.
    text = text.translate(_ASCII_MARKUP) if text.isascii() else _MARKUP.sub(" ", text)
    return _OUTER_QUOTE.sub(" ", text)


def without_options(text: str) -> str:
    """The text without its `yes or no`, `Yes/No` and `yes and no`; characters keep their places."""
    # A word in their place, so that "no yes or no answer" still is a determiner with its noun.
    return _OPTIONS.sub(lambda found: "x" * len(found[0]), text)


def has_options(text: str) -> bool:
    """Whether a text names both words as options."""
    return _OPTIONS.search(text) is not None


# ------------------------------------------------------------------------------------------------- words

# Of a text in lower case. Begins with a set of characters, which `re` looks for first; what is before it is
# checked afterwards.
_WORD = re.compile(r"[yn](?:es+|ep|eah?|up|o+|ope|a[hy])(?![\w'])(?!-\w)")
_WORDS: dict[str, Answer] = {
    # "yes" and "yess": the trailing letters are dropped.
    **dict.fromkeys(("ye", "yep", "yeah", "yea", "yup"), "yes"),
    **dict.fromkeys(("no", "nope", "nah", "nay"), "no"),
}
# After "no", a word of this list belongs to a new clause; any other makes it a determiner ("no reason").
_NEW_CLAUSE = words(
    """the this that these those it its it's he he's she she's they they're their i i'm i'd i'll i've we we'd
    you a an my our his her in on for from to with at by as is are was were would wouldn't will won't should
    shouldn't can could may might do don't does doesn't did didn't because since due given based considering
    although though but and or if unless when while so then not never thanks thank sorry unfortunately
    probably definitely absolutely certainly sir maam ma'am really actually however according after before
    there there's here what who how why which please they'd they'll he'd she'd he'll she'll per overall
    honestly clearly likely thats that's too am nope nah no yes yep instead rather over creo le lo me se es"""
)
_NEXT_WORD = re.compile(r"[ \t]{1,4}([^\W\d_][\w']{0,30})")
_NUMBERED = re.compile(r"\.?[ \t]?\d")
_NAMED = re.compile(r"\b(?:dr|mr|band|movie|film|album|song|titled|called|named|group)\.? \Z", re.IGNORECASE)
_A_WORK = re.compile(
    r"\sis an?\s(?:[\w-]{1,12}\s){0,3}(?:film|movie|band|album|song|book|series|show|game|sitcom)\b"
)
_NEGATED = re.compile(
    r"(?:\bnot|n't|\bnever|\brather than|\binstead of|\bneither|\bnor|\bover)\s{1,3}"
    r"(?:(?:an?|the|quite|really|be|say|saying|necessarily|definite|definitively|clear|simple|answer"
    r"|with|it's|is)"
    r"\s{1,3}){0,4}\Z",
    re.IGNORECASE,
)
DISBELIEF = re.compile(
    r"(?:n't|\bnot)\s(?:think|believe|feel|expect|suppose)\b[^.;,!?\n]{0,40}\Z", re.IGNORECASE
)
"""Before an answer that is not the speaker's: "I don't think the answer is yes"."""
_ABILITY = re.compile(
    r"\b(?:can't|cannot|can not|couldn't|could not|unable to|hard to|difficult to"
    r"|wrong to|incorrect to)\s[\w' ]{0,24}\Z",
    re.IGNORECASE,
)
_REPORTED = re.compile(
    r"\b(?:said|answered|replied|voted|responded|told \w{1,12})\s{1,3}(?:that\s)?(?:an?\s)?\Z", re.IGNORECASE
)
_OTHERS = re.compile(
    r"\b(?:others?|some|many|people|critics|fans)(?:\s[\w']{1,12}){0,4}\s{1,3}\Z", re.IGNORECASE
)
_BY_ME = re.compile(r"\bI\b[^.]{0,20}\Z")
_MODAL = re.compile(
    r"\b(?:might|may|could)\s{1,3}(?:(?:well|also|even|still|possibly)\s){0,2}(?:be|say|mean|answer)\s{1,3}"
    r"(?:an?\s|either\s)?\Z",
    re.IGNORECASE,
)
_CONDITION = re.compile(
    r"\b(?:if(?! (?:i|forced|asked|pressed|we|you)\b)|unless|assuming|provided)\b[^.!?;\n]{0,200}\Z"
    r"|\b(?:otherwise|if not|else)\W{1,3}\Z",
    re.IGNORECASE,
)
_CONDITIONAL = ("if", "unless", "assuming", "provided", "otherwise", "else")
# Without one of these words before it, none of the patterns above can match: most words are plain answers.
_TRIGGERS = words(
    """not never than instead neither nor over cannot can could unable hard difficult wrong incorrect said
    answered replied voted responded told might may other others some many people critics fans"""
)
_BEFORE = 60
_CLAUSE = 200


def hits(text: str) -> list[Hit]:
    """Each yes and no of a `plain` text that states an answer, in order."""
    found = []
    for match in _WORD.finditer(lower_case(text)):
        start = match.start()
        word = text[start : match.end()].lower()
        said = _WORDS.get(word[:2] + word[2:].rstrip("so"))
        if said is None or (start and not _may_precede(text, start)):
            continue
        answer = _stated(text, start, match.end(), said)
        if answer is not None:
            found.append(Hit(start, match.end(), answer))
    return found


def _may_precede(text: str, start: int) -> bool:
    """Whether a word can begin at `start`: not inside another, nor after a hyphen as in `say-no`."""
    before = text[start - 1]
    if before == "-":
        return start < 2 or not text[start - 2].isalnum()
    return not (before.isalnum() or before in "_'")


def _stated(text: str, start: int, end: int, answer: Answer) -> Answer | None:
    """The answer one word states; None for a name, a question, a report, a possibility or a condition."""
    if _is_part_of_a_name(text, start, end, answer) or _is_asked(text, start, end):
        return None
    clause = text[max(0, start - _CLAUSE) : start].lower()
    if any(word in clause for word in _CONDITIONAL) and _CONDITION.search(clause):
        return None
    nearby = clause[-_BEFORE:]
    if "n't" not in nearby and _TRIGGERS.isdisjoint(nearby.split()):
        return answer
    before = text[max(0, start - _BEFORE) : start]
    if _REPORTED.search(before) and not _BY_ME.search(before):
        return None
    if _MODAL.search(before) or _ABILITY.search(before) or _OTHERS.search(before):
        return None
    negated = _NEGATED.search(before) or DISBELIEF.search(before)
    if not negated:
        return answer
    # "not yes" is a no. "not no" is nothing, nor is what follows "rather than".
    turned = negated[0].lower().startswith(("not", "n't", "never"))
    return "no" if answer == "yes" and turned else None


_ASKS = re.compile(r"\W{0,3}(?:is|are|was|does|do|did|would|should|can|could|will)\b", re.IGNORECASE)


def _is_asked(text: str, start: int, end: int) -> bool:
    """Whether the word ends a question; `Umm, yes?` is an answer all the same."""
    if text[end : end + 3].lstrip()[:1] != "?":
        return False
    if _ASKS.match(text, 0, start):
        return True
    return start > _BEFORE or text[end:].strip(" ?!") != "" or _START.match(text[:start]) is None


def _is_part_of_a_name(text: str, start: int, end: int, answer: Answer) -> bool:
    """Whether the word belongs to a noun phrase, a number or a title: `no reason`, `No. 5`, `Yes Man`."""
    capital = text[start].isupper()
    if capital and _A_WORK.match(text, end):
        return True
    if capital and _NAMED.search(text[max(0, start - 8) : start]):
        return True
    following = _NEXT_WORD.match(text, end)
    if answer == "yes":
        return following is not None and capital and _is_title(following[1])
    if _NUMBERED.match(text, end):
        return True
    return following is not None and following[1].lower() not in _NEW_CLAUSE


def _is_title(word: str) -> bool:
    lower = word.lower()
    return (
        len(word) > 1
        and word.istitle()
        and lower not in _NEW_CLAUSE
        and not lower.startswith(("user", "answer"))
    )


# ----------------------------------------------------------------------------------------- one of them

_START = re.compile(
    r"\W{0,12}(?:(?:well|oh|hmm+|um+|uh+|ok|okay|sure|honestly|so|a|an|definitely|probably|likely"
    r"|clearly|certainly"
    r"|sorry|i|i'd|think|say|would|believe|in|my|opinion|the|answer|is|it's|its|short|tl;dr|user"
    r"|unfortunately"
    r"|ah|hi|hello|absolutely|hell|for|that's)\W{1,4}){0,6}\Z",
    re.IGNORECASE,
)
_TAKEN_BACK = (
    r"to answer (?:your|the|this) question|wait|actually|scratch that|correction|on second thought|i mean"
    r"|reconsider|hmm|oops|make that|change my (?:mind|answer)"
)
_CONCLUDED = (
    r"so|therefore|thus|hence|overall|in the end|in conclusion|finally|in short|ultimately|on balance"
    r"|all in all"
    r"|in summary|to sum up|conclusion|sorry|rather|final answer|all things considered"
)
_LINK = (
    r"\W{1,4}(?:(?:it|is|it's|its|the|a|an|would|be|should|i|i'd|i'll|say|think|my|that|probably|likely"
    r"|definitely|clearly|still|just|overall|final|go|with|for|that's|he|she|they|will|we|can|conclude|answer"
    r"|no wait|wait|actually|to|recommendation|must|has|your|question)\W{1,4}){0,7}\Z"
)
_CORRECTION = re.compile(rf"\b(?:{_TAKEN_BACK}){_LINK}", re.IGNORECASE)
_TURN = re.compile(rf"\b(?:{_TAKEN_BACK}|{_CONCLUDED}){_LINK}", re.IGNORECASE)
_PERHAPS = re.compile(r"\b(?:maybe|perhaps|possibly)\s(?:an?\s)?\Z", re.IGNORECASE)
_DIVIDED = re.compile(
    r"\b(?:otherwise|if not|depends|depending|either way)\b|\b(?:yes|no) (?:if|for|when)\b", re.IGNORECASE
)


def choose(text: str, found: list[Hit]) -> YesNoReading:
    """One of the words: the first where the text opens with it and nothing takes it back, else the last."""
    opens = found[0].start < _CLAUSE and _START.match(text[: found[0].start]) is not None
    if len({hit.answer for hit in found}) == 1:
        return YesNoReading(found[0].answer, "first_word" if opens else "only_word", None)
    for hit in reversed(found[1:]):
        if _TURN.search(text[max(0, hit.start - _BEFORE - 20) : hit.start]):
            return YesNoReading(hit.answer, "conclusion", None)
    if all(_PERHAPS.search(text[max(0, hit.start - 12) : hit.start]) for hit in found):
        return YesNoReading(None, None, "hedge")
    if opens:
        return YesNoReading(found[0].answer, "first_word", None)
    if _DIVIDED.search(text):
        return YesNoReading(None, None, "hedge")
    return YesNoReading(found[-1].answer, "last_word", None)


def corrected(text: str, found: list[Hit], after: int) -> Answer | None:
    """The last answer after `after` that "wait" or "actually" leads to."""
    for hit in reversed(found):
        if hit.start > after and _CORRECTION.search(text[max(after, hit.start - _BEFORE - 20) : hit.start]):
            return hit.answer
    return None
