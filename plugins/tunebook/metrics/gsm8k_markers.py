"""Finds the last marked answer: a `####` line, a complete `\\boxed{}`, an `<answer>` or a field of JSON."""

from __future__ import annotations

import re
from typing import NamedTuple

from tunebook.metrics import number
from tunebook.metrics.gsm8k_prose import last_number, main_number
from tunebook.metrics.number import Number
from tunebook.metrics.number_words import SCALES


class Marked(NamedTuple):
    """What a marker holds."""

    number: Number
    rule: str


# Each alternative begins with one character, so that `re` looks for those three first.
_MARKER = re.compile(r"##{2,5}|\\f?boxed\s?|<(?:final_)?answer>", re.IGNORECASE)
_TAG_END = re.compile(">(?<=[Aa][Nn][Ss][Ww][Ee][Rr]>)")
_TAIL = 4_000
"""Characters from the end that are searched first, since the last marker wins."""
_MAX_MARKERS = 40
_LINE = 200

NOTHING = re.compile(
    r"[\s*:$]{0,6}(?:n/?a\b|none\b|null\b|nan\b|unknown|undefined|undetermined|cannot|can't|not "
    r"|no (?:answer|solution)"
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
    return None if found.reason == "no_number" and (heading or following.strip()) else found


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
    """Content of the braces that open at `start`, with a scale behind them; None where they never close."""
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
