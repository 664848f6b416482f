"""Finds the number that a sentence of prose arrives at, and sees when the prose stops too early."""

from __future__ import annotations

import re

from tunebook.metrics import number
from tunebook.metrics.math_text import plain as plain_text
from tunebook.metrics.number import Number, Token, has_digit, may_spell_a_number, tokens, value_of_words

_WINDOWS = (250, 16_000)
"""Characters from the end that are read: the answer is nearly always in the first window."""
_LONGEST_SENTENCE = 2_000
_MARGIN = 32

# Begins with a set of characters, which `re` looks for first.
_SENTENCE = re.compile(
    r"[.!?\n。！？](?:(?<=[\n。！？])"
    r"|(?<!\d\.)(?<!i\.e\.)(?<!e\.g\.)(?<!\bRs\.)(?<!approx\.)[*\"')]{0,3}\s{1,4}(?=\S)"
    r"|(?<=\d\.)[*\"')]{0,3}\s{1,4}(?=[A-Z(*$\\]))"
)
_ASIDE = re.compile(
    r"[\s*_(>-]{0,8}(?:note|n\.b\.|nb|p\.?s\.?|let me know|hope|i hope|feel free|confidence|confident"
    r"|certainty"
    r"|source|check|verification|explanation|disclaimer|if you(?![^\n]{0,200}=)|would you|remember|tip|words"
    r"|tokens|reasoning|justification|here(?:'s| is) (?:why|how))\b",
    re.IGNORECASE,
)
_INDEX = re.compile(
    r"[\s*_>-]{0,6}(?:(?:step|part|day|week)\s{1,2}\d{1,2}\s{0,2}[.):-]|\(?\d{1,2}[.)])\**\s{1,3}(?=\S)",
    re.IGNORECASE,
)
_INDEX_ONLY = re.compile(r"[\s*(]{0,3}\d{1,2}\.\Z")
_LONGEST_INDEX = 6
_DANGLING = re.compile(
    r"(?:[=+×÷≈(\\]|\s[-*/]|\b(?:the|a|an|of|to|and|or|is|are|by|from|for|with|in|on|we|he|she|they|so|then|than|that"
    r"|which|gives|equals|plus|minus|times|into|at|have|has|per|total|number|subtract|add|multiply|divide))"
    r"\s{0,3}[$*{(]{0,3}\s{0,3}\Z",
    re.IGNORECASE,
)
# "= 84 times", "= 6 books total"
_RESULT = re.compile(
    r"(?:=\s?\$?\d[\d.,]{0,12}\s(?:\w{1,12}\s){0,2}(?:times|total|in|(?:in )?number)"
    r"|\d\s(?:\w{1,12}\s){0,2}in total)\Z"
)
_REMARK = re.compile(r"\([A-Za-z][^()]{8,200}\)\Z")
_OPEN_SUM = re.compile(r"[A-Za-z][^=]{0,40}\d(?:\s?[-+*×]\s?|\s/\s)\$?\d[\d.,]{0,12}(?<![.,])\Z")
_COUNTING = 12
"""More numbers than this in one unfinished sentence are a count that the limit cut."""
_DANGLING_ENDS = frozenset("=+×÷≈(\\-*/${")
"""What such an ending ends in, other than a letter."""
_ENDINGS = frozenset(".!?)}]*$%\"'。`|>")


_ROUNDS = 4
_SHORTEST_LOOP = 24
"""Characters: 1000000000 is a number."""
_NUMBER = re.compile(r"\d[\d.,]*")
_PURPOSE = re.compile(
    r"\s(?:to (?!the\b|a\b|an\b|get\b|give\b|have\b|find\b|obtain\b|reach\b|equal\b|\d)\w{3,}"
    r"|if|for|when|while|because|since|in order|after|before)\s",
    re.IGNORECASE,
)


def last_number(text: str) -> Number:
    """The number of the last sentence that states one; `cut` where the text stops inside its work."""
    text = text.rstrip()
    if stops_inside(text) or _goes_round(text):
        return Number(None, "cut")
    found = Number(None, "no_number")
    for width in _WINDOWS:
        window = text[-width:]
        if text[-1:] in _ENDINGS and _states_nothing(window):
            continue  # a text that ends so is not cut
        whole = len(window) == len(text)
        if not whole:
            # The sentence that the window cuts in two is left to the larger one.
            begin = _SENTENCE.search(window)
            window = window[begin.end() :] if begin else ""
        found = _last_of(_sentences(window), whole=whole)
        if whole or found.reason != "no_number":
            break
    return found


def stops_inside(text: str) -> bool:
    """Whether a text ends in an operator or in a word that something must follow."""
    text = text[-_MARGIN:].rstrip()
    if not (text[-1:].isalpha() or text[-1:] in _DANGLING_ENDS):
        return False
    return _DANGLING.search(text) is not None and not _RESULT.search(text)


_LONG_DIGITS = 18
_CYCLES = range(8, 140)


def _goes_round(text: str) -> bool:
    """Whether a text was cut inside a run of digits or a sentence that it repeats."""
    if text[-_LONG_DIGITS:].isdecimal() and len(text) >= _LONG_DIGITS:
        return True
    tail = text[-_ROUNDS * _CYCLES.stop :]
    if len(tail) < 2 * _CYCLES.start:
        return False
    last = tail[-_CYCLES.start :]
    # The end of the round before: nothing nearer repeats the last characters.
    at = tail.rfind(last, 0, len(tail) - 1)
    period = len(tail) - _CYCLES.start - at
    if at < 0 or period >= _CYCLES.stop:
        return False
    cycle = tail[-period:]
    ended = tail[-1] in ".!?。！？"
    times = 2 if period >= _CYCLES.start and not ended else max(_ROUNDS, _SHORTEST_LOOP // period)
    return has_digit(cycle) and tail.endswith(times * cycle)


_ROUNDED = re.compile(r"\brounds? (?:up |down )?to (\$?\d.{0,80})")


def until_purpose(sentence: str) -> str:
    """A sentence up to what its first number is for: "8 weeks" of "8 weeks to collect 200 sticks"."""
    first = _NUMBER.search(sentence)
    purpose = _PURPOSE.search(sentence, first.end()) if first else None
    return sentence[: purpose.start()] if purpose else ""


def _last_of(sentences: list[str], *, whole: bool) -> Number:
    for back, sentence in enumerate(reversed(sentences)):
        if back and _states_nothing(sentence):
            continue
        if sentence.endswith("?") and len(sentence.split()) > 2:
            continue
        if _is_aside(sentence) and any(has_digit(earlier) for earlier in sentences[: -back - 1]):
            continue
        index = _INDEX.match(sentence)
        body = (sentence[index.end() :] if index else sentence)[-_LONGEST_SENTENCE:]
        alone = whole and len(sentences) == 1
        if not back and _is_cut(sentence, alone=alone):
            return Number(None, "cut")
        found = _number(body)
        if found.reason != "no_number":
            return found
    return Number(None, "no_number")


def _states_nothing(text: str) -> bool:
    """Whether a plain text surely holds no number; a quick look before the slow one."""
    if not text.isascii() or "\\" in text or has_digit(text):
        return False
    return not may_spell_a_number(text)


def _is_aside(sentence: str) -> bool:
    return _ASIDE.match(sentence) is not None or _REMARK.match(sentence) is not None


def _is_cut(last: str, *, alone: bool) -> bool:
    if "=" not in last and last[-1:].isdecimal() and _OPEN_SUM.search(last):
        return True
    if "=" not in last and last[-1:] not in _ENDINGS and len(_NUMBER.findall(last)) > _COUNTING:
        return True
    return not alone and last[-1:] not in _ENDINGS and not has_digit(last) and len(last.split()) > 3


def _sentences(text: str) -> list[str]:
    lines = text.split("\n")
    # An aside ends its line: what is said after "I hope this helps!" is not the answer either.
    stated = [line for line in lines if not _ASIDE.match(line)]
    if len(stated) < len(lines) and any(has_digit(line) for line in stated):
        text = "\n".join(stated)
    sentences: list[str] = []
    start = 0
    for match in [*_SENTENCE.finditer(text), None]:
        part = text[start : match.end() if match else len(text)].strip()
        start = match.end() if match else start
        if not part:
            continue
        # "3. Left: 13" is one item, though it looks like two sentences.
        if sentences and len(sentences[-1]) <= _LONGEST_INDEX and _INDEX_ONLY.match(sentences[-1]):
            sentences[-1] = f"{sentences[-1]} {part}"
        else:
            sentences.append(part)
    return sentences


# --------------------------------------------------------------------------------- numbers of a sentence

# `So the total is 3x + 6.`
_ENDS_OPEN = re.compile(
    r"(?:\d[xyzn]|\b[xyzn]\s?[-+*/]\s?\d{1,9}|[-+*/]\s?\d{0,9}[xyzn])(?:\s[a-z]{3,12})?[\s.!)。]{0,3}\Z"
)
_BOLD = re.compile(r"\*\*([^*\n]{1,60})\*\*")
_BULLET = re.compile(r"^[-*•>]\s{1,3}")
_BRACKETS = re.compile(r"\([^()]{0,120}\)")
_EXPLANATION = re.compile(
    r"[,;]?\s(?:which is|because|since|given that|including|as required|by \w{2,14}ing)\b", re.IGNORECASE
)
_WHICH_ONE = re.compile(
    r"\b(?:per|every|each|out of|day|step|week|part|question|grade|chapter|room|no\.|number)\s(?:of )?(?:the "
    r"|all |these |her |his )?\Z"
    r"|\b(?:the|those|these|all|both|than)\s\Z|#\Z",
    re.IGNORECASE,
)
_OF_WHICH = re.compile(r" (?:\w{1,14} )?of (?:which|whom|them|these|those)\b", re.IGNORECASE)
_EACH = re.compile(r" (?:\w{1,14} )?(?:each|apiece)\b", re.IGNORECASE)
_YEAR = re.compile(r"\b(?:in|since|year|by|until) (?:19|20)\d\d\Z", re.IGNORECASE)
_DURING = re.compile(
    r"\b(?:in|over|for|during|within|after|every|each|per)\s(?:the |all |these |those |just |only "
    r"|a total of )?\Z",
    re.IGNORECASE,
)
_DURATION = re.compile(
    r"[ -](?:\w{1,12} )?(?:second|minute|hour|day|week|month|year|night|morning|trip|round|time)s?\b",
    re.IGNORECASE,
)
_FOR = re.compile(r"\bfor (?:the |all |these |his |her )?\Z", re.IGNORECASE)


def main_number(sentence: str) -> Number:
    """The number of a marked answer: what it equals, or its first number that is no mere circumstance."""
    sentence = sentence.replace("**", " ")
    rounded = _ROUNDED.search(sentence) if "round" in sentence else None
    if rounded:
        sentence = rounded[1]
    plain = number.right_hand_side(plain_text(sentence))
    found = tokens(plain)
    if number.is_open(plain, found):
        return Number(None, "no_number")
    kept = [token for token in found if not _is_circumstance(plain, token)]
    if kept and kept[0] is not found[0]:
        return number.choose(plain, kept, first=True)
    return number.single(sentence)


def _number(sentence: str) -> Number:
    """The number of a sentence: the bold one, what follows the last `=`, or the last one."""
    if "**" in sentence:
        bold = [match for match in _BOLD.findall(sentence) if has_digit(match)]
        if bold:
            return number.single(bold[-1])
        sentence = sentence.replace("**", " ")
    rounded = _ROUNDED.search(sentence) if "round" in sentence else None
    if rounded:
        sentence = rounded[1]
    elif "because" in sentence or "=" not in sentence:
        sentence = until_purpose(sentence) or sentence
    plain = plain_text(_BULLET.sub("", sentence))
    outside = _BRACKETS.sub(" ", plain) if "(" in plain else plain
    side = number.right_hand_side(outside if has_digit(outside) else plain)
    found = tokens(side)
    if number.is_clock(side):
        side = number.without_clocks(side)
        found = tokens(side)
        if not found:
            return Number(None, "time")
    if not found:
        value = value_of_words(side)
        return Number(value, None if value is not None else "no_number")
    if "=" in plain and len(side) < len(outside):
        return number.choose(side, found, first=True)
    if _ENDS_OPEN.search(side[-_MARGIN:]):
        return Number(None, "cut")
    explained = _EXPLANATION.search(side, found[0].end)
    if explained:
        stated = side[: explained.start()]
        chosen = number.choose(stated, _answers(stated, tokens(stated)), first=False)
        if chosen.reason != "cut":
            return chosen
    return number.choose(side, _answers(side, found), first=False)


def _answers(text: str, found: list[Token]) -> list[Token]:
    """The numbers that may be an answer; all of them where none may."""
    kept = [token for token in found if not _is_circumstance(text, token)] or found
    paid = next((token.start for token in kept if token.currency), None)
    if paid is not None:
        # "$42 for 3 books"
        kept = [
            token for token in kept if token.start <= paid or not _FOR.search(text[: token.start][-_MARGIN:])
        ]
    return kept


def _is_circumstance(text: str, token: Token) -> bool:
    """Whether a number says how long, how often or which one, and not how much."""
    if token.currency:
        return False
    before = text[max(0, token.start - _MARGIN) : token.start]
    if _WHICH_ONE.search(before) or _OF_WHICH.match(text, token.end) or _EACH.match(text, token.end):
        return True
    if text[token.end - 4 : token.end - 2] in ("19", "20") and _YEAR.search(
        before + text[token.start : token.end]
    ):
        return True
    return bool(_DURING.search(before) and _DURATION.match(text, token.end))
