"""Text to word ids exactly as rouge-score 0.1.2 tokenises, with each distinct word stemmed once."""

from __future__ import annotations

import itertools
import string
from typing import TYPE_CHECKING

from tunebook.errors import TunebookError

if TYPE_CHECKING:
    from collections.abc import Callable

CACHED_WORDS = 1_000_000
"""Distinct words kept between calls, about 150 bytes each; past that the table starts anew."""

# Every byte that is no letter, digit or newline separates words. Upper case is gone by then.
_SEPARATE = bytes(
    byte if chr(byte) in string.ascii_lowercase + string.digits + "\n" else ord(" ") for byte in range(256)
)

# What nltk's Porter stemmer may change ends like this; all other words are their own stem. The test asks
# the stemmer about every ending of up to three letters.
_STEMMABLE = (
    *("s", "y", "e", "ed", "ing", "al", "ul", "ll", "er", "or", "on", "sm", "nt", "ic", "ou"),
    *("li", "ci", "ti", "gi"),
)


class WordIds(dict[bytes, int]):
    """Word, as it stands in the text in lower case, to the id of its stem; fills itself.

    Args:
        stem: Maps a word to its stem, or None to take words as they are.
    """

    def __init__(self, stem: Callable[[str], str] | None) -> None:
        super().__init__()
        self._stem = stem
        self._ids: dict[str, int] = {}
        self._fresh = itertools.count()

    def __missing__(self, word: bytes) -> int:
        stem = word.decode()
        # Like rouge-score: words of up to three letters are not stemmed.
        if self._stem is not None and len(stem) > 3 and stem.endswith(_STEMMABLE):
            stem = self._stem(stem)
        # A counter and not the table's length: two threads may be here at once.
        number = self._ids.setdefault(stem, next(self._fresh))
        self[word] = number
        return number


_tables: dict[bool, WordIds] = {}


def word_ids(*, use_stemmer: bool) -> WordIds:
    """The table of this process; ids are comparable within one table and nowhere else.

    Callers take it once for all texts that they compare, since it may be replaced between two calls.

    Raises:
        TunebookError: `use_stemmer`, and nltk is not installed.
    """
    table = _tables.get(use_stemmer)
    if table is None or len(table) > CACHED_WORDS:
        table = _tables[use_stemmer] = WordIds(_porter() if use_stemmer else None)
    return table


def sentences(text: str, ids: WordIds) -> list[list[int]]:
    """The word ids of each line of `text` that holds a word; a line is a sentence to rougeLsum.

    Words are the runs of `a-z0-9` after lower-casing, so that letters of other scripts separate words.
    """
    # Lower-casing goes first: it turns the Kelvin sign into k and a dotted capital I into i.
    lines = text.lower().encode("ascii", "replace").translate(_SEPARATE).split(b"\n")
    found = [list(map(ids.__getitem__, line.split())) for line in lines if line]
    return [sentence for sentence in found if sentence]


def _porter() -> Callable[[str], str]:
    # Here and not at the top: importing nltk takes 0.7 to 4 s, more than scoring most files.
    try:
        from nltk.stem.porter import PorterStemmer
    except ImportError as err:
        raise TunebookError(
            "ROUGE with stemming needs nltk, which is not installed",
            fix="pip install nltk, or score with use_stemmer=False",
        ) from err
    stem: Callable[[str], str] = PorterStemmer().stem
    return stem
