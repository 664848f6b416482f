"""Reads the one number that a short piece of text states, as an exact fraction.

Understood: thousands groups, signs before or after a currency, decimals, fractions, mixed and scientific
numbers, small arithmetic (`6 * 7`), LaTeX, `2 dozen`, `7.5 million` and number words. A list, a range, a
clock time or two alternatives state no single number. Every repeat in a pattern is bounded.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from fractions import Fraction
from typing import NamedTuple

from tunebook.metrics.math_text import plain
from tunebook.metrics.number_tokens import Token, has_digit, tokens
from tunebook.metrics.number_words import value_of_words


class Number(NamedTuple):
    """A number read, or why there is none."""

    value: Fraction | None
    reason: str | None
    """None exactly when `value` is not: `no_number`, `list`, `range` or `time`."""


# Begins with a digit, which `re` looks for first; what stands before it is checked afterwards.
_CLOCK = re.compile(
    r"\d(?:(?<![\d.]\d)\d{0,2}\.\d{1,2}\.\d{1,4}(?![\d.])|(?<![\d:]\d)\d{0,3}:\d{1,4}(?!\d)"
    r"|(?<!\d\d)\d{0,3}/\d{1,2}/\d{1,4}(?!\d)|(?<!\d\d)\d{3}-\d{2}-\d{2}(?!\d))"
)
_MAX_EXPONENT = 60


_OPERATOR = re.compile(r"[\s(]{0,4}(\*\*|[-+*/^x])[\s(]{0,4}\Z")
_CLOSERS = re.compile(r"(?: ?\)){0,3}")
_EQUATIONS = re.compile(r"=[^=,;]{1,20}(?:[,;]|\band\b)\s{0,3}[A-Za-z]\w{0,10}\s{0,3}=")
_RANGE = re.compile(r"\s{0,3}(?:[-–—~±]|to|\.{2,3}|through)\s{0,3}\Z|[^.;]{0,30}\sto\s{0,3}\Z", re.IGNORECASE)
_REJECTED = re.compile(
    r"\b(?:not|rather than|instead of|isn't|over)\b[^.;]{0,16}\Z|\(\s?not\b[^)]{0,16}\Z|[≠]\s?\Z",
    re.IGNORECASE,
)
_RESTATED = re.compile(
    r"\b(?:i\.\s?e\.?|that is|in other words|meaning|equivalently|namely|or simply|aka)(?!\w)[^.;]{0,20}\Z",
    re.IGNORECASE,
)
_LIST = re.compile(
    r"\s{0,2}(?:[^\W\d]{1,16}\s?){0,2}(?:[,;&]|,?\s?\b(?:and|or)\b|\|)(?:\s(?:maybe|perhaps|possibly"
    r"|even))?\s{0,2}\Z",
    re.IGNORECASE,
)
_BARE_LIST = re.compile(
    r"\s{0,2}(?:[,;&]|,?\s?\band\b|(?:[^\W\d]{1,16}\s?){0,2},?\s?\bor\b(?:\s\w{1,10})?)\s{0,2}\Z",
    re.IGNORECASE,
)
# "7 hours 30 minutes" is one quantity in two units: which of them the question asks for is not known.
_COMPOUND = re.compile(
    r"\s?(?:hours?|hrs?|h|minutes?|mins?|feet|foot|ft|'|pounds?|lbs?|days?|weeks?|months?|years?)\s?"
)
_NEAR = 40
_BETWEEN = re.compile(r"\bbetween\b[^.;]{0,24}\Z", re.IGNORECASE)


def chain(text: str, found: Sequence[Token], at: int) -> tuple[Fraction | None, int]:
    """Value of the arithmetic that begins at token `at`, and the index behind its last token.

    The value is None where it divides by zero or would be larger than 10**60.
    """
    values, operators = [found[at].value], []
    while at + 1 < len(found):
        gap = text[_CLOSERS.match(text, found[at].end).end() : found[at + 1].start]  # type: ignore[union-attr]
        # The sign of "50 -8" was read as an operator, and stands inside the token.
        signed = text[found[at + 1].start]
        operator = _OPERATOR.match(gap)
        if operator:
            operators.append(operator[1])
        elif not gap.strip() and signed in "-–+" and found[at + 1].value >= 0:
            operators.append("+" if signed == "+" else "-")
        elif gap == " " and _is_fraction(text, found, at + 1):
            operators.append("mixed")
        else:
            break
        at += 1
        values.append(found[at].value)
    return _evaluate(values, operators), at + 1


def _is_fraction(text: str, found: Sequence[Token], at: int) -> bool:
    return at + 1 < len(found) and text[found[at].end : found[at + 1].start].strip() == "/"


def _evaluate(values: list[Fraction], operators: list[str]) -> Fraction | None:
    """Arithmetic with the usual precedence; brackets have been dropped, which flat text seldom minds."""
    if not operators:
        return values[0]
    for group in (("^", "**"), ("*", "x", "/"), ("mixed",), ("+", "-")):
        kept_values, kept_operators = [values[0]], []
        for operator, value in zip(operators, values[1:], strict=True):
            if operator not in group:
                kept_operators.append(operator)
                kept_values.append(value)
                continue
            result = _apply(operator, kept_values[-1], value)
            if result is None:
                return None
            kept_values[-1] = result
        values, operators = kept_values, kept_operators
    return values[0]


def _apply(operator: str, left: Fraction, right: Fraction) -> Fraction | None:
    if operator in ("^", "**"):
        if (
            right.denominator != 1
            or abs(right) > _MAX_EXPONENT
            or abs(left) > 1000
            or (left == 0 and right < 0)
        ):
            return None
        return left ** int(right)
    if operator == "/":
        return left / right if right else None
    if operator in ("*", "x"):
        result = left * right
        return result if abs(result) < 10**_MAX_EXPONENT else None
    if operator == "-":
        return left - right
    return left - right if operator == "mixed" and left < 0 else left + right


def single(segment: str) -> Number:
    """The one number that a marked answer states.

    >>> single("12 * 3 = $36.00 (three dozen)").value, single("-1 3/4 cups").value
    (Fraction(36, 1), Fraction(-7, 4))
    >>> single("1,2,3").reason, single("3:30").reason, single("5-7").reason
    ('list', 'time', 'range')
    """
    text = plain(segment)
    if "=" in text and _EQUATIONS.search(text):
        return Number(None, "list")
    if "±" in text:
        return Number(None, "range")
    text = right_hand_side(text)
    found = tokens(text)
    if is_clock(text):
        return Number(None, "time")
    if not found:
        value = value_of_words(text)
        return Number(value, None if value is not None else "no_number")
    return choose(text, found, first=True)


def is_clock(text: str) -> bool:
    """Whether a text holds a clock time, a ratio or a date."""
    return _CLOCK.search(text) is not None


def without_clocks(text: str) -> str:
    """The text without its clock times, ratios and dates."""
    return _CLOCK.sub(" ", text)


def right_hand_side(text: str) -> str:
    """What stands after the last `=` that has a number behind it."""
    left, equals, right = text.rpartition("=")
    while equals:
        if has_digit(right) or value_of_words(right) is not None:
            return right
        text = left
        left, equals, right = text.rpartition("=")
    return text


def choose(text: str, found: Sequence[Token], *, first: bool) -> Number:
    """One of several numbers: the first or the last that is not rejected; None for a list or a range."""
    values: list[Fraction] = []
    at, end, reason = 0, 0, None
    while at < len(found):
        start = at
        value, at = chain(text, found, start)
        if value is None:
            return Number(None, "no_number")
        if at == start + 2 and _is_range(text, found[start], found[start + 1]):
            return Number(None, "range")
        gap, end = text[end : found[start].start], found[at - 1].end
        if _REJECTED.search(gap):
            continue
        if values:
            if _RESTATED.search(gap):
                values.pop()
            elif _RANGE.match(gap) or (
                "and" in gap and _BETWEEN.search(text[: found[start - 1].start][-_NEAR:])
            ):
                reason = "range"
            elif first and _COMPOUND.fullmatch(gap):
                reason = "list"
            elif (_LIST if first else _BARE_LIST).match(gap):
                reason = reason or "list"
            elif first and gap.strip():
                break
            elif first:
                reason = "list"
            else:
                values, reason = [], None
        values.append(value)
    if not values:
        return Number(None, "no_number")
    if reason and len({*values}) > 1:
        return Number(None, reason)
    return Number(values[0] if first else values[-1], None)


def _is_range(text: str, left: Token, right: Token) -> bool:
    """`5-7` is a range and `50 - 8` a subtraction."""
    gap = text[left.end : right.start + 1].strip()
    return gap in {"-", "–", "—"} and left.value < right.value
