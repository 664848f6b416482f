"""English number words: `forty-two`, `one hundred and five`, `two dozen`, `half a million`."""

from __future__ import annotations

import re
from fractions import Fraction

SCALES: dict[str, int] = {
    "dozen": 12,
    "hundred": 100,
    "thousand": 1_000,
    "million": 1_000_000,
    "billion": 1_000_000_000,
    "trillion": 1_000_000_000_000,
    "k": 1_000,
    "bn": 1_000_000_000,
}
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
"""One of these stands in each of those words: `six` in `sixty`."""


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
                runs.append(-_value(run) if negative else _value(run))
                run = []
            negative = word in _SIGN
    # "one" is a number only where nothing else could be: "one of them has forty".
    others = [value for value in runs if value != 1]
    distinct = set(others or runs)
    return distinct.pop() if len(distinct) == 1 else None


def _value(run: list[str]) -> Fraction:
    total, group = Fraction(0), Fraction(0)
    for word in run:
        if word in _PARTS:
            # "two thirds", but "three and a half"; `half` alone or after a larger number adds.
            group = group / _PARTS[word] if word != "half" or group == 1 else group + Fraction(1, 2)
        elif word in _SMALL:
            group += _SMALL[word]
        elif SCALES[word] <= 100:
            group = (group or Fraction(1)) * SCALES[word]
        else:
            total += (group or Fraction(1)) * SCALES[word]
            group = Fraction(0)
    return total + group
