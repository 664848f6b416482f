"""Text to word ids exactly as rouge-score 0.1.2 tokenises, with each distinct word stemmed once."""

from __future__ import annotations

import itertools
import string
import sys
from typing import TYPE_CHECKING

CACHED_WORDS = 1_000_000
"""Distinct words kept between calls, about 150 bytes each; past that the table starts again."""

# Every byte that is no letter, digit or newline separates words. Upper case is gone by then.
_SEPARATE = bytes(
    byte if chr(byte) in string.ascii_lowercase + string.digits + "\n" else ord(" ") for byte in range(256)
)


class WordIds(dict[bytes, int]):
    """Word, as it is in the text in lower case, to the id of its stem; fills itself.

    Args:
        use_stemmer: Whether words with one stem share an id.
    """

    def __init__(self, *, use_stemmer: bool) -> None:
        super().__init__()
        self._use_stemmer = use_stemmer
        self._ids: dict[bytes, int] = {}
        self._fresh = itertools.count()

    def __missing__(self, word: bytes) -> int:
        # Like rouge-score: words of up to three letters are not stemmed.
        stemmed = stem(word) if self._use_stemmer and len(word) > 3 else word
        # A counter and not the table's length: two threads may be here at once.
        number = self._ids.setdefault(stemmed, next(self._fresh))
        self[word] = number
        return number


_tables: dict[bool, WordIds] = {}


def word_ids(*, use_stemmer: bool) -> WordIds:
    """The table of this process; ids are comparable within one table and nowhere else.

    Callers take it once for all texts that they compare, since it may be replaced between two calls.
    """
    table = _tables.get(use_stemmer)
    if table is None or len(table) > CACHED_WORDS:
        table = _tables[use_stemmer] = WordIds(use_stemmer=use_stemmer)
    return table


def sentences(text: str, ids: WordIds) -> list[list[int]]:
    """The word ids of each line of `text` that holds a word; a line is a sentence to rougeLsum.

    Words are the runs of `a-z0-9` after lower-casing, so that letters of other scripts separate words.
    """
    # Lower-casing goes first: it turns the Kelvin sign into k and a dotted capital I into i.
    lines = text.lower().encode("ascii", "replace").translate(_SEPARATE).split(b"\n")
    found = [list(map(ids.__getitem__, line.split())) for line in lines if line]
    return [sentence for sentence in found if sentence]


# Porter's stemmer as nltk's `PorterStemmer` is by default: the same stems, five times as fast.
#
# Porter's rules ask about the shape of what is before a suffix: how many times a vowel is followed by a
# consonant in it. A letter's class depends only on the letters before it, and every replacement puts a vowel
# where a vowel was. So the shape is that of the word as given, all along, and two numbers decide the rules:
# where the first such vowel and consonant end, and where the second do.
#
# Source: Porter, "An algorithm for suffix stripping", 1980, with the extensions that nltk documents as
# `NLTK_EXTENSIONS`.

if TYPE_CHECKING:
    from collections.abc import Iterable

    Rule = tuple[bytes, int, bytes]

_IRREGULAR = {
    b"skies": b"sky",
    b"dying": b"die",
    b"lying": b"lie",
    b"tying": b"tie",
    b"innings": b"inning",
    b"outings": b"outing",
    b"cannings": b"canning",
    **{word: word for word in (b"sky", b"news", b"inning", b"outing", b"canning", b"howe")},
    **{word: word for word in (b"proceed", b"exceed", b"succeed")},
}

_CHANGEABLE = (
    *(b"s", b"y", b"e", b"ed", b"ing", b"al", b"ul", b"ll", b"er", b"or", b"on", b"sm", b"nt", b"ic", b"ou"),
    *(b"li", b"ci", b"ti", b"gi"),
)
"""The last letters of every word that a rule may apply to."""


def _rules(listed: Iterable[str]) -> dict[bytes, list[Rule]]:
    """By the last two letters: suffix, letters that go, what takes their place; the first suffix decides."""
    table: dict[bytes, list[Rule]] = {}
    for line in listed:
        suffix, _, replacement = line.partition(">")
        rule = (suffix.encode(), len(suffix), replacement.encode())
        table.setdefault(rule[0][-2:], []).append(rule)
    return table


_STEP_2 = _rules(
    (
        *("ational>ate", "tional>tion", "enci>ence", "anci>ance", "izer>ize", "bli>ble", "alli>al"),
        *("entli>ent", "eli>e", "ousli>ous", "ization>ize", "ation>ate", "ator>ate", "alism>al"),
        *("iveness>ive", "fulness>ful", "ousness>ous", "aliti>al", "iviti>ive", "biliti>ble", "fulli>ful"),
    )
)
# Its l counts as part of the stem, so that geologi becomes geolog.
_STEP_2[b"gi"] = [(b"logi", 3, b"og")]
_STEP_3 = _rules(("icate>ic", "ative", "alize>al", "iciti>ic", "ical>ic", "ful", "ness"))
_STEP_4 = _rules(
    (
        *(
            "al",
            "ance",
            "ence",
            "er",
            "ic",
            "able",
            "ible",
            "ant",
            "ement",
            "ment",
            "ent",
            "ou",
            "ism",
            "ate",
        ),
        *("iti", "ous", "ive", "ize"),
    )
)
_STEP_4[b"on"] = [(b"sion", 3, b""), (b"tion", 3, b"")]

_VOWEL, _CONSONANT = b"vc"
# y waits for `_shape`: it is a vowel after a consonant, and a consonant elsewhere.
_CLASSES = bytes.maketrans(
    (string.ascii_lowercase + string.digits).encode(),
    bytes(
        _VOWEL if letter in "aeiou" else ord("y") if letter == "y" else _CONSONANT
        for letter in string.ascii_lowercase + string.digits
    ),
)
_NOWHERE = sys.maxsize


def stem(word: bytes) -> bytes:
    """The stem of one word.

    Args:
        word: Of a-z and 0-9; digits count as consonants.

    >>> stem(b"relational"), stem(b"running"), stem(b"skies")
    (b'relat', b'run', b'sky')
    """
    if len(word) <= 2 or not word.endswith(_CHANGEABLE):
        return word
    if word in _IRREGULAR:
        return _IRREGULAR[word]
    shape = _shape(word)
    end = shape.find(b"vc") + 2
    first = end if end > 1 else _NOWHERE
    end = shape.find(b"vc", first) + 2
    second = end if end > 1 else _NOWHERE

    word = _without_ending(word, shape, first, second)
    if word[-1:] == b"y" and len(word) > 2 and shape[len(word) - 2] == _CONSONANT:
        word = word[:-1] + b"i"
    if word.endswith(b"alli"):
        # nltk applies this rule first, and then the step to what is left.
        word = _replaced(word, _STEP_2, first)
    word = _replaced(word, _STEP_2, first)
    word = _replaced(word, _STEP_3, first)
    word = _replaced(word, _STEP_4, second)
    return _without_last_letter(word, shape, first, second)


def _shape(word: bytes) -> bytes:
    shape = word.translate(_CLASSES)
    at = shape.find(b"y")
    if at < 0:
        return shape
    letters = bytearray(shape)
    while at >= 0:
        letters[at] = _VOWEL if at and letters[at - 1] == _CONSONANT else _CONSONANT
        at = shape.find(b"y", at + 1)
    return bytes(letters)


def _without_ending(word: bytes, shape: bytes, first: int, second: int) -> bytes:
    """Steps 1a and 1b: plurals, -ed and -ing."""
    if word[-1:] == b"s" and word[-2:] != b"ss":
        # Of four-letter words such as ties, the e stays.
        two_go = word.endswith(b"sses") or (word.endswith(b"ies") and len(word) != 4)
        word = word[: -2 if two_go else -1]
    if word.endswith(b"ed"):
        if word.endswith(b"ied"):
            return word[: -2 if len(word) != 4 else -1]
        if word.endswith(b"eed"):
            return word[:-1] if len(word) - 3 >= first else word
        kept = word[:-2]
    elif word.endswith(b"ing"):
        kept = word[:-3]
    else:
        return word
    length = len(kept)
    if b"v" not in shape[:length]:
        return word
    if kept.endswith((b"at", b"bl", b"iz")):
        return kept + b"e"
    if kept[-1:] == kept[-2:-1] and shape[length - 1] == _CONSONANT:
        return kept if kept.endswith((b"l", b"s", b"z")) else kept[:-1]
    if first <= length < second and _is_short(kept, shape):
        return kept + b"e"
    return kept


def _replaced(word: bytes, rules: dict[bytes, list[Rule]], region: int) -> bytes:
    """Apply the rule whose suffix `word` has, unless it reaches back before `region`."""
    for suffix, letters, replacement in rules.get(word[-2:], ()):
        if word.endswith(suffix):
            kept = len(word) - letters
            return word[:kept] + replacement if kept >= region else word
    return word


def _without_last_letter(word: bytes, shape: bytes, first: int, second: int) -> bytes:
    """Steps 5a and 5b: a last e, and one of two l."""
    if word[-1:] == b"e":
        kept = word[:-1]
        if len(kept) >= second or (len(kept) >= first and not _is_short(kept, shape)):
            word = kept
    if word.endswith(b"ll") and len(word) > second:
        return word[:-1]
    return word


def _is_short(kept: bytes, shape: bytes) -> bool:
    """Whether it ends like `hop`, so that an e belongs after it; w, x and y do not count."""
    length = len(kept)
    if length == 2:
        return shape.startswith(b"vc")
    return shape[:length].endswith(b"cvc") and not kept.endswith((b"w", b"x", b"y"))
