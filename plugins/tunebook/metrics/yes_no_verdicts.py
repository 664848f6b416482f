"""Verdicts without the words yes and no, e.g. "I would not recommend it", and why there may be none.

Each pattern here is slow over a long text, and most texts hold none of the words it needs: these are looked
up first, among the distinct words of the text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from tunebook.metrics.yes_no_words import Answer, distinct_words, lower_case, words


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
    r"|no way to|no idea|50/50)\b"
)
_IN_HEDGE = words(
    """sure certain clear enough possible hard difficult impossible unable may either know tell say determine
    decide determined way idea 50"""
)
_LIKING = (
    r"(?:like|enjoy|love|recommend|buy|watch|read|play|appreciate|want|choose|click|suggest|suit|fit"
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
    r"|\b(?:that|this|it|statement|claim)(?:'s| is)\s(?:indeed\s)?(?:not\s)?"
    r"(?:correct|right|true|(?P<untrue>false|wrong|incorrect))\W{0,3}$"
)
_IN_VERDICT = words(
    """like enjoy love recommend recommended recommendable buy watch read play appreciate want choose click
    suggest suit fit match prefer interested happy pleased good great hate dislike avoid skip pass
    disappointed advise perfect excellent strong ideal suitable solid poor bad weak terrible unsuitable wrong
    correct right true false incorrect"""
)
"""Every match of `_VERDICT` holds one of these words."""
_REACH = 96
"""Characters: no match begins earlier before such a word, nor ends later after it."""
_NEGATION = re.compile(r"\b(?:not|never|unlikely|cannot|hardly|no|doubt)\b|n't")
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
        # One that begins behind the word may have been cut, and belongs to a later word.
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
