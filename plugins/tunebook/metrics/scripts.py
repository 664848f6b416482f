"""What a text is written in, and the units that overlap is counted in where words of a-z are not enough."""

from __future__ import annotations

import re
import unicodedata

UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"
"""Letters of scripts without spaces between words: Thai, Lao, Burmese, Khmer, Japanese and Chinese."""
_HAN = "\u3400-\u9fff\uf900-\ufaff"
_LETTERS = {
    name: re.compile(f"[A-Za-z{letters}]")
    for name, letters in (
        ("latin", ""),
        ("chinese", _HAN),
        ("japanese", f"{_HAN}\u3040-\u30ff"),
        ("korean", f"{_HAN}\u1100-\u11ff\u3130-\u318f\uac00-\ud7af"),
    )
}
_IN_UNSPACED = re.compile(f"[{UNSPACED}]")
_KANA = re.compile("[\u3040-\u30ff]")


def mostly(name: str, text: str) -> bool:
    """Whether at least half of the letters are a-z or of a script; True of a text without letters.

    Args:
        name: `latin`, for a-z alone, `chinese`, `japanese` or `korean`.
        text: The text.
    """
    return text.isascii() or _share(_LETTERS[name], text) >= 0.5


def mostly_unspaced(text: str) -> bool:
    """Whether more than half of the letters are of scripts without spaces."""
    return not text.isascii() and any(map(str.isalpha, text)) and _share(_IN_UNSPACED, text) > 0.5


def has_kana(text: str) -> bool:
    """Whether a text has letters that only Japanese has."""
    return _KANA.search(text) is not None


def _share(pattern: re.Pattern[str], text: str) -> float:
    letters = [character for character in text if character.isalpha()]
    return sum(map(bool, map(pattern.match, letters))) / len(letters) if letters else 1.0


def characters(text: str) -> list[str]:
    """Each letter, mark and digit, in one case; punctuation and blanks are left out.

    >>> characters("你好，AI！")
    ['你', '好', 'a', 'i']
    """
    return [character for character in text.casefold() if unicodedata.category(character)[0] in "LMN"]


def words(text: str) -> list[str]:
    """Runs of letters, marks and digits of any script, in one case.

    >>> words("Он купил 2 книги.")
    ['он', 'купил', '2', 'книги']
    """
    kept = (
        character if unicodedata.category(character)[0] in "LMN" else " " for character in text.casefold()
    )
    return "".join(kept).split()
