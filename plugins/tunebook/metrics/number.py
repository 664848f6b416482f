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

from tunebook.metrics.number_words import SCALES, value_of_words


class Number(NamedTuple):
    """A number read, or why there is none."""

    value: Fraction | None
    reason: str | None
    """None exactly when `value` is not: `no_number`, `list`, `range` or `time`."""


class Token(NamedTuple):
    """One number of a text, with its sign, currency and scale."""

    value: Fraction
    start: int
    """Where its sign or currency begins."""
    end: int
    currency: bool


# ---------------------------------------------------------------------------------------------- LaTeX

_FRACTION = re.compile(r"\\[dtc]?frac\s?(?:\{([^{}]{1,60})\}|(\d))\s?(?:\{([^{}]{1,60})\}|(\d))")
_SPACING = re.compile(r"(?<=\d)(?:\\[,;:! ]|\{,\}|~)(?=\d{3}(?!\d))")
_WRAPPER = re.compile(
    r"\\(?:text|textbf|textit|textrm|mathrm|mathbf|mathit|operatorname|mbox|bf|rm|left|right|displaystyle|boxed|fbox"
    r"|quad|qquad|underline|bm|boldsymbol|begin|end|hline|,|;|!|:| )(?![a-z])"
)
_UNIT_POWER = re.compile(r"(?<=[A-Za-z}])\s?\^\s?\{?-?\d\}?")
_DEGREE = re.compile(r"\^\s?\{?\s?\\circ\s?\}?|\\circ|\\degree|°")
_OPERATORS = (
    ("\\times", "*"), ("\\cdot", "*"), ("\\div", "/"), ("\\approx", "="), ("\\rightarrow", "="), ("\\implies", "="),
    ("\\Rightarrow", "="), ("\\to", "="), ("\\equiv", "="), ("\\pm", "±"), ("\\%", "%"), ("\\$", "$"), ("\\\\", "\n"), ("&", " "), ("\\#", "#"),
)  # fmt: skip
_SIGNS = str.maketrans({"×": "*", "÷": "/", "·": "*", "≈": "=", "→": "=", "⇒": "=", "≃": "=", "∗": "*"})


def plain_math(text: str) -> str:
    """Replace LaTeX and mathematical signs by their plain spelling: `\\frac{1}{2}` becomes `(1)/(2)`."""
    if not text.isascii():
        text = text.translate(_SIGNS)
    if "\\" in text:
        text = _SPACING.sub(",", text.replace("\\!", ""))
        for _ in range(2):
            text = _FRACTION.sub(lambda found: f" {found[1] or found[2]}/{found[3] or found[4]} ", text)
        for command, sign in _OPERATORS:
            text = text.replace(command, sign)
        text = _DEGREE.sub(" ", text)
        text = _UNIT_POWER.sub(" ", text)
        text = _WRAPPER.sub(" ", text)
        return text.replace("{,}", ",").replace("{", " ").replace("}", " ")
    if "^" in text:
        text = _UNIT_POWER.sub(" ", text)
    return text.replace("{,}", ",")


# --------------------------------------------------------------------------------------------- tokens

_LITERAL = re.compile(
    r"""
      \d{1,3}(?:\.\d{3}){1,8},\d{1,2}(?!\d)                                       # 1.234,56
    | \d{1,3}(?:\.\d{3}){2,8}(?![\d.,])                                            # 1.234.567
    | \d{1,3}(?:,\d{3}){1,8}(?!\d)(?!,\d)(?:\.\d{1,40})?                           # 1,234.56
    | \d{1,2}(?:,\d{2}){1,6},\d{3}(?!\d)(?!,\d)                                    # 12,34,567 (lakh)
    | \d{1,3}(?:['_]\d{3}){1,8}(?!\d)(?:\.\d{1,40})?                               # 1'234
    | \d{1,3}(?:\ \d{3}){1,8}(?!\d)(?![.,]\d{3})(?:\.\d{1,40})?                    # 1 234
    | \d{1,60}(?!\d)(?:\.\d{1,40}(?!\d))?(?:[eE][-+]?\d{1,2}(?!\w))?               # 42, 4.2e1
    | \.\d{1,40}(?!\d)
    """,
    re.VERBOSE,
)
_DIGIT_RUN = re.compile(r"\d+")
_CURRENCY = r"(?:(?:US|CA|AU|A|C|HK)?[$€£¥₹₽₩]|Rs\.?|USD|EUR|GBP)"
_PREFIX = re.compile(
    rf"(?P<sign>(?:[-–+]|\b(?:minus|negative))\ ?)?(?P<currency>{_CURRENCY}\ ?)?(?P<inner>-\ ?)?\Z", re.IGNORECASE
)
_PREFIX_ENDS = ("-", "–", "+", "$", "€", "£", "¥", "₹", "₽", "₩", ".", "minus", "negative", "usd", "eur", "gbp", "rs")
_LONGEST_PREFIX = 12
_SCALE = re.compile(rf"[ -]?(?:({'|'.join(SCALES)})s?(?![\w])|(k|bn)(?!\w))", re.IGNORECASE)
_ORDINAL = re.compile(r"(?:st|nd|rd|th)\b", re.IGNORECASE)
_DECIMAL_COMMA = re.compile(
    r"(?<![\d.,])(\d{1,3}),(\d{1,2})(?=\s?(?:€|EUR|euros?|zł|kr)(?!\w))|(?<=€)\s?(\d{1,4}),(\d{1,2})(?![\d,])",
    re.IGNORECASE,
)
_MIXED = re.compile(r"(?<![\d.])(\d{1,4})-(\d{1,3}/\d{1,3})(?![\d/])")
_AND_A_HALF = re.compile(r"(?<![\d.])(\d{1,6}) and (?:a|one)[ -]half(?!\w)", re.IGNORECASE)
_CENTS = re.compile(r"(?<![\d.])(\d{1,9})(?: dollars?)?,? and (\d{1,2}) cents?(?!\w)", re.IGNORECASE)
_CLOCK = re.compile(
    r"(?<![\d:])\d{1,4}:\d{1,4}(?!\d)|(?<!\d)\d{1,4}/\d{1,2}/\d{1,4}(?!\d)|(?<!\d)\d{4}-\d{2}-\d{2}(?!\d)"
)
_MAX_EXPONENT = 60


def plain(text: str) -> str:
    """`plain_math`, with a point in `12,50 EUR`, `3 and a half` and `$4 and 50 cents`, and `1-1/2` as `1 1/2`."""
    text = plain_math(text)
    if "," in text:
        text = _DECIMAL_COMMA.sub(lambda found: f"{found[1] or found[3]}.{found[2] or found[4]}", text)
    if "-" in text:
        text = _MIXED.sub(r"\1 \2", text)
    if " and " in text:
        text = _AND_A_HALF.sub(r"\1.5", text)
        text = _CENTS.sub(lambda found: f"{found[1]}.{found[2]:0>2} dollars", text)
    return text


def tokens(text: str) -> list[Token]:
    """Every number of a text in which `plain` has been applied, in order; ordinals where there is nothing else."""
    found: list[Token] = []
    ordinals: list[Token] = []
    at = 0
    while run := _DIGIT_RUN.search(text, at):
        at = run.end()
        start = _start(text, run.start())
        literal = None if start is None else _LITERAL.match(text, start)
        if start is None or literal is None:
            continue
        at = max(at, literal.end())
        value = _value(literal[0])
        begin, negative, currency = _prefix(text, start)
        scale = _SCALE.match(text, at)
        if scale:
            value *= SCALES[(scale[1] or scale[2]).lower()]
        token = Token(-value if negative else value, begin, scale.end() if scale else at, currency)
        (ordinals if _ORDINAL.match(text, at) else found).append(token)
        at = token.end
    return found or ordinals


def _start(text: str, run: int) -> int | None:
    """Where the number begins whose digits begin at `run`; None inside a word, or behind another number's point."""
    before = text[max(0, run - 3) : run]
    if before[-1:] == ".":
        if before[-2:-1].isdigit():
            return None
        return run if before[-2:-1].isalpha() else run - 1
    if before[-1:].isalpha() or before[-1:] == "_":
        return run if before.lower().endswith(("rs", "usd", "eur", "gbp")) else None
    return run


class _Prefix(NamedTuple):
    begin: int
    negative: bool
    currency: bool


def _prefix(text: str, start: int) -> _Prefix:
    window = text[max(0, start - _LONGEST_PREFIX) : start]
    if not window.rstrip(" ").lower().endswith(_PREFIX_ENDS):
        return _Prefix(start, negative=False, currency=False)
    match = _PREFIX.search(window)
    assert match is not None  # every part of it is optional
    begin = start - len(window) + match.start()
    negative = match["inner"] is not None or _is_negative(text[:begin][-3:], match["sign"])
    return _Prefix(begin, negative, currency=match["currency"] is not None)


def _value(number: str) -> Fraction:
    number = number.replace("'", "").replace("_", "").replace(" ", "")
    if "," in number and number.rfind(",") > number.rfind(".") >= 0 or number.count(".") > 1:
        number = number.replace(".", "").replace(",", ".")
    return Fraction(number.replace(",", ""))


def _is_negative(before: str, sign: str | None) -> bool:
    """Whether what stands before a number is its sign and not a hyphen, an operator or a separator."""
    if not sign or sign[0] == "+":
        return False
    if sign[0] not in "-–":
        return True
    if before.rstrip(" ")[-1:].isdigit() or before.rstrip(" ").endswith((")", "%")) or before[-1:].isalnum():
        return False
    # "Total - 42" separates; "-42" and a lone "- 42" are negative.
    return not (sign.endswith(" ") and before.strip())


# ---------------------------------------------------------------------------------------- one number

_OPERATOR = re.compile(r"[\s(]{0,4}(\*\*|[-+*/^x])[\s(]{0,4}\Z")
_CLOSERS = re.compile(r"(?: ?\)){0,3}")
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
    r"\s{0,2}(?:[^\W\d]{1,16}\s?){0,2}(?:[,;&]|,?\s?\b(?:and|or)\b)(?:\s(?:maybe|perhaps|possibly|even))?\s{0,2}\Z",
    re.IGNORECASE,
)
_BARE_LIST = re.compile(
    r"\s{0,2}(?:[,;&]|,?\s?\band\b|(?:[^\W\d]{1,16}\s?){0,2},?\s?\bor\b(?:\s\w{1,10})?)\s{0,2}\Z",
    re.IGNORECASE,
)
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
    text = right_hand_side(plain(segment))
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
        if any(character.isdigit() for character in right) or value_of_words(right) is not None:
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
            elif _RANGE.match(gap) or (_BETWEEN.search(text[: found[start - 1].start]) and "and" in gap):
                reason = "range"
            elif (_LIST if first else _BARE_LIST).match(gap):
                reason = reason or "list"
            elif first:
                break
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
