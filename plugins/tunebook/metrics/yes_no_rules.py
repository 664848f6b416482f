"""Rules that read yes or no out of a visible answer; `yes_no` is the metric built on them.

The order: a bare answer, two stated probabilities, a marked slot (`<answer>`, a box, JSON, `Answer: X`; the
last one wins), the words themselves (`yes_no_hits`), and last the verdict of a sentence that holds neither
word (`yes_no_verdicts`), which is reported under its own rule, `lexical`.

Every repeat in a pattern is bounded, so that the time is linear in the length of the text.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from tunebook.metrics.turns import before_next_question, takes_back
from tunebook.metrics.yes_no_chinese import is_chinese, read_chinese
from tunebook.metrics.yes_no_hits import (
    DISBELIEF,
    Hit,
    YesNoReading,
    choose,
    corrected,
    has_options,
    hits,
    plain,
    without_options,
)
from tunebook.metrics.yes_no_words import Answer, bare, distinct_words, foreign, lower_case, undecided, words

# Both words and nothing else; only one of them is a bare answer.
_ONLY_WORDS = re.compile(
    r"(?=[^y]{0,40}yes)(?=[^n]{0,40}no)\W{0,8}(?:(?:yes|no)\b[^\w?]{0,8}){2,20}", re.IGNORECASE
)
_ANSWERED = re.compile(r"\b(?:yes|no)\b", re.IGNORECASE)
_SHORT = 16
_HEAD, _TAIL = 500, 1_500
"""Characters read of a long answer: a verdict is at its beginning or at its end."""


def read(text: str) -> YesNoReading:
    """Read yes or no out of a visible answer.

    Args:
        text: What `response.visible` returned, not empty.
    """
    answer = bare(text)
    if answer is not None:
        return YesNoReading(answer, "bare", None)
    if _ONLY_WORDS.fullmatch(text) and not has_options(text):
        return YesNoReading(None, None, "options_only")
    if undecided(text):
        return YesNoReading(None, None, "hedge")
    if is_chinese(text):
        said, reason = read_chinese(
            text[-_TAIL:] if len(text) <= _TAIL else f"{text[:_HEAD]}\n{text[-_TAIL:]}"
        )
        if said is not None or reason == "hedge":
            return YesNoReading(said, "chinese" if said else None, reason)
    text = before_next_question(text, _ANSWERED)
    if len(text) > _HEAD + _TAIL:
        text = f"{text[:_HEAD]}\n{text[-_TAIL:]}"
    stripped = plain(text)
    weighed = _probabilities(stripped)
    if weighed is not None:
        return weighed
    stripped = without_options(stripped)
    found = hits(stripped)
    slot = _slot(text)
    if slot is not None:
        later = corrected(stripped, found, slot.end)
        if later is None and (slot.answer is None or takes_back(text, slot.end)):
            return YesNoReading(None, None, "hedge")
        return YesNoReading(later or slot.answer, "conclusion" if later else "slot", None)
    if found:
        chosen = choose(stripped, found)
        if chosen.rule in ("only_word", "last_word") and _concludes_otherwise(stripped, found, chosen.rule):
            return YesNoReading(None, None, "hedge")
        # "No, sí": a second language that says the opposite, in a text too short to have changed its mind.
        other = foreign(text) if chosen.answer and len(text) < _SHORT else None
        return chosen if other in (None, chosen.answer) else YesNoReading(None, None, "hedge")
    return _without_words(text, stripped)


# Answers to questions of the text's own, and a conclusion without either word: "So she has not won both".
_SO = re.compile(r"(?:[.!?\n]|\A)\W{0,3}(?:so|therefore|thus|hence|overall|in conclusion)\b[^.!?\n]{1,200}")
_NOT = re.compile(r"\b(?:not|never|cannot|neither|nor)\b|n't\b")


def _concludes_otherwise(text: str, found: list[Hit], rule: str) -> bool:
    """Whether a last "so ..." without either word follows words that differ, or denies the only one."""
    rest = lower_case(text[found[-1].end :])
    concluded = _SO.search(rest)
    return concluded is not None and (rule == "last_word" or _NOT.search(concluded[0]) is not None)


def _without_words(text: str, stripped: str) -> YesNoReading:
    truths = {match.lower() for match in _TRUTH.findall(text)}
    if len(truths) == 1:
        return YesNoReading("yes" if "true" in truths else "no", "json", None)
    answer = foreign(text)
    if answer is not None:
        return YesNoReading(answer, "other_language", None)
    wording = Wording.of(stripped)
    answer = verdict(wording)
    if answer is not None:
        return YesNoReading(answer, "lexical", None)
    if refuses(wording):
        return YesNoReading(None, None, "refusal")
    if hedges(wording):
        return YesNoReading(None, None, "hedge")
    return YesNoReading(None, None, "options_only" if has_options(text) else "no_answer_word")


# ------------------------------------------------------------------------------------------------- slots

_SEPARATOR = (
    r"(?:[ \t\"'*_`|]{0,6}(?:[:=>→|]|[-–—]{1,2}>?\s)"
    r"|[ \t,*]{1,4}(?:is|would be|should be|must be|will be|has to be|remains|est|ist|es|é|è)\b[:,]?"
    r"|[*_\"' \t]{0,4}\n)"
)
_LABELS = (
    "answer", "prediction", "verdict", "decision", "recommendation", "conclusion", "judgment", "judgement",
    "result", "response", "output", "label", "choice", "overall", "outcome", "assessment", "classification",
    "final", "recommend", "summary", "respuesta", "réponse", "antwort", "risposta", "resposta", "ответ",
)  # fmt: skip
_MARKERS = ("<answer>", "boxed", "####")
_LOCAL_MARKERS = ("答案", "回答", "答え", "答", "정답", "답")
_LABEL_END = re.compile(
    rf"(?:e?[sd])?(?:\sto\s(?:your|the|this|that)\s(?:\w{{1,10}}\s)?question)?(?:\W{{0,3}}\([^()\n]{{0,40}}\))?{_SEPARATOR}",
    re.IGNORECASE,
)
_MARKER_END = re.compile(r"[\s{]{0,2}")
_LOCAL_END = re.compile(r"\W{0,3}(?:是|は|은|为)?[：: ]{0,2}")
_SLOT_LENGTH = 200
_SLOT_END = re.compile(r"\n|</answer>|\}")
_CLAUSE = re.compile(r"[^\w\n]{0,12}([^.,;:!?()\n{}\[\]<>|。，！—]{1,40})")
_TRUTH = re.compile(r":\s?(true|false)\s?[,}]", re.IGNORECASE)
_MAX_SLOTS = 6
_UNSETTLED = re.compile(
    r"\W{0,8}(?:it\s|that\s|this\s)?(?:(?:really\s)?depends|(?:is\s|are\s)?(?:unknown|uncertain|unclear|undetermined|undecided|not\s(?:known|clear"
    r"|certain|determined|given|stated))|(?:cannot|can't|can\snot|could\snot)\sbe\s(?:determined|known|answered|said)|neither|insufficient"
    r"|not\senough|we\scannot|cannot\ssay|can't\ssay|n/?a\b|i\sdon't\sknow|maybe|possibly|undeterminable)",
    re.IGNORECASE,
)


# "yes if he is young, otherwise no"
_DIVIDED = re.compile(r"\b(?:yes|no) (?:if|when)\b[^.\n]{0,120}\b(?:otherwise|else|if not)\b", re.IGNORECASE)


# "If the answer is yes, ...", "Is the answer yes?"
_IN_CONDITION = re.compile(
    r"\b(?:if|whether|unless|(?<!so )(?<!thus )is)\s(?:(?:the|my|your|final|correct)\s){0,2}\Z", re.IGNORECASE
)


class Slot(NamedTuple):
    """What a marked place says."""

    end: int
    """Where its content begins."""
    answer: Answer | None
    """None where it says that there is none: "it depends", "cannot be determined"."""


def _slot(text: str) -> Slot | None:
    """The last marked slot that commits, or says that it cannot."""
    for start, end in _slots(text):
        before = text[max(0, start - 60) : start]
        if DISBELIEF.search(before) or _IN_CONDITION.search(before):
            continue
        content = text[end : end + _SLOT_LENGTH].lstrip(" \t\n*_`\"':=-|")
        cut = _SLOT_END.search(content)
        if _DIVIDED.search(content[: cut.start()] if cut else content):
            return Slot(end, None)
        answer = _content(content[: cut.start()] if cut else content)
        if answer is not None:
            return Slot(end, answer)
        if _UNSETTLED.match(content) or _UNSETTLED.match(text[end : end + _SLOT_LENGTH]):
            return Slot(end, None)
    return None


def _slots(text: str) -> Iterator[tuple[int, int]]:
    """Where slots begin and where their content does, the last one first."""
    lowered = text.lower()
    if len(lowered) != len(text):
        lowered = text
    places = [*_last_places(lowered, _LABELS, _LABEL_END), *_last_places(lowered, _MARKERS, _MARKER_END)]
    if not text.isascii():
        places += _last_places(text, _LOCAL_MARKERS, _LOCAL_END)
    for at, end, ending in sorted(places, key=lambda place: place[:2], reverse=True):
        inside_a_word = ending is _LABEL_END and at > 0 and text[at - 1].isalpha()
        matched = None if inside_a_word else ending.match(text, end)
        if matched:
            yield at, matched.end()


class _Place(NamedTuple):
    start: int
    end: int
    ending: re.Pattern[str]
    """What follows the word where it opens a slot."""


def _last_places(text: str, words: Iterable[str], ending: re.Pattern[str]) -> Iterator[_Place]:
    for word in words:
        at = text.rfind(word)
        for _ in range(_MAX_SLOTS):
            if at < 0:
                break
            yield _Place(at, at + len(word), ending)
            at = text.rfind(word, 0, at)


def _content(content: str) -> Answer | None:
    stripped = plain(content)
    first = _CLAUSE.match(stripped)
    if first and not has_options(stripped):
        answer = bare(first[1])
        if answer is not None:
            later = hits(stripped[first.end() :])
            if not later or later[-1].answer == answer:
                return answer
    stripped = without_options(stripped)
    found = hits(stripped)
    return choose(stripped, found).answer if found else verdict(Wording.of(stripped))


# ----------------------------------------------------------------------------------------- probabilities

_NUMBER = r"\d{1,3}(?:\.\d{1,8})?|\.\d{1,8}"
# Of a text in lower case: what every reading below needs.
_WEIGHED_YES = re.compile(r"yes\b[^\w%.]{0,8}(?:is |at |with )?[^\w%.]{0,3}\.?\d")
_SHARE_OF_YES = re.compile(r"%\s(?:\w{1,10}\s)?yes\b")
_LIKELIHOOD = re.compile(r"\b(?:probability|likelihood|chance)s? of (?:an? )?yes\b", re.IGNORECASE)
_PROBABILITY = re.compile(
    rf"\b(?P<word>yes|no)\b[^\w%.]{{0,8}}(?:is |at |with )?[^\w%.]{{0,3}}(?P<after>{_NUMBER})"
    rf"|(?P<before>{_NUMBER})\s?%\s(?:\w{{1,10}}\s)?(?P<second>yes|no)\b",
    re.IGNORECASE,
)


def _probabilities(text: str) -> YesNoReading | None:
    """The larger of two stated probabilities that add up to one."""
    lowered = lower_case(text)
    if not (_WEIGHED_YES.search(lowered) or _SHARE_OF_YES.search(lowered)):
        return None
    stated: dict[str, float] = {}
    for match in _PROBABILITY.finditer(text):
        stated[(match["word"] or match["second"]).lower()] = float(match["after"] or match["before"])
    if len(stated) == 1 and "no" not in stated and _LIKELIHOOD.search(text):
        (value,) = stated.values()
        return YesNoReading("no" if value < (0.5 if value <= 1 else 50) else "yes", "probability", None)
    if not {"yes", "no"} <= stated.keys() or not any(
        abs(sum(stated.values()) - whole) <= 0.02 * whole for whole in (1, 100)
    ):
        return None
    if stated["yes"] == stated["no"]:
        return YesNoReading(None, None, "hedge")
    return YesNoReading("yes" if stated["yes"] > stated["no"] else "no", "probability", None)


# Verdicts without the words yes and no, e.g. "I would not recommend it", and why there may be none.
#
# Each pattern here is slow over a long text, and most texts hold none of the words it needs: these are looked
# up first, among the distinct words of the text.


class Wording(NamedTuple):
    """A text as these rules read it."""

    lowered: str
    words: frozenset[str]

    @classmethod
    def of(cls, text: str) -> Wording:
        """Prepare a text."""
        lowered = lower_case(text)
        return cls(lowered, distinct_words(lowered))


_REFUSAL = re.compile(
    r"\b(?:as an ai|i'm sorry|i am sorry|i apologi[sz]e|(?:can't|cannot|can not|unable to|not able to"
    r"|won't|will not)"
    r" (?:help|assist|answer|provide|comply|respond|give|make))\b"
)
_IN_REFUSAL = words("ai sorry apologise apologize help assist answer provide comply respond give make")
_HEDGES = words(
    """maybe perhaps possibly unclear unsure uncertain unknown undecided insufficient depends depending might
    could whether neither fifty if mixed"""
)
_HEDGE = re.compile(
    r"\b(?:not (?:sure|certain|clear|enough|possible)|(?:hard|difficult|impossible|unable) to"
    r"|may or may not|either way|(?:don't|do not) know"
    r"|(?:can't|cannot) (?:tell|say|determine|know|decide|be determined)"
    r"|no way to|no idea|50/50|not known)\b"
)
_IN_HEDGE = words(
    """sure certain clear enough possible hard difficult impossible unable may either know tell say determine
    decide determined way idea 50 known"""
)
_LIKING = (
    r"(?:(?:like|love|want)(?!\sto\s(?!watch|see|read|play|try|buy|own|have|use|view|get|hear|listen))"
    r"|enjoy|recommend|buy|watch|read|play|appreciate|choose|click|suggest|suit|fit"
    r"|match|prefer"
    r"|be (?:interested|happy|pleased|a good|a great))"
)
_DISLIKING = r"(?P<disliking>hate|dislike|avoid|skip|pass|be disappointed)"
_ADVERB = (
    r"(?:(?:\w{2,14}ly|also|very|much|still|most|not|never|even|really|be likely to|be unlikely to)\s){0,4}"
)
_QUALITY = (
    r"(?P<quality>good|great|perfect|excellent|strong|ideal|suitable|solid"
    r"|poor|bad|weak|terrible|unsuitable|wrong)"
)
_VERDICT = re.compile(
    rf"\b(?:would|will|should|going to|likely to|unlikely to|wouldn't|won't|shouldn't|do|don't"
    rf"|does not|doesn't"
    rf"|can't|cannot)\s{_ADVERB}(?:{_LIKING}|{_DISLIKING})\b"
    rf"|\bi\s{_ADVERB}(?:recommend|suggest|advise)\b"
    rf"|(?:'d|'ll)\s{_ADVERB}{_LIKING}\b"
    r"|(?:^|[.!:\n]\s{0,3})(?:(?:not|highly|strongly|definitely|would)\s){0,2}recommend(?:ed|able)?\b"
    rf"|(?:^|\b(?:is|it's|be|are|seems|looks like|as)\s)(?:[\w']{{1,12}}\s){{0,3}}{_QUALITY}\s"
    r"(?:match|fit|choice|recommendation|pick|option|suggestion|for (?:this|the|them|him|her))"
    r"|\b(?:that|this|it|(?:statement|claim)(?:\b[^.!?\n]{1,80})?)(?:'s| is)\s(?:indeed\s)?(?:not\s)?"
    r"(?:correct|right|true|(?P<untrue>false|wrong|incorrect))(?:\W{0,3}$|(?<=\w)\.\s)"
    r"|\b(?:is|seems|'s)\s(?:\w{4,14}\s)?(?:unlikely|improbable|doubtful|likely|probable)\W{0,3}$"
    r"|\b(?:unlikely|improbable|doubtful|doubt)\sthat\b"
)
_IN_VERDICT = words(
    """like enjoy love recommend recommended recommendable buy watch read play appreciate want choose click
    suggest suit fit match prefer interested happy pleased good great hate dislike avoid skip pass
    disappointed advise perfect excellent strong ideal suitable solid poor bad weak terrible unsuitable wrong
    correct right true false incorrect likely probable unlikely improbable doubtful doubt"""
)
"""Every match of `_VERDICT` holds one of these words."""
_REACH = 96
"""Characters: no match begins earlier before such a word, nor ends later after it."""
_NEGATION = re.compile(
    r"\b(?:not|never|unlikely|cannot|hardly|no|doubt|doubtful|improbable"
    r"|little (?:reason|chance|doubt|evidence))\b|n't"
)
_POOR = frozenset({"poor", "bad", "weak", "terrible", "unsuitable", "wrong"})
_SENTENCE = 300
_SENTENCE_END = re.compile(r"[.!?;\n]")


def verdict(wording: Wording) -> Answer | None:
    """The verdict a text states in other words; None where it hedges or states two."""
    if wording.words.isdisjoint(_IN_VERDICT) or hedges(wording):
        return None
    text = wording.lowered
    verdicts: set[Answer] = set()
    for match in _stated(wording):
        # Enough of the sentence before to see "I don't think the user would like it".
        before = text[max(0, match.start() - _SENTENCE) : match.start()]
        sentence = _SENTENCE_END.split(before)[-1] + match[0]
        negations = len(_NEGATION.findall(sentence))
        negations += (match["quality"] or "") in _POOR
        negations += match["disliking"] is not None or match["untrue"] is not None
        verdicts.add("no" if negations % 2 else "yes")
    return verdicts.pop() if len(verdicts) == 1 else None


def _stated(wording: Wording) -> Iterator[re.Match[str]]:
    """What `_VERDICT.finditer` finds, searched for only around the words that it needs."""
    text = wording.lowered
    begin = 0
    for at in sorted(at for word in wording.words & _IN_VERDICT for at in _places(text, word)):
        if at < begin:
            continue
        match = _VERDICT.search(text, max(begin, at - _REACH), at + _REACH)
        begin = at + 1
        # One that begins after the word may have been cut, and belongs to a later word.
        if match and match.start() <= at:
            yield match
            begin = match.end()


def _places(text: str, word: str) -> Iterator[int]:
    at = text.find(word)
    while at >= 0:
        yield at
        at = text.find(word, at + len(word))


def refuses(wording: Wording) -> bool:
    """Whether a text declines to answer."""
    return not wording.words.isdisjoint(_IN_REFUSAL) and _REFUSAL.search(wording.lowered) is not None


def hedges(wording: Wording) -> bool:
    """Whether a text says that it could be either."""
    if not wording.words.isdisjoint(_HEDGES):
        return True
    return not wording.words.isdisjoint(_IN_HEDGE) and _HEDGE.search(wording.lowered) is not None
