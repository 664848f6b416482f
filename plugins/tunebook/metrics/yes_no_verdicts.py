"""Verdicts without the words yes and no, e.g. "I would not recommend it", and why there may be none."""

from __future__ import annotations

import re

from tunebook.metrics.yes_no_words import Answer

_REFUSAL = re.compile(
    r"\b(?:as an ai|i'm sorry|i am sorry|i apologi[sz]e|(?:can't|cannot|can not|unable to|not able to"
    r"|won't|will not)"
    r" (?:help|assist|answer|provide|comply|respond|give|make))\b",
    re.IGNORECASE,
)
_HEDGE = re.compile(
    r"\b(?:maybe|perhaps|possibly|unclear|unsure|uncertain|unknown|undecided|not sure|not certain"
    r"|not clear|not enough"
    r"|insufficient|depends|depending|hard to|difficult to|impossible to|may or may not|might|could"
    r"|either way"
    r"|don't know|do not know|(?:can't|cannot) (?:tell|say|determine|know|decide|be determined)|unable to"
    r"|not possible|whether|no way to|no idea|neither|50/50|fifty|if|mixed)\b",
    re.IGNORECASE,
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
    r"(?:correct|right|true|(?P<untrue>false|wrong|incorrect))\W{0,3}$",
    re.IGNORECASE,
)
_NEGATION = re.compile(r"\b(?:not|never|unlikely|cannot|hardly|no|doubt)\b|n't", re.IGNORECASE)
_POOR = frozenset({"poor", "bad", "weak", "terrible", "unsuitable", "wrong"})
_SENTENCE = 300


def verdict(text: str) -> Answer | None:
    """The verdict a text states in other words; None where it hedges or states two."""
    if _HEDGE.search(text):
        return None
    verdicts: set[Answer] = set()
    for match in _VERDICT.finditer(text):
        # Enough of the sentence before to see "I don't think the user would like it".
        sentence = (
            re.split(r"[.!?;\n]", text[max(0, match.start() - _SENTENCE) : match.start()])[-1] + match[0]
        )
        negations = len(_NEGATION.findall(sentence))
        negations += (match["quality"] or "").lower() in _POOR
        negations += match["disliking"] is not None or match["untrue"] is not None
        verdicts.add("no" if negations % 2 else "yes")
    return verdicts.pop() if len(verdicts) == 1 else None


def refuses(text: str) -> bool:
    """Whether a text declines to answer."""
    return _REFUSAL.search(text) is not None


def hedges(text: str) -> bool:
    """Whether a text says that it could be either."""
    return _HEDGE.search(text) is not None
