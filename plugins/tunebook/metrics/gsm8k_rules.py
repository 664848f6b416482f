"""Rules that find the final number of a worked answer; `gsm8k` is the metric built on them.

The order: the last marked answer (a `####` line, a complete `\\boxed{}` or `<answer>`), a JSON field, the last
"answer is" clause, and else the last sentence that states a number. A marked answer that is no single
number, a refusal and an output that stops inside its work are unparsed: an earlier number is a step.
"""

from __future__ import annotations

import re
from fractions import Fraction
from typing import NamedTuple

from tunebook.metrics import number
from tunebook.metrics.number import Number, Token
from tunebook.metrics.number_words import SCALES, value_of_words
from tunebook.metrics.response import before_next_question


_ANSWERED = re.compile(r"\d")


class Reading(NamedTuple):
    """What was read, and how."""

    value: Fraction | None
    rule: str | None
    """None exactly when `value` is."""
    reason: str | None
    """None exactly when `value` is not."""


def read(text: str) -> Reading:
    """Read the final number out of a visible answer.

    Args:
        text: What `response.visible` returned, not empty.
    """
    text = before_next_question(text, _ANSWERED)
    taken_back = _taken_back(text)
    if taken_back is not None:
        return taken_back
    marked = _marked(text)
    if marked is not None:
        return marked
    field = _json_field(text)
    if field is not None:
        return field
    clause = _answer_clause(text)
    if clause is not None:
        return clause
    if _REFUSAL.search(text):
        return Reading(None, None, "refusal")
    return _last_sentence(text)


def _reading(found: Number, rule: str) -> Reading:
    if found.value is None:
        return Reading(None, None, found.reason)
    return Reading(found.value, rule, None)


# ---------------------------------------------------------------------------------------- taken back

_TAKEN_BACK = re.compile(
    r"(?:^|[.!?\n]\s{0,3})(?:\(?)(?:oh,? |no,? |but |hmm,? |oops,? ){0,2}(?:wait|correction|scratch that|on second thought|oops|"
    r"(?:sorry,? )?i (?:have )?made (?:a|an) (?:\w{1,12} )?(?:mistake|error)|let me (?:re-?check|correct|redo|re-?calculate|fix)|actually)\b",
    re.IGNORECASE,
)


def _taken_back(text: str) -> Reading | None:
    """The number that follows an explicit "wait" or "correction" after a first answer."""
    last = None
    for last in _TAKEN_BACK.finditer(text):
        pass
    if last is None or not any(character.isdigit() for character in text[: last.start()][-4_000:]):
        return None
    rest = text[last.end() :]
    for reading in (_marked(rest), _answer_clause(rest)):
        if reading is not None:
            return reading
    found = _last_sentence(rest)
    return found if found.value is not None else None


# -------------------------------------------------------------------------------------------- markers

_MARKER = re.compile(r"#{3,6}|\\f?boxed\s?|<answer>|<final_answer>", re.IGNORECASE)
_NOTHING = re.compile(
    r"[\s*:$]{0,6}(?:n/?a\b|none\b|null\b|nan\b|unknown|undefined|undetermined|cannot|can't|not |no (?:answer|solution)|error|impossible|\?)",
    re.IGNORECASE,
)
_HEADING = re.compile(
    r"\s{0,4}\**(?:step|part|solution|explanation|calculation|given|breakdown|summary|note|reasoning|day|week)\b|\s{0,4}\d{1,2}[.)]\s{1,3}\**[A-Za-z]",
    re.IGNORECASE,
)
_LINE = 200
_ALTERNATIVE = re.compile(r"\}[\s$)]{0,4}(?:or|and)[\s$(]{0,4}\Z")
_AFTER_BOX = re.compile(
    rf"[\s$]{{0,4}}(?:\\text\{{)?\s?({'|'.join(word for word in SCALES if len(word) > 2)})s?\b", re.IGNORECASE
)


def _marked(text: str) -> Reading | None:
    """The last marked answer. A heading (`#### Step 2: ...`) and an empty box mark none."""
    if "##" not in text and "boxed" not in text and "nswer>" not in text.lower():
        return None
    cut_box: str | None = None
    # From the end and at most a few: an output in a loop repeats its marker thousands of times.
    for match in reversed(list(_MARKER.finditer(text))[-40:]):
        if match[0][0] == "#":
            found = _hash_line(text, match)
            rule = "hash_line"
        elif match[0][0] == "<":
            found = _tagged(text[match.end() : match.end() + 4_000])
            rule = "answer_tag"
        else:
            content = _box(text, match.end())
            if content is None:
                cut_box = text[match.end() :].strip(" {$\\")
                continue
            found = _boxed(content) if content.strip() else None
            if found and _ALTERNATIVE.search(text[max(0, match.start() - 16) : match.start()]):
                found = Number(None, "list")
            rule = "boxed"
        if found is None:
            continue
        if cut_box and not _agrees(cut_box, found):
            break
        return _reading(found, rule)
    return Reading(None, None, "cut") if cut_box is not None else None


def _agrees(cut: str, found: Number) -> bool:
    """Whether a box that was cut off repeats the beginning of the answer before it."""
    return found.value is not None and str(found.value).startswith(cut.replace(",", ""))


def _hash_line(text: str, match: re.Match[str]) -> Number | None:
    rest = text[match.end() : match.end() + 4_000]
    if text[: match.start()].endswith("\\"):
        return None
    line, _, following = rest.partition("\n")
    line = line.strip().removesuffix("</s>")
    if not line.strip(" :*"):
        line = following.lstrip("\n ").partition("\n")[0]
        if len(match[0]) != 4 or _HEADING.match(line):
            return None
        following = ""
    if not line.strip():
        return None
    if _NOTHING.match(line):
        return Number(None, "no_number")
    label = _LABEL.match(line)
    if label:
        value_line = line[label.end() :].strip(" *")
        if not value_line:
            value_line = following.lstrip("\n ").partition("\n")[0]
        return _main_number(value_line[:_LINE])
    if len(match[0]) != 4 or (following.strip() and _HEADING.match(line)):
        return None
    found = _main_number(line[:_LINE])
    if found.value is None and found.reason == "no_number" and (following.strip() or _HEADING.match(line)):
        return None
    return found


_LABEL = re.compile(
    r"\s{0,4}\**(?:the )?(?:final |correct )?(?:answer|result)\**(?:\s?[:=]|\s{1,3}is\b|\s{0,3}$)",
    re.IGNORECASE,
)


def _tagged(rest: str) -> Number | None:
    content = re.split(r"</", rest, maxsplit=1)[0].strip()
    if not content:
        return None
    clause = _answer_clause(content)
    if clause is not None:
        return Number(clause.value, clause.reason)
    return _main_number(content.rpartition("\n")[2][:_LINE])


def _box(text: str, start: int) -> str | None:
    """Content of the braces that open at `start`, a bare number without braces, or None where it is cut."""
    if start >= len(text):
        return None
    if text[start] != "{":
        return text[start:].partition("\n")[0].partition("$")[0][:40].split(" and ")[0]
    depth = 0
    for at in range(start, min(len(text), start + 400)):
        if text[at] == "{":
            depth += 1
        elif text[at] == "}":
            depth -= 1
            if not depth:
                tail = _AFTER_BOX.match(text, at + 1)
                return text[start + 1 : at] + (f" {tail[1]}" if tail else "")
    return None


def _boxed(content: str) -> Number:
    if _NOTHING.match(content.replace("\\text{", "")):
        return Number(None, "no_number")
    return number.single(content)


# ----------------------------------------------------------------------------------------------- JSON

_FIELD = re.compile(
    r"[\"'](?:final[_ ]?answer|answer|result|solution|value|output)[\"']\s{0,3}:\s{0,3}(?:[\"']([^\"'\n]{0,120})[\"']|(-?[\d.,eE+]{1,40})|(null|None))",
    re.IGNORECASE,
)


def _json_field(text: str) -> Reading | None:
    last = None
    for last in _FIELD.finditer(text):
        pass
    if last is None:
        return None
    return _reading(number.single((last[1] or last[2] or "").rstrip(",")), "json")


# --------------------------------------------------------------------------------------------- clauses

_ANSWER = re.compile(
    r"\b(?:answer|ans|respuesta|réponse|antwort|risposta|resposta|ответ)\b"
    r"(?:[*_]{0,2}\s?(?:[:=]|->|→|[-–]\s)|[^.:=\n]{0,80}?(?:\b(?:is|are|was|be|equals|es|est|ist|é)\b(?! (?:found|given|obtained|calculated|the (?:sum|product|number|amount|total) of))[*_]{0,2}:?|:|=)"
    r"|[*_]{0,2}\s{0,2}\n|\.\s?(?=\d)|[*_]{0,2}\s(?=[$\d]))"
    r"|(?:答案|答え|答|정답|답)\W{0,2}(?:是|は|은|为|為)?[：:]?"
    r"|^\**(?:A|Final|Result|Total|Conclusion|Therefore)\**\s?[:=]",
    re.IGNORECASE | re.MULTILINE,
)
_FILLER = re.compile(
    r"[\s*_:$(\\{\"'`=≈~-]{0,12}(?:(?:approximately|about|around|roughly|exactly|simply|just|only|now|therefore|thus|then|a|the|total|of|equal|to|is|in|that|"
    r"he|she|it|they|there|are|will|be|would|has|have|had|spent|earns|needs|makes|final|number|amount|text|boxed|mathbf|textbf|not|no|minus|negative|either|between|clearly|indeed|still|approx)\.?[\s*_:$(\\{\"'`=≈~-]{1,8}){0,7}",
    re.IGNORECASE,
)
_SENTENCE_END = re.compile(r"[.!?](?=[\s*)\"']|$)(?<!\bRs\.)(?<!i\.e\.)(?<!e\.g\.)|\n|。")
_GOES_ON = re.compile(r"=|\b(?:so|therefore|thus|hence|total|altogether|in all|finally)\b", re.IGNORECASE)


def _answer_clause(text: str) -> Reading | None:
    """The number of the last "answer is" clause, unless the clause only opens the worked solution."""
    for match in reversed(list(_ANSWER.finditer(text))[-12:]):
        rest = text[match.end() : match.end() + 4_000].lstrip(" \t\n*_:")
        end = _SENTENCE_END.search(rest)
        sentence = rest[: end.start()] if end else rest
        following = rest[end.end() :] if end else ""
        if not sentence.strip():
            continue
        plain = number.plain_math(sentence)
        begins_with_number = _FILLER.match(plain)
        at = begins_with_number.end() if begins_with_number else 0
        direct = (
            plain[at : at + 1].isdigit()
            or plain[at : at + 1] in ".£€¥₹"
            or value_of_words(plain[at : at + 24]) is not None
        )
        if direct and not _opens_work(sentence, following):
            found = _main_number(sentence[:_LINE])
            return _reading(found, "answer_clause")
        if _NOTHING.match(sentence):
            return Reading(None, None, "no_number")
        if any(character.isdigit() for character in sentence) or any(c.isdigit() for c in following):
            tail = _last_sentence(rest)
            return tail if tail.value is None else Reading(tail.value, "answer_clause", None)
    return None


def _opens_work(sentence: str, following: str) -> bool:
    """Whether `Answer:` is followed by steps and not by the answer: its sentence is long, and more sums follow."""
    longer = len(sentence.split()) > 5 or "=" in sentence
    return longer and any(c.isdigit() for c in following) and bool(_GOES_ON.search(following))


# ---------------------------------------------------------------------------------------------- prose

_REFUSAL = re.compile(
    r"\b(?:as an ai|i'm sorry|i am sorry|i apologi[sz]e|(?:can't|cannot|can not|unable to|not able to|impossible to|not possible to) (?:be )?"
    r"(?:help|assist|answer|determine[d]?|solve[d]?|calculate[d]?|comply|say|tell|give|know|find|provide|compute[d]?)"
    r"|not enough (?:information|data)|insufficient (?:information|data)|don't know|do not know|no idea|not sure)\b",
    re.IGNORECASE,
)
_ASIDE = re.compile(
    r"[\s*_(>-]{0,8}(?:note|n\.b\.|nb|p\.?s\.?|let me know|hope|i hope|feel free|confidence|confident|certainty|source|check|verification|explanation|disclaimer|if you|would you|remember|tip|words|tokens)\b",
    re.IGNORECASE,
)
_INDEX = re.compile(
    r"[\s*_>-]{0,6}(?:(?:step|part|day|week)\s{1,2}\d{1,2}\s{0,2}[.):-]|\(?\d{1,2}[.)])\**\s{1,3}(?=\S)",
    re.IGNORECASE,
)
_DANGLING = re.compile(
    r"(?:[=+×÷≈(\\]|\s[-*/]|\b(?:the|a|an|of|to|and|or|is|are|by|from|for|with|in|on|we|he|she|they|so|then|than|that|which|gives|"
    r"equals|plus|minus|times|into|at|have|has|per|total|number|subtract|add|multiply|divide))\s{0,3}[$*{(]{0,3}\s{0,3}\Z",
    re.IGNORECASE,
)
_CONTEXT = re.compile(
    r"\b(?:per|every|each|out of|day|step|week|part|question|grade|chapter|room|no\.|number|#)\s(?:the |all |these |her |his )?\Z|#\Z",
    re.IGNORECASE,
)
_DURATION_BEFORE = re.compile(
    r"\b(?:in|over|for|during|within|after|every|each|per)\s(?:the |all |these |those |just |only |a total of )?\Z",
    re.IGNORECASE,
)
_DURATION_AFTER = re.compile(
    r"[ -](?:\w{1,12} )?(?:second|minute|hour|day|week|month|year|night|morning|trip|round|time)s?\b",
    re.IGNORECASE,
)
_OF_WHICH = re.compile(r" (?:\w{1,14} )?of (?:which|whom|them|these|those)\b", re.IGNORECASE)
_YEAR = re.compile(r"\b(?:in|since|year|by|until) (?:19|20)\d\d\Z", re.IGNORECASE)
_FOR = re.compile(r"\bfor (?:the |all |these |his |her )?\Z", re.IGNORECASE)
_EXPLANATION = re.compile(
    r"[,;]?\s(?:which is|because|since|given that|including|as required)\b", re.IGNORECASE
)
_BRACKETS = re.compile(r"\([^()]{0,120}\)")
_BULLET = re.compile(r"^[-*•>]\s{1,3}")
_BOLD = re.compile(r"\*\*([^*\n]{1,60})\*\*")


def _last_sentence(text: str) -> Reading:
    """The number of the last sentence that states one, unless the output stops before it is done."""
    text = text.rstrip()
    sentences = _sentences(text)
    for back, sentence in enumerate(sentences):
        if sentence.endswith("?") and not _only_number(sentence):
            continue
        body = _without_index(sentence)
        if not back and _is_cut(text, body, alone=len(sentences) == 1):
            return Reading(None, None, "cut")
        found = _prose_number(body)
        if found.value is not None:
            return Reading(found.value, "last_sentence", None)
        if found.reason != "no_number":
            return Reading(None, None, found.reason)
    return Reading(None, None, "no_number")


_SPLIT = re.compile(
    r"(?<=[.!?])(?<!\d\.)(?<!i\.e\.)(?<!e\.g\.)(?<!\bRs\.)(?<!\bapprox\.)[*\"')]{0,3}\s{1,4}(?=\S)|(?<=\d\.)[*\"')]{0,3}\s{1,4}(?=[A-Z(*$\\])|\n|(?<=[。！？])"
)
_MAX_SENTENCES = 200


def _sentences(text: str) -> list[str]:
    """The last sentences, the very last first."""
    lines = text[-16_000:].split("\n")
    told = [line for line in lines if not _ASIDE.match(line)]
    # An aside ends its line: what is said after "I hope this helps!" is not the answer either.
    kept = "\n".join(told if any(character.isdigit() for line in told for character in line) else lines)
    parts = [part.strip() for part in _SPLIT.split(kept)]
    merged: list[str] = []
    for part in parts:
        if not part:
            continue
        # "3. Left: 13" is one item, though it looks like two sentences.
        if merged and re.fullmatch(r"[\s*(]{0,3}\d{1,2}\.", merged[-1]):
            merged[-1] = f"{merged[-1]} {part}"
        else:
            merged.append(part)
    return merged[::-1][:_MAX_SENTENCES]


def _only_number(sentence: str) -> bool:
    return len(sentence.split()) <= 2


def _without_index(sentence: str) -> str:
    match = _INDEX.match(sentence)
    return sentence[match.end() :] if match else sentence


def _is_cut(text: str, last: str, *, alone: bool) -> bool:
    """Whether the output stops in the middle of its work."""
    if _DANGLING.search(text):
        return True
    if alone or text[-1:] in ".!?)}]*$%\"'。`|>" or any(character.isdigit() for character in last):
        return False
    return len(last.split()) > 3


def _main_number(sentence: str) -> Number:
    """The number of a marked answer: what it equals, or its first number that is no mere context."""
    plain = number.right_hand_side(number.plain_spelling(number.plain_math(sentence.replace("*" * 2, " "))))
    found = number.tokens(plain)
    kept = [token for token in found if not _is_context(plain, token, durations=True)]
    if kept and len(kept) < len(found) and kept[0] is not found[0]:
        return number.choose(plain, kept, first=True)
    return number.single(sentence.replace("*" * 2, " "))


def _prose_number(sentence: str) -> Number:
    """The number of a sentence: the bold one, what stands after the last `=`, or the last one."""
    bold = [match for match in _BOLD.findall(sentence) if any(character.isdigit() for character in match)]
    if bold:
        return number.single(bold[-1])
    sentence = _BULLET.sub("", sentence.replace("*" * 2, " "))
    plain = _without_brackets(number.plain_spelling(number.plain_math(sentence)))
    side = number.right_hand_side(plain)
    if number.is_clock(side):
        side = number.without_clocks(side)
        if not number.tokens(side):
            return Number(None, "time")
    found = number.tokens(side)
    if not found:
        value = value_of_words(side)
        return Number(value, None if value is not None else "no_number")
    if "=" in plain and side is not plain:
        return number.choose(side, found, first=True)
    explained = _EXPLANATION.search(side, found[0].end)
    if explained:
        side = side[: explained.start()]
        found = number.tokens(side)
    kept = [token for token in found if not _is_context(side, token, durations=True)] or found
    paid = [token.start for token in kept if token.currency]
    if paid:
        kept = [
            token for token in kept if token.start <= paid[0] or not _FOR.search(side[: token.start][-12:])
        ]
    return number.choose(side, kept, first=False)


def _without_brackets(text: str) -> str:
    """Drop remarks in brackets where a number stands outside of them."""
    outside = _BRACKETS.sub(" ", text)
    return outside if any(character.isdigit() for character in outside) else text


def _is_context(text: str, token: Token, *, durations: bool) -> bool:
    """Whether a number says how long, how often or which one, and not how much."""
    before = text[max(0, token.start - 24) : token.start]
    if token.currency:
        return False
    if _CONTEXT.search(before):
        return True
    if _OF_WHICH.match(text, token.end) or _YEAR.search(before + text[token.start : token.end]):
        return True
    return durations and bool(_DURATION_BEFORE.search(before) and _DURATION_AFTER.match(text, token.end))
