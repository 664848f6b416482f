"""Every number of a plain text, with sign, currency and scale. Every repeat in a pattern is bounded."""

from __future__ import annotations

import re
from fractions import Fraction
from typing import NamedTuple

from tunebook.metrics.number_words import SCALES


class Token(NamedTuple):
    """One number of a text, with its sign, currency and scale."""

    value: Fraction
    start: int
    """Where its sign or currency begins."""
    end: int
    currency: bool


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
_CURRENCY = r"(?:(?:US|CA|AU|A|C|HK)?[$€£¥₹₽₩]|(?<![A-Za-z])(?:Rs\.?|USD|EUR|GBP))"
_PREFIX = re.compile(
    rf"(?P<sign>(?:[-–+]|\b(?:minus|negative))\ ?)?(?P<currency>{_CURRENCY}\ ?)?(?P<inner>-\ ?)?\Z",
    re.IGNORECASE,
)
_CURRENCY_CODE = re.compile(r"(?<![A-Za-z])(?:rs|usd|eur|gbp)\Z", re.IGNORECASE)
_PREFIX_ENDS = (
    "-",
    "–",
    "+",
    "$",
    "€",
    "£",
    "¥",
    "₹",
    "₽",
    "₩",
    ".",
    "minus",
    "negative",
    "usd",
    "eur",
    "gbp",
    "rs",
)
_LONGEST_PREFIX = 12
_SCALE = re.compile(rf"[ -]?(?:({'|'.join(SCALES)})s?(?![\w])|(k|bn)(?!\w))", re.IGNORECASE)
_ORDINAL = re.compile(r"(?:st|nd|rd|th)\b", re.IGNORECASE)


def has_digit(text: str) -> bool:
    """Whether a text holds a digit of any script."""
    if any(map(text.__contains__, "0123456789")):  # in a long text ten such scans outrun one by `re`
        return True
    return not text.isascii() and any(character.isdigit() for character in text)


def tokens(text: str) -> list[Token]:
    """Every number of a plain text, in order; its ordinals where it has no others."""
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
    """Where the number begins whose digits begin at `run`; None inside a word or a version (`1.2.3`)."""
    before = text[max(0, run - 3) : run]
    if before[-1:] == ".":
        if before[-2:-1].isdigit():
            return None
        return run if before[-2:-1].isalpha() else run - 1
    if before[-1:] == "_" and not before[-2:-1].isalnum():
        return run  # emphasis: _42_
    if before[-1:].isalpha() or before[-1:] == "_":
        return run if _CURRENCY_CODE.search(text[max(0, run - 4) : run]) else None
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
    if ("," in number and number.rfind(",") > number.rfind(".") >= 0) or number.count(".") > 1:
        number = number.replace(".", "").replace(",", ".")
    number = number.replace(",", "")
    return Fraction(int(number) if number.isdecimal() else number)


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
