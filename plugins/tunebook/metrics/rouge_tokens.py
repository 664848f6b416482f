"""Text to word ids exactly as rouge-score 0.1.2 tokenises, with each distinct word stemmed once."""

from __future__ import annotations

import itertools
import string

from tunebook.metrics import porter

CACHED_WORDS = 1_000_000
"""Distinct words kept between calls, about 150 bytes each; past that the table starts anew."""

# Every byte that is no letter, digit or newline separates words. Upper case is gone by then.
_SEPARATE = bytes(
    byte if chr(byte) in string.ascii_lowercase + string.digits + "\n" else ord(" ") for byte in range(256)
)


class WordIds(dict[bytes, int]):
    """Word, as it stands in the text in lower case, to the id of its stem; fills itself.

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
        stem = porter.stem(word) if self._use_stemmer and len(word) > 3 else word
        # A counter and not the table's length: two threads may be here at once.
        number = self._ids.setdefault(stem, next(self._fresh))
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
