"""Brings LaTeX, mathematical signs and local spellings of numbers to plain text. Repeats are bounded."""

from __future__ import annotations

import math
import re
from fractions import Fraction

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


# Scripts without a space between a word and a number: Thai, Lao, Burmese, Khmer, Japanese, Chinese, Korean.
_UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af\uf900-\ufaff"
_NUMBER_BEGINS = re.compile(rf"(?<=[{_UNSPACED}])(?=[-+]?[$¥€£￥₩]?\d)")
_NUMBER_ENDS = re.compile(rf"(?<=[\d%])(?=[{_UNSPACED}])")
_SCALED = re.compile(
    r"(\d{1,3}(?:,\d{3}){1,6}(?:\.\d{1,9})?|\d{1,18}(?:\.\d{1,9})?)\s?(万亿|萬億|千万|百万|[万萬亿億만억])"
)
_SCALES = {"万": 4, "萬": 4, "만": 4, "百万": 6, "千万": 7, "亿": 8, "億": 8, "억": 8, "万亿": 12, "萬億": 12}
_PERCENT = re.compile(r"百分之\s?(\d{1,9}(?:\.\d{1,9})?)")


def numbers_apart(text: str) -> str:
    """Set numbers apart from the letters beside them in scripts without spaces, and write out 万 and 亿.

    >>> numbers_apart("一共有1,018个"), numbers_apart("1.8万"), numbers_apart("百分之20")
    ('一共有 1,018 个', '18000', '20%')
    """
    if text.isascii():
        return text
    text = _PERCENT.sub(r"\1%", text.replace("、", ","))
    text = _SCALED.sub(_written_out, text)
    return _NUMBER_ENDS.sub(" ", _NUMBER_BEGINS.sub(" ", text))


def _written_out(found: re.Match[str]) -> str:
    value = Fraction(found[1].replace(",", "")) * 10 ** _SCALES[found[2]]
    return f"{value.numerator}" if value.denominator == 1 else found[0]


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
