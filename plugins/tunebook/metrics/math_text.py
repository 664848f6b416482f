"""Brings LaTeX, mathematical signs and local spellings of numbers to plain text. Repeats are bounded."""

from __future__ import annotations

import math
import re
from fractions import Fraction

from tunebook.metrics.scripts import UNSPACED

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
_BRACED_POWER = re.compile(r"\^\{(-?\d{1,3})\}")
_DEGREE = re.compile(r"\^\s?\{?\s?\\circ\s?\}?|\\circ|\\degree|°")
_OPERATORS = (
    ("\\times", "*"), ("\\cdot", "*"), ("\\div", "/"), ("\\approx", "="), ("\\rightarrow", "="),
    ("\\implies", "="), ("\\Rightarrow", "="), ("\\to", "="), ("\\equiv", "="), ("\\pm", "±"), ("\\%", "%"),
    ("\\$", "$"), ("\\\\", "\n"), ("&", " "), ("\\#", "#"),
)  # fmt: skip
_SIGNS = str.maketrans({"×": "*", "÷": "/", "·": "*", "≈": "=", "→": "=", "⇒": "=", "≃": "=", "∗": "*"})


# Scripts without a space between a word and a number, Korean too.
_UNSPACED = f"{UNSPACED}\uac00-\ud7af"
_NUMBER_BEGINS = re.compile(rf"(?<=[{_UNSPACED}])(?=[-+]?[$¥€£￥₩]?\d)")
_NUMBER_ENDS = re.compile(rf"(?<=[\d%])(?=[{_UNSPACED}])")
# `3万5千`, `2百万`. 千米 and 千克 are units.
_AMOUNT = r"(?:\d{1,3}(?:,\d{3}){1,6}|\d{1,18})(?:\.\d{1,9})?"
_SCALE = r"(?:(?:[十百千]?[万萬亿億만억]|[십백천][만억])[亿億]?|[百千](?![米克瓦卡])|[백천])"
_SCALED = re.compile(rf"{_AMOUNT}\s?{_SCALE}(?:\s?{_AMOUNT}\s?{_SCALE}){{0,3}}(?:\d{{1,4}}(?![\d.,:/]))?")
_SCALED_PART = re.compile(rf"({_AMOUNT})\s?({_SCALE})?")
_POWERS = dict(zip("十百千万萬亿億십백천만억", (1, 2, 3, 4, 4, 8, 8, 1, 2, 3, 4, 8), strict=True))
_HAN_DIGITS = {
    **{digit: value for value, digit in enumerate("零一二三四五六七八九")},
    "〇": 0,
    "两": 2,
    "兩": 2,
}
_HAN = "[零〇一二两兩三四五六七八九十百千万]"
_HAN_FRACTION = re.compile(rf"({_HAN}{{1,9}}|\d{{1,9}})分之\s?({_HAN}{{1,9}}|\d{{1,9}}(?:\.\d{{1,9}})?)")
_HAN_ANSWER = re.compile(
    rf"(?<=[是为為:：答有])\s?({_HAN}{{1,9}})(?=[个個只元块塊岁歲人本支天页頁棵颗顆枚名张張条條件台辆輛斤米次]?(?:[。.,，\n]|\Z))"
)
_BELOW_ZERO = re.compile(r"(?:零下|负|負|マイナス|영하 ?|마이너스 ?)(?=\d)")


def numbers_apart(text: str) -> str:
    """Set numbers apart from the letters beside them in scripts without spaces, and write out 万 and 亿.

    >>> numbers_apart("一共有1,018个"), numbers_apart("1.8万"), numbers_apart("百分之20")
    ('一共有 1,018 个', '18000', '20%')
    """
    end = text[-_END:]
    if (_COMMA_DIGITS.search(end) or _POINT_DIGITS.search(end)) and _COMMA_LANGUAGE.search(end):
        end = _COMMA_DECIMAL.sub(lambda found: found[0].replace(".", "").replace(",", "."), end)
        text = text[:-_END] + end
    if text.isascii():
        return text
    text = text.replace("、", ",")
    if "分之" in text:
        text = _HAN_FRACTION.sub(_fraction_of_words, text)
    text = _HAN_ANSWER.sub(lambda found: f" {_han_value(found[1])} ", text)
    text = _BELOW_ZERO.sub("-", text)
    text = _SCALED.sub(_written_out, text)
    return _NUMBER_ENDS.sub(" ", _NUMBER_BEGINS.sub(" ", text))


def _written_out(found: re.Match[str]) -> str:
    value = Fraction(0)
    for amount, scale in _SCALED_PART.findall(found[0]):
        value += Fraction(amount.replace(",", "")) * 10 ** sum(_POWERS[sign] for sign in scale)
    return f"{value.numerator}" if value.denominator == 1 else found[0]


def _fraction_of_words(found: re.Match[str]) -> str:
    if found[1] in ("百", "100"):
        return f"{_han_value(found[2])}%"
    return f" {_han_value(found[2])}/{_han_value(found[1])} "


def _han_value(numeral: str) -> str:
    """`三十五` as `35`; digits stay, and `二〇二四` is read digit by digit."""
    if numeral[0].isdecimal():
        return numeral
    total = group = digit = 0
    for sign in numeral:
        if sign in _HAN_DIGITS:
            digit = digit * 10 + _HAN_DIGITS[sign]
        elif sign == "万":
            total, group, digit = total + (group + digit) * 10_000, 0, 0
        else:
            group, digit = group + (digit or 1) * 10 ** _POWERS[sign], 0
    return str(total + group + digit)


# Languages that write 1.234,5: a comma before one or two digits, or a point before three, is theirs.
_COMMA_DECIMAL = re.compile(
    r"\d(?<![\d.,]\d)(?:\d{0,3},\d{1,2}(?![\d,]|\.\d)|(?<!0)\d{0,2}\.\d{3}(?!\d|[.,]\d))"
)
# What it matches holds one of these; patterns that begin with one character are fast.
_COMMA_DIGITS = re.compile(r",\d{1,2}(?!\d)")
_POINT_DIGITS = re.compile(r"\.\d{3}(?!\d)")
_END = 400
"""Characters, in which an answer is and the language shows."""
_COMMA_LANGUAGE = re.compile(
    r"(?i:\b(?:respuesta|réponse|antwort|ergebnis|resposta|risposta|odpowied[zź]|odpověď|cevap|jawaban(?:nya)?|antwoord"
    r"|đáp|đồng|rupiah|adalah|ist|est(?!\.)|und|horas?|heures?|stunden|reais|résultat|resultado|risultato|reste|quedan"
    r"|restam|zł|lira)\b|Rp\s?\d|R\$|[а-яё]{3})"
)


def _root(found: re.Match[str]) -> str:
    root = math.isqrt(int(found[1]))
    if root * root != int(found[1]):
        return " root "
    return f" * {root}" if found.string[: found.start()][-1:].isdecimal() else str(root)


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
        text = _UNIT_POWER.sub(" ", _BRACED_POWER.sub(r"^\1", text))
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
