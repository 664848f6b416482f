"""Brings LaTeX, mathematical signs and local spellings of numbers to plain text. Repeats are bounded."""

from __future__ import annotations

import math
import re

_FRACTION = re.compile(r"\\[dtc]?frac\s?(?:\{([^{}]{1,60})\}|(\d))\s?(?:\{([^{}]{1,60})\}|(\d))")
_ROOT = re.compile(r"\\sqrt\s?\{?\s?(\d{1,12})\s?\}?")
_RADICAL = re.compile(r"√\s?\(?(\d{1,12})\)?")
_BLANKS = re.compile(r" {2,}")
_SPACING = re.compile(r"(?<=\d)(?:\\[,;:! ]|\{,\}|~)(?=\d{3}(?!\d))")
_WRAPPER = re.compile(
    r"\\(?:text|textbf|textit|textrm|mathrm|mathbf|mathit|operatorname|mbox|bf|rm|left|right"
    r"|displaystyle|boxed|fbox"
    r"|quad|qquad|underline|bm|boldsymbol|begin|end|hline|,|;|!|:| )(?![a-z])"
)
_UNIT_POWER = re.compile(r"(?<=[A-Za-z}])\s?\^\s?\{?-?\d\}?")
_DEGREE = re.compile(r"\^\s?\{?\s?\\circ\s?\}?|\\circ|\\degree|°")
_OPERATORS = (
    ("\\times", "*"), ("\\cdot", "*"), ("\\div", "/"), ("\\approx", "="), ("\\rightarrow", "="),
    ("\\implies", "="), ("\\Rightarrow", "="), ("\\to", "="), ("\\equiv", "="), ("\\pm", "±"), ("\\%", "%"),
    ("\\$", "$"), ("\\\\", "\n"), ("&", " "), ("\\#", "#"),
)  # fmt: skip
_SIGNS = str.maketrans({"×": "*", "÷": "/", "·": "*", "≈": "=", "→": "=", "⇒": "=", "≃": "=", "∗": "*"})


def _root(found: re.Match[str]) -> str:
    root = math.isqrt(int(found[1]))
    return str(root) if root * root == int(found[1]) else " root "


def plain_math(text: str) -> str:
    """Replace LaTeX and mathematical signs by their plain spelling: `\\frac{1}{2}` becomes `(1)/(2)`."""
    if not text.isascii():
        text = _RADICAL.sub(_root, text.translate(_SIGNS))
    if "\\" in text:
        text = _ROOT.sub(_root, text)
        text = _SPACING.sub(",", text.replace("\\!", ""))
        for _ in range(2):
            text = _FRACTION.sub(lambda found: f" {found[1] or found[2]}/{found[3] or found[4]} ", text)
        for command, sign in _OPERATORS:
            text = text.replace(command, sign)
        text = _DEGREE.sub(" ", text)
        text = _UNIT_POWER.sub(" ", text)
        text = _WRAPPER.sub(" ", text)
        text = text.replace("{,}", ",").replace("{", " ").replace("}", " ")
        return _BLANKS.sub(" ", text)
    if "^" in text:
        text = _UNIT_POWER.sub(" ", text)
    return text.replace("{,}", ",")


_DECIMAL_COMMA = re.compile(
    r"(?<![\d.,])(\d{1,3}),(\d{1,2})(?=\s?(?:€|EUR|euros?|zł|kr)(?!\w))"
    r"|(?<=€)\s?(\d{1,4}),(\d{1,2})(?![\d,])",
    re.IGNORECASE,
)
_MIXED = re.compile(r"(?<![\d.])(\d{1,4})-(\d{1,3}/\d{1,3})(?![\d/])")
_AND_A_HALF = re.compile(r"(?<![\d.])(\d{1,6}) and (?:a|one)[ -]half(?!\w)", re.IGNORECASE)
_CENTS = re.compile(
    r"(?<![\d.])(\d{1,9})(?: dollars?,?(?: and)?|,? and) (\d{1,2}) cents?(?!\w)", re.IGNORECASE
)


def plain(text: str) -> str:
    """`plain_math`, with a decimal point in `12,50 EUR`, `3 and a half` and `$4 and 50 cents`.

    >>> plain("1,5 EUR"), plain("1-1/2 cups")
    ('1.5 EUR', '1 1/2 cups')
    """
    text = plain_math(text)
    if "," in text:
        text = _DECIMAL_COMMA.sub(lambda found: f"{found[1] or found[3]}.{found[2] or found[4]}", text)
    if "-" in text:
        text = _MIXED.sub(r"\1 \2", text)
    lowered = text.lower()
    if "half" in lowered:
        text = _AND_A_HALF.sub(r"\1.5", text)
    if "cent" in lowered:
        text = _CENTS.sub(lambda found: f"{found[1]}.{found[2]:0>2} dollars", text)
    return text
