"""Rules that read yes or no out of a visible answer; `yes_no` is the metric built on them.

The order: a bare answer, a marked slot (`<answer>`, a box, JSON, `Answer: X`; the last one wins), the
first word, a concluding phrase, the remaining words, and last the verdict that a sentence states
without either word ("I would not recommend it"), which is reported under its own rule, `lexical`.

Every repeat in a pattern is bounded, so that the time is linear in the length of the text.
"""

from __future__ import annotations

import re
from typing import Literal, NamedTuple

Answer = Literal["yes", "no"]


class Reading(NamedTuple):
    """What was read, and how."""

    answer: Answer | None
    rule: str | None
    """None exactly when `answer` is."""
    reason: str | None
    """None exactly when `answer` is not."""


# ------------------------------------------------------------------------------- answers that stand alone

_YES_WORDS = [
    "yes",
    "y",
    "yep",
    "yeah",
    "yup",
    "yea",
    "ya",
    "aye",
    "true",
    "correct",
    "right",
    "positive",
    "affirmative",
    "sure",
    "certainly",
    "definitely",
    "absolutely",
    "indeed",
    "recommended",
    "recommend",
    "likely",
    "agreed",
    "agree",
    "good",
    "like",
]
_NO_WORDS = [
    "no",
    "n",
    "nope",
    "nah",
    "nay",
    "false",
    "incorrect",
    "wrong",
    "negative",
    "never",
    "unlikely",
    "doubtful",
    "disagree",
    "dislike",
]
_YES_PHRASES = (
    "of course", "for sure", "i think so", "i believe so", "i guess so", "highly recommended", "very likely", "most likely",
    "highly likely", "without a doubt", "without doubt", "no doubt", "no question", "thumbs up",
)  # fmt: skip
_NO_PHRASES = (
    "not recommended", "not likely", "not really", "not at all", "of course not", "i don't think so", "i do not think so",
    "i doubt it", "absolutely not", "definitely not", "certainly not", "probably not", "likely not", "no way", "no chance",
    "not true", "not correct", "i think not", "i guess not", "not a chance", "very unlikely", "highly unlikely",
    "most unlikely", "i don't believe so", "thumbs down", "hard pass", "not good", "no thanks", "no thank you", "not yes",
    "do not recommend", "don't recommend", "not a yes",
)  # fmt: skip
# The words of other languages are read only where they stand alone, first or last.
_FOREIGN_YES = [
    "sí",
    "sì",
    "oui",
    "ja",
    "sim",
    "да",
    "はい",
    "うん",
    "ええ",
    "そうです",
    "是",
    "是的",
    "对",
    "会",
    "會",
    "会的",
    "好",
    "可以",
    "喜欢",
    "有",
    "네",
    "예",
    "응",
    "نعم",
    "हाँ",
    "हां",
    "evet",
    "tak",
    "ναι",
    "כן",
    "có",
    "igen",
    "kyllä",
    "так",
    "ใช่",
    "haan",
    "vâng",
    "jah",
    "haï",
    "hai",
    "jawohl",
    "si",
    "ano",
]
_FOREIGN_NO = [
    "non",
    "nein",
    "não",
    "nao",
    "нет",
    "いいえ",
    "いや",
    "否",
    "不",
    "不是",
    "不会",
    "不會",
    "不喜欢",
    "不可以",
    "没有",
    "不对",
    "아니요",
    "아니오",
    "아뇨",
    "아니",
    "لا",
    "नहीं",
    "hayır",
    "hayir",
    "nie",
    "όχι",
    "לא",
    "không",
    "tidak",
    "nem",
    "ei",
    "nej",
    "ні",
    "ไม่",
    "ไม่ใช่",
    "nahi",
    "nee",
    "iie",
    "ne",
]
_WHOLE: dict[str, Answer] = {
    **dict.fromkeys((*_YES_WORDS, *_YES_PHRASES, *_FOREIGN_YES), "yes"),
    **dict.fromkeys((*_NO_WORDS, *_NO_PHRASES, *_FOREIGN_NO), "no"),
}
_SIGNS: dict[str, Answer] = {
    "👍": "yes", "✅": "yes", "✔": "yes", "☑": "yes", "👎": "no", "❌": "no", "✗": "no", "✘": "no", "🚫": "no",
}  # fmt: skip
_NOT_WORD = re.compile(r"[^\w']+")


def _bare(text: str) -> Answer | None:
    """The answer of a text that consists of it: `**No.**`, `yes yes yes`, `Of course not!`."""
    if len(text) > 80:
        return None
    core = _NOT_WORD.sub(" ", text).strip(" '").casefold()
    if not core:
        signs = {_SIGNS[character] for character in text if character in _SIGNS}
        return signs.pop() if len(signs) == 1 else None
    if core in _WHOLE:
        return _WHOLE[core]
    kinds = {_WHOLE.get(word) for word in core.split()}
    return kinds.pop() if len(kinds) == 1 else None


# ------------------------------------------------------------------------------------- the two words

_MARKUP = str.maketrans(dict.fromkeys('*_`~#"|', " "))
_OUTER_QUOTE = re.compile(r"(?<!\w)'|'(?!\w)")
_ECHO = re.compile(
    r"(?<![\w'])(?:yes|no)(?:\W{0,3}(?:/|\bor\b|\bnor\b)\W{0,3}|\s{1,3}(?:and|&)\W{1,3})(?:an?\s)?(?:yes|no)(?![\w'-])"
    r"|(?<![\w'])y\s?/\s?n(?!\w)",
    re.IGNORECASE,
)
_HIT = re.compile(
    r"(?<![\w'])(?<!\w-)(?:(yes+|yep|yeah|yup|yea)|(no+|nope|nah|nay))(?![\w'])(?!-\w)", re.IGNORECASE
)

# After "no", a word of this list belongs to a new clause; any other makes it a determiner ("no reason").
_NEW_CLAUSE = frozenset(
    [
        "the",
        "this",
        "that",
        "these",
        "those",
        "it",
        "its",
        "it's",
        "he",
        "he's",
        "she",
        "she's",
        "they",
        "they're",
        "their",
        "i",
        "i'm",
        "i'd",
        "we",
        "you",
        "a",
        "an",
        "my",
        "our",
        "his",
        "her",
        "in",
        "on",
        "for",
        "from",
        "to",
        "with",
        "at",
        "by",
        "as",
        "is",
        "are",
        "was",
        "were",
        "would",
        "wouldn't",
        "will",
        "won't",
        "should",
        "shouldn't",
        "can",
        "could",
        "may",
        "might",
        "do",
        "don't",
        "does",
        "doesn't",
        "did",
        "didn't",
        "because",
        "since",
        "due",
        "given",
        "based",
        "considering",
        "although",
        "though",
        "but",
        "and",
        "or",
        "if",
        "unless",
        "when",
        "while",
        "so",
        "then",
        "not",
        "never",
        "thanks",
        "thank",
        "sorry",
        "unfortunately",
        "probably",
        "definitely",
        "absolutely",
        "certainly",
        "sir",
        "maam",
        "ma'am",
        "really",
        "actually",
        "however",
        "according",
        "after",
        "before",
        "there",
        "here",
        "what",
        "who",
        "how",
        "why",
        "which",
        "please",
        "they'd",
        "they'll",
        "he'd",
        "she'd",
        "he'll",
        "she'll",
        "per",
        "overall",
        "honestly",
        "clearly",
        "likely",
        "thats",
        "that's",
        "there's",
        "i'll",
        "i've",
        "we'd",
        "too",
        "am",
        "nope",
        "nah",
        "no",
        "yes",
        "yep",
    ]
)
_NEXT_WORD = re.compile(r"[ \t]{1,4}([^\W\d_][\w']{0,30})")
_NUMBERED = re.compile(r"\.?[ \t]?\d")
_DOCTOR = re.compile(r"\bdr\.? $", re.IGNORECASE)
_NEGATED = re.compile(
    r"(?:\bnot|n't|\bnever|\brather than|\binstead of|\bneither|\bnor|\bover)"
    r"\s{1,3}(?:(?:an?|the|quite|really|be|say|saying|necessarily|definite|definitively|clear|simple|answer|with|it's|is)\s{1,3}){0,4}$",
    re.IGNORECASE,
)
_ABILITY = re.compile(
    r"\b(?:can't|cannot|can not|couldn't|could not|unable to|hard to|difficult to)\s[\w' ]{0,24}$",
    re.IGNORECASE,
)
_REPORTED = re.compile(
    r"\b(?:said|answered|replied|voted|responded|told \w{1,12})\s{1,3}(?:that\s)?(?:an?\s)?$", re.IGNORECASE
)
_MODAL = re.compile(
    r"\b(?:might|may|could)\s{1,3}(?:well\s|also\s|even\s|still\s|possibly\s){0,2}(?:be|say|mean|answer)\s{1,3}(?:an?\s|either\s)?$",
    re.IGNORECASE,
)
_CONDITION = re.compile(
    r"(?:^|[.!?;\n])[^.!?;\n]{0,200}?\b(?:if(?! (?:i|forced|asked|pressed|we|you)\b)|unless|assuming|provided)\b[^.!?;\n]{0,200}$",
    re.IGNORECASE,
)


class _Hit(NamedTuple):
    start: int
    end: int
    answer: Answer


def _plain(text: str) -> str:
    text = text.translate(_MARKUP)
    return _OUTER_QUOTE.sub(" ", text) if "'" in text else text


def _hits(plain: str) -> list[_Hit]:
    """Each yes and no of the text that states an answer, in order."""
    hits = []
    for match in _HIT.finditer(plain):
        answer = _stated(plain, match)
        if answer is not None:
            hits.append(_Hit(match.start(), match.end(), answer))
    return hits


def _stated(plain: str, match: re.Match[str]) -> Answer | None:
    """The answer one word states: None for a determiner, a title, a question, a quotation or a condition."""
    start, end = match.span()
    answer: Answer = "yes" if match[1] else "no"
    if _is_part_of_a_name(plain, match) or plain[end : end + 3].lstrip()[:1] == "?":
        return None
    before = plain[max(0, start - 60) : start]
    if _REPORTED.search(before) and not re.search(r"\bI\b[^.]{0,20}$", before):
        return None
    if _MODAL.search(before) or _ABILITY.search(before):
        return None
    if _CONDITION.search(plain[max(0, start - 200) : start]):
        return None
    negated = _NEGATED.search(before)
    if not negated:
        return answer
    refused = negated[0].lower().startswith(("not", "n't", "never"))
    return "no" if answer == "yes" and refused else None


def _is_part_of_a_name(plain: str, match: re.Match[str]) -> bool:
    """Whether the word belongs to a noun phrase, a number or a title: `no reason`, `No. 5`, `Yes Man`."""
    word, end = match[0], match.end()
    following = _NEXT_WORD.match(plain, end)
    if match[1]:
        return bool(
            word[0].isupper()
            and following
            and following[1].istitle()
            and len(following[1]) > 1
            and following[1].lower() not in _NEW_CLAUSE
            and not following[1].lower().startswith(("user", "answer"))
        )
    if _NUMBERED.match(plain, end) or _DOCTOR.search(plain[max(0, match.start() - 4) : match.start()]):
        return True
    return bool(following) and following[1].lower() not in _NEW_CLAUSE  # type: ignore[index]


# --------------------------------------------------------------------------------------------- slots

_SLOT = re.compile(
    r"<answer>|\\boxed\s?\{|####"
    r"|\b(?:answer|prediction|verdict|decision|recommendation|conclusion|judge?ment|result|response|output|label|choice|overall"
    r"|outcome|assessment|classification|final|recommended?|summary|respuesta|réponse|antwort|risposta|resposta|ответ)s?"
    r"(?:\W{0,3}\([^()\n]{0,40}\))?(?:[ \t\"'*_`]{0,6}(?:[:=>→]|[-–—]{1,2}>?\s)|[ \t,*]{1,4}(?:is|would be|should be|must be|will be|has to be|remains|est|ist|es|é|è)\b[:,]?"
    r"|[*_\"' \t]{0,4}\n)"
    r"|(?:答案|回答|答え|答|정답|답)\W{0,3}(?:是|は|은|为)?[：: ]{0,2}",
    re.IGNORECASE,
)
_SLOT_LENGTH = 200
_SLOT_END = re.compile(r"\n|</answer>|\}")
_CLAUSE = re.compile(r"[^\w\n]{0,12}([^.,;:!?()\n{}\[\]<>。，！—]{1,40})")


def _slots(text: str) -> _Hit | None:
    """The answer in the last marked slot that holds one."""
    matches = list(_SLOT.finditer(text))[-12:]
    for match in reversed(matches):
        segment = text[match.end() : match.end() + _SLOT_LENGTH].lstrip(" \t\n*_`\"':=-")
        end = _SLOT_END.search(segment)
        segment = segment[: end.start()] if end else segment
        answer = _segment(segment)
        if answer is not None:
            return _Hit(match.start(), match.end(), answer)
    return None


def _segment(segment: str) -> Answer | None:
    plain = _plain(segment)
    clause = _CLAUSE.match(plain)
    if clause:
        answer = _bare(clause[1])
        if answer is not None and not _ECHO.search(plain):
            return answer
    plain = _ECHO.sub(" ", plain)
    hits = _hits(plain)
    if hits:
        return _of_hits(plain, hits).answer
    return _lexical(plain)


# ------------------------------------------------------------------------------------- one of the hits

_START = re.compile(
    r"\W{0,12}(?:(?:well|oh|hmm+|um|uh|ok|okay|sure|honestly|so|a|an|definitely|probably|likely|clearly|certainly|sorry|i|i'd|think|say"
    r"|would|believe|in|my|opinion|the|answer|is|it's|its|short|tl;dr|user|unfortunately|ah|hi|hello|absolutely|hell|for|that's)\W{1,4}){0,6}$",
    re.IGNORECASE,
)
_TURN = re.compile(
    r"\b(?:so|therefore|thus|hence|overall|in the end|in conclusion|finally|in short|ultimately|on balance|all in all|in summary"
    r"|to sum up|conclusion|wait|actually|scratch that|correction|on second thought|i mean|sorry|reconsider|hmm|oops|rather|"
    r"final answer|all things considered|change my (?:mind|answer)|make that)\W{1,4}"
    r"(?:(?:it|is|it's|its|the|a|an|would|be|should|i|i'd|i'll|say|think|my|that|probably|likely|definitely|clearly|still|just|overall|"
    r"final|go|with|for|that's|he|she|they|will|we|can|conclude|answer|no wait|wait|actually|to|recommendation|must|has)\W{1,4}){0,7}$",
    re.IGNORECASE,
)
_SPLIT = re.compile(
    r"\b(?:otherwise|if not|depends|depending|either way)\b|\b(?:yes|no) (?:if|for|when)\b", re.IGNORECASE
)


def _of_hits(plain: str, hits: list[_Hit]) -> Reading:
    """Choose among the words: the first if the text opens with it and nothing later takes it back."""
    kinds = {hit.answer for hit in hits}
    opens = bool(_START.match(plain[: hits[0].start])) if hits[0].start < 80 else False
    if len(kinds) == 1:
        return Reading(kinds.pop(), "first_word" if opens else "only_word", None)
    for hit in reversed(hits[1:]):
        if _TURN.search(plain[max(0, hit.start - 80) : hit.start]):
            return Reading(hit.answer, "conclusion", None)
    if opens:
        return Reading(hits[0].answer, "first_word", None)
    if _SPLIT.search(plain):
        return Reading(None, None, "hedge")
    return Reading(hits[-1].answer, "last_word", None)


# ------------------------------------------------------------------------------------ sentences without

_REFUSAL = re.compile(
    r"\b(?:as an ai|i'm sorry|i am sorry|i apologi[sz]e|(?:can't|cannot|can not|unable to|not able to|won't|will not) "
    r"(?:help|assist|answer|provide|comply|respond|give|make))\b",
    re.IGNORECASE,
)
_HEDGE = re.compile(
    r"\b(?:maybe|perhaps|possibly|unclear|unsure|uncertain|unknown|undecided|not sure|not certain|not clear|not enough|insufficient"
    r"|depends|depending|hard to|difficult to|impossible to|may or may not|might|could|either way|don't know|do not know"
    r"|can't (?:tell|say|determine|know|decide)|cannot (?:tell|say|determine|know|decide|be determined)|unable to|not possible|whether|no way to"
    r"|no idea|neither|50/50|fifty|if|what if|mixed)\b",
    re.IGNORECASE,
)
_VERB = r"(?:like|enjoy|love|recommend|buy|watch|read|play|appreciate|want|choose|click|suggest|be interested|be happy|be a good|be a great|suit|fit|match|prefer)"
_ADVERB = r"(?:\w{2,14}ly\s|also\s|very\s|much\s|still\s|most\s|not\s|never\s|probably\s|even\s|really\s|be likely to\s|be unlikely to\s){0,4}"
_VERDICT = re.compile(
    rf"\b(?:would|will|should|'d|'ll|going to|likely to|unlikely to|wouldn't|won't|shouldn't|do|don't|does not|doesn't|can't|cannot|i)\s(?P<would>{_ADVERB}){_VERB}\b"
    r"|(?:'d|'ll)\s(?P<short>)(?:like|enjoy|love)\b"
    r"|(?:^|[.!:\n]\s{0,3})(?P<not>(?:not|highly|strongly|definitely|would)\s){0,2}recommend(?:ed|able)?\b"
    r"|\b(?:is|it's|be|are|seems|looks like|as)\s(?P<is>(?:\w{2,12}\s){0,3})(?P<quality>good|great|perfect|excellent|strong|ideal|suitable|solid|poor|bad|weak|terrible|unsuitable|wrong)"
    r"\s(?:match|fit|choice|recommendation|pick|option|suggestion|for (?:this|the|them|him|her))",
    re.IGNORECASE,
)
_NEGATION = re.compile(r"\b(?:not|never|unlikely|cannot|hardly|no|isn't|doubt)\b|n't", re.IGNORECASE)
_POOR = frozenset({"poor", "bad", "weak", "terrible", "unsuitable", "wrong"})


def _lexical(plain: str) -> Answer | None:
    """The verdict of a sentence that holds neither word; None where it hedges or states two verdicts."""
    if _HEDGE.search(plain):
        return None
    verdicts: set[Answer] = set()
    for match in _VERDICT.finditer(plain):
        sentence_start = max(plain.rfind(mark, 0, match.start() + 1) for mark in ".!?;\n") + 1
        negations = len(_NEGATION.findall(plain[sentence_start : match.end()]))
        negations += (match["quality"] or "").lower() in _POOR
        verdicts.add("no" if negations % 2 else "yes")
    return verdicts.pop() if len(verdicts) == 1 else None


# ------------------------------------------------------------------------------------- probabilities

_NUMBER = r"(\d{1,3}(?:\.\d{1,8})?|\.\d{1,8})"
_PROBABILITY = re.compile(
    r"\b(?P<word>yes|no)\b[^\w%.]{0,8}(?:is |at |with )?[^\w%.]{0,3}(?P<after>\d{1,3}(?:\.\d{1,8})?|\.\d{1,8})"
    r"|(?P<before>\d{1,3}(?:\.\d{1,8})?|\.\d{1,8})\s?%\s(?:\w{1,10}\s)?(?P<second>yes|no)\b",
    re.IGNORECASE,
)


def _probabilities(plain: str) -> Answer | None:
    """The larger of two stated probabilities that add up to one."""
    stated: dict[str, float] = {}
    for match in _PROBABILITY.finditer(plain):
        stated[(match["word"] or match["second"]).lower()] = float(match["after"] or match["before"])
    if len(stated) < 2 or not any(abs(sum(stated.values()) - whole) <= 0.02 * whole for whole in (1, 100)):
        return None
    if stated["yes"] == stated["no"]:
        return None
    return "yes" if stated["yes"] > stated["no"] else "no"


# ---------------------------------------------------------------------------------------------- order

_FOREIGN = {word: answer for word, answer in _WHOLE.items() if word in {*_FOREIGN_YES, *_FOREIGN_NO}}
_FIRST_CLAUSE = re.compile(r"\W{0,8}([\w']{1,16})[,.!;:。，、！]")
_LAST_CLAUSE = re.compile(r"[\s:：,，。.?？是]([\w']{1,16})\W{0,6}$")
_TRUTH = re.compile(r":\s?(true|false)\s?[,}]", re.IGNORECASE)


def read(text: str, *, lexical: bool = True) -> Reading:
    """Read yes or no out of a visible answer.

    Args:
        text: What `response.visible` returned, not empty.
        lexical: Also accept a verdict stated without either word.
    """
    answer = _bare(text)
    if answer is not None:
        return Reading(answer, "bare", None)
    plain = _plain(text)
    answer = _probabilities(plain)
    if answer is not None:
        return Reading(answer, "probability", None)
    without_echo = _ECHO.sub(" ", plain)
    hits = _hits(without_echo)
    slot = _slots(text)
    if slot is not None:
        return Reading(slot.answer, "slot", None)
    if hits:
        return _of_hits(without_echo, hits)
    return _without_words(text, without_echo, lexical=lexical)


def _without_words(text: str, plain: str, *, lexical: bool) -> Reading:
    truths = {match.lower() for match in _TRUTH.findall(text)}
    if len(truths) == 1:
        return Reading("yes" if "true" in truths else "no", "json", None)
    for pattern in (_FIRST_CLAUSE.match(text), _LAST_CLAUSE.search(text[-40:])):
        foreign = _FOREIGN.get(pattern[1].casefold()) if pattern else None
        if foreign is not None:
            return Reading(foreign, "other_language", None)
    if _REFUSAL.search(plain):
        return Reading(None, None, "refusal")
    answer = _lexical(plain) if lexical else None
    if answer is not None:
        return Reading(answer, "lexical", None)
    if _HEDGE.search(plain):
        return Reading(None, None, "hedge")
    return Reading(None, None, "options_only" if _ECHO.search(_plain(text)) else "no_answer_word")
