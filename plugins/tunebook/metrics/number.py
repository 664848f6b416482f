"""Reads the one number that a short piece of text states, as an exact fraction.

Understood: thousands groups, signs before or after a currency, decimals, fractions, mixed and scientific
numbers, small arithmetic (`6 * 7`), LaTeX, `2 dozen`, `7.5 million` and number words. A list, a range, a
clock time or two alternatives state no single number. Every repeat in a pattern is bounded.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from fractions import Fraction
from typing import NamedTuple

from tunebook.metrics.math_text import plain

# English number words: `forty-two`, `one hundred and five`, `two dozen`, `half a million`.

SCALES: dict[str, int] = {
    "dozen": 12,
    "hundred": 100,
    "thousand": 1_000,
    "million": 1_000_000,
    "billion": 1_000_000_000,
    "trillion": 1_000_000_000_000,
    "lakh": 100_000,
    "crore": 10_000_000,
    "k": 1_000,
    "bn": 1_000_000_000,
}


def _scales(power: int, words: str) -> dict[str, int]:
    return dict.fromkeys(unicodedata.normalize("NFC", words).split(), 10**power)


_OTHER_SCALES = {
    **_scales(3, "тысяча тысячи тысяч тыс ribu nghìn ngàn tausend mille mil हज़ार हजार হাজার ألف آلاف พัน"),
    **_scales(5, "лакх लाख লাখ লক্ষ แสน"),
    **_scales(6, "миллион миллиона миллионов млн juta triệu millionen mio millionen millón millones milhão"),
    **_scales(6, "milhões milioni milione milyon مليون ملايين ล้าน milionów miliony"),
    **_scales(7, "करोड़ কোটি"),
    **_scales(
        9, "миллиард миллиарда миллиардов млрд miliar tỷ milliarden mrd milliard milliards milyar مليار"
    ),
}
"""Read after digits only."""
_UNITS = """zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen
    sixteen seventeen eighteen nineteen"""
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety"
_SMALL = {word: value for value, word in enumerate(_UNITS.split())}
_SMALL |= {word: 10 * value for value, word in enumerate(_TENS.split(), 2)}
_SMALL["fourty"] = 40
_PARTS = {
    "half": 2,
    "halves": 2,
    "third": 3,
    "thirds": 3,
    "quarter": 4,
    "quarters": 4,
    "fifth": 5,
    "fifths": 5,
}
_WORD = re.compile(r"[a-z]{1,12}|\S")
_SIGN = frozenset({"minus", "negative"})
_FIRST = frozenset({*_SMALL, *(word for word in SCALES if len(word) > 2), "half"})
"""Words that a spelled number may begin with."""
_LETTERS = tuple(word for word in _FIRST if not any(other in word for other in _FIRST - {word}))
"""One of these is in each of those words: `six` in `sixty`."""


def may_spell_a_number(text: str) -> bool:
    """Whether a text has the letters of a number word anywhere: True for `often`, which holds `ten`."""
    distinct = " ".join({*text.lower().split()})
    return any(map(distinct.__contains__, _LETTERS))


def value_of_words(text: str) -> Fraction | None:
    """The number that a text spells out, or None where it spells none or several.

    >>> value_of_words("She has one hundred and forty-two apples."), value_of_words("half a dozen")
    (Fraction(142, 1), Fraction(6, 1))
    """
    runs: list[Fraction] = []
    run: list[str] = []
    negative = False
    words = _WORD.findall(text[:400].lower())
    if _FIRST.isdisjoint(words):
        return None
    for word in [*words, "."]:
        if word in _FIRST or (run and word in _PARTS):
            run.append(word)
        elif run and word in ("and", "-", "a", "of"):
            continue
        else:
            if run:
                runs.append(-_words_value(run) if negative else _words_value(run))
                run = []
            negative = word in _SIGN
    # "one" is a number only where nothing else could be: "one of them has forty".
    others = [value for value in runs if value != 1]
    distinct = set(others or runs)
    return distinct.pop() if len(distinct) == 1 else None


def _words_value(run: list[str]) -> Fraction:
    total, group = Fraction(0), Fraction(0)
    for word in run:
        if word in _PARTS:
            # "two thirds", but "three and a half"; `half` by itself or after a larger number adds.
            group = group / _PARTS[word] if word != "half" or group == 1 else group + Fraction(1, 2)
        elif word in _SMALL:
            group += _SMALL[word]
        elif SCALES[word] <= 100:
            group = (group or Fraction(1)) * SCALES[word]
        else:
            total += (group or Fraction(1)) * SCALES[word]
            group = Fraction(0)
    return total + group


class Number(NamedTuple):
    """A number read, or why there is none."""

    value: Fraction | None
    reason: str | None
    """None exactly when `value` is not: `no_number`, `list`, `range` or `time`."""


# Begins with a digit, which `re` looks for first; what is before it is checked afterwards.
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
    r"\s{0,2}(?:[^\W\d]{1,16}\s?){0,2}(?:[,;&]|,?\s?\b(?:and|or|oder|ou|und|или)\b|[或和]|または|또는|\|)(?:\s(?:maybe|perhaps|possibly"
    r"|even))?\s{0,2}\Z",
    re.IGNORECASE,
)
_BARE_LIST = re.compile(
    r"\s{0,2}(?:[,;&]|,?\s?\band\b|[或和]|または|또는|(?:[^\W\d]{1,16}\s?){0,2},?\s?\b(?:or|oder|ou|или)\b(?:\s\w{1,10})?)\s{0,2}\Z",
    re.IGNORECASE,
)
# "7 hours 30 minutes" is one quantity in two units: which of them the question asks for is not known.
_COMPOUND = re.compile(
    r"\s?(?:hours?|hrs?|h|minutes?|mins?|feet|foot|ft|'|pounds?|lbs?|days?|weeks?|months?|years?)"
    r"(?:,?\s|,?\sand\s)?"
)
_NEAR = 40
_BETWEEN = re.compile(r"\bbetween\b[^.;]{0,24}\Z", re.IGNORECASE)


# `3x + 6`, `12 - y`, `2n`: what the model left unknown is no number. "12 x 20" is a product.
_NAME_ENDS = r"(?![A-Za-z0-9_'])"
_UNKNOWN = re.compile(
    rf"(?:\d|\))(?:[yznabqrtuvw]{_NAME_ENDS}|\s?x{_NAME_ENDS}(?!\s?[($€£¥₹]?\d))"
    rf"|[-+*]\s{{0,2}}\(?\d{{0,9}}(?:[./]\d{{1,9}})?\)?(?:[b-hj-wyz]|x(?!\s?[($€£¥₹]?\d)){_NAME_ENDS}(?!\s?%)"
    r"|(?<![A-Za-z0-9_'$\\])(?<!\d\s)[b-hj-z]\s{0,2}[-+*/]\s{0,2}[\d(]"
    rf"|\d\s?/\s?[a-fn-z]{_NAME_ENDS}"
)


def is_open(text: str, found: Sequence[Token]) -> bool:
    """Whether the first number of a plain text is part of a formula with an unknown, e.g. `3x + 6`."""
    unknown = _UNKNOWN.search(text)
    return unknown is not None and (not found or unknown.start() <= found[0].end + 3)


# `40 * 4 * 21 =`: a sum that the model did not work out.
_UNFINISHED = re.compile(r"\d\s{0,2}=[\s#*$]{0,6}\Z")


class Chain(NamedTuple):
    """Numbers that operators join."""

    value: Fraction | None
    """None where it divides by zero or would be larger than 10**60."""
    end: int
    """Index after its last token."""
    worked_out: bool
    """False for a sum that the model left as it is: `3 * 4`. A fraction and `3 * 10^4` are numbers."""


def chain(text: str, found: Sequence[Token], at: int) -> Chain:
    """Evaluate the arithmetic that begins at token `at`."""
    values, operators = [found[at].value], []
    while at + 1 < len(found):
        gap = text[_CLOSERS.match(text, found[at].end).end() : found[at + 1].start]  # type: ignore[union-attr]
        # The sign of "50 -8" was read as an operator, and is inside the token.
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
    scientific = operators[:1] in (["*"], ["x"]) and operators[1:] in (["^"], ["**"]) and values[1] == 10
    worked_out = scientific or {*operators} <= {"mixed", "/", "^", "**"}
    return Chain(_evaluate(values, operators), at + 1, worked_out)


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
    if _UNFINISHED.search(text):
        return Number(None, "no_number")
    text = right_hand_side(text)
    found = tokens(text)
    if is_open(text, found):
        return Number(None, "no_number")
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


_OPERATORS = frozenset("*+-x")
_LONGEST_NAME = 6
_NAME = re.compile(r"\s?[A-Za-z][\s.]{0,3}")
_SOLVED = re.compile(r"(?<![\w.,])-?\d[\d.,/]{0,30}\s?\Z")


def right_hand_side(text: str) -> str:
    """The text after the last `=` that a number follows; before it where only a sum does: `36 = 18 * 2`."""
    left, equals, right = text.rpartition("=")
    if equals and len(right) < _LONGEST_NAME and _NAME.fullmatch(right) and (solved := _SOLVED.search(left)):
        return solved[0]  # "or 20 = x"
    while equals:
        if has_digit(right):
            found = [] if _OPERATORS.isdisjoint(right) or not has_digit(left) else tokens(right)
            if not found or chain(right, found, 0).worked_out:
                return right
        elif value_of_words(right) is not None:
            return right
        text = left
        left, equals, right = text.rpartition("=")
    return text


def choose(text: str, found: Sequence[Token], *, first: bool) -> Number:
    """One of several numbers: the first or the last that is not rejected; None for a list or a range."""
    values: list[Fraction] = []
    stated: set[Fraction] = set()
    at, end, reason = 0, 0, None
    while at < len(found):
        start = at
        value, at, worked_out = chain(text, found, start)
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
            elif _COMPOUND.fullmatch(gap):
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
        if worked_out:
            stated.add(value)
    if not values:
        return Number(None, "no_number")
    if reason and len({*values}) > 1:
        return Number(None, reason)
    chosen = values[0] if first else values[-1]
    return Number(chosen, None) if chosen in stated else Number(None, "cut")


def _is_range(text: str, left: Token, right: Token) -> bool:
    """`5-7` is a range and `50 - 8` a subtraction."""
    gap = text[left.end : right.start + 1].strip()
    return gap in {"-", "–", "—"} and left.value < right.value


# Every number of a plain text, with sign, currency and scale. Every repeat in a pattern is bounded.


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
    | \d{1,60}(?!\d)(?!\.\d{41})(?:\.\d{1,40}(?!\d))?(?:[eE][-+]?\d{1,2}(?!\w))?               # 42, 4.2e1
    | \.\d{1,40}(?!\d)
    """,
    re.VERBOSE,
)
_DIGIT_RUN = re.compile(r"\d+")
_CURRENCY = r"(?:(?:US|CA|AU|A|C|HK|R)?[$€£¥₹₽₩]|(?<![A-Za-z])(?:Rs\.?|USD|EUR|GBP))"
_PREFIX = re.compile(
    rf"(?P<sign>(?:[-–+]|\b(?:minus|negative|moins|menos|минус))\ ?)?"
    rf"(?P<currency>{_CURRENCY}\ ?)?(?P<inner>-\ ?)?\Z",
    re.IGNORECASE,
)
_CURRENCY_CODE = re.compile(r"(?<![A-Za-z])(?:rs|usd|eur|gbp)\Z", re.IGNORECASE)
_PREFIX_ENDS = (
    "minus",
    "moins",
    "menos",
    "минус",
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
    "negative",
    "usd",
    "eur",
    "gbp",
    "rs",
)
_LONGEST_PREFIX = 12
_SCALE = re.compile(
    rf"[ -]?({'|'.join(sorted({**SCALES, **_OTHER_SCALES}, key=len, reverse=True))})s?(?!\w)", re.IGNORECASE
)
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
            word = scale[1].lower()
            value *= SCALES.get(word) or _OTHER_SCALES[word]
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
    """Whether what is before a number is its sign and not a hyphen, an operator or a separator."""
    if not sign or sign[0] == "+":
        return False
    if sign[0] not in "-–":
        return True
    if before.rstrip(" ")[-1:].isdigit() or before.rstrip(" ").endswith((")", "%")) or before[-1:].isalnum():
        return False
    # "Total - 42" separates; "-42" and a lone "- 42" are negative.
    return not (sign.endswith(" ") and before.strip())
