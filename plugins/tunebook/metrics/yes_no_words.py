"""The words and phrases that mean yes or no, and the answers that consist of them alone."""

from __future__ import annotations

import re
from typing import Literal

Answer = Literal["yes", "no"]

# All other characters that `re.IGNORECASE` takes for an English letter in lower case.
_LOWER = (("\u0130", "i"), ("\u0131", "i"), ("\u017f", "s"))


def lower_case(text: str) -> str:
    """The text in lower case, letter for letter, so that a pattern finds what it finds with `re.IGNORECASE`.

    A pattern without that flag is up to five times as fast.
    """
    if not text.isascii():
        for letter, lower in _LOWER:
            text = text.replace(letter, lower)
    return text.lower()


_NOT_WORD_ASCII = {code: " " for code in range(128) if not (chr(code).isalnum() or chr(code) == "_")}
_WORD = re.compile(r"\w+")


def distinct_words(lowered: str) -> frozenset[str]:
    """Each maximal run of word characters: `don't` counts as `don` and `t`."""
    if lowered.isascii():
        return frozenset(lowered.translate(_NOT_WORD_ASCII).split())
    return frozenset(_WORD.findall(lowered))


def words(text: str) -> frozenset[str]:
    """The words of a list that is written as a paragraph."""
    return frozenset(text.split())


def _phrases(text: str) -> frozenset[str]:
    return frozenset(" ".join(phrase.split()) for phrase in text.split(";"))


_YES = _phrases(
    """yes; y; yep; yeah; yup; yea; ya; aye; true; correct; right; positive; affirmative; sure; certainly;
    definitely; absolutely; indeed; recommended; recommend; likely; probably; agreed; agree; good; like;
    of course; for sure; i think so; i believe so; i guess so; highly recommended; very likely; most likely;
    highly likely; quite likely; without a doubt; without doubt; no doubt; no question; thumbs up; i agree;
    go for it; by all means; why not"""
)
_NO = _phrases(
    """no; n; nope; nah; nay; false; incorrect; wrong; negative; never; unlikely; doubtful; disagree; dislike;
    pass; not recommended; not likely; not really; not at all; of course not; i don't think so;
    i do not think so; i doubt it; absolutely not; definitely not; certainly not; probably not; likely not;
    no way; no chance; not true; not correct; i think not; i guess not; not a chance; very unlikely;
    highly unlikely; most unlikely; quite unlikely; i don't believe so; i do not believe so; thumbs down;
    hard pass; not good; no thanks; no thank you; not yes; not a yes; do not recommend; don't recommend;
    i disagree; skip it; by no means; no creo; hell no; i would pass; i'd pass; not interested"""
)
# Read only where they stand alone, first or last: several are words of English too.
_FOREIGN_YES = words(
    """sí sì si oui ja sim да はい うん ええ そうです 是 是的 对 会 會 会的 好 可以 喜欢 有 네 예 응
    نعم हाँ हां evet tak ναι כן có igen kyllä так ใช่ haan vâng jah hai jawohl ano"""
)
_FOREIGN_NO = words(
    """non nein não nao нет いいえ いや 否 不 不是 不会 不會 不喜欢 不可以 没有 不对 아니요 아니오 아뇨 아니
    لا नहीं hayır hayir nie όχι לא không tidak nem ei nej ні ไม่ ไม่ใช่ nahi nee iie ne"""
)

FOREIGN: dict[str, Answer] = {
    **dict.fromkeys(_FOREIGN_YES, "yes"),
    **dict.fromkeys(_FOREIGN_NO, "no"),
}
_WHOLE: dict[str, Answer] = {
    **dict.fromkeys(_YES, "yes"),
    **dict.fromkeys(_NO, "no"),
    **FOREIGN,
}
_SIGNS: dict[str, Answer] = {**dict.fromkeys("👍✅✔☑✓", "yes"), **dict.fromkeys("👎❌✗✘🚫⛔", "no")}
_EDGE = " \t\r\n.!?,;:*_`\"'()[]{}<>-~#|。！？，،।"
_NOT_WORD = re.compile(r"[^\w']+")
_HARDLY = re.compile(r"\w{2,14}ly not")
_MAX_BARE = 80


def bare(text: str) -> Answer | None:
    """The answer of a text that consists of it.

    >>> bare("**No.**"), bare("Yes yes yes"), bare("Of course not!"), bare("Yes and no")
    ('no', 'yes', 'no', None)
    """
    if len(text) > _MAX_BARE:
        return None
    core = text.strip(_EDGE).casefold()
    if core in _WHOLE:
        return _WHOLE[core]
    core = _NOT_WORD.sub(" ", core).strip()
    if not core:
        signs = {_SIGNS[character] for character in text if character in _SIGNS}
        return signs.pop() if len(signs) == 1 else None
    if core in _WHOLE:
        return _WHOLE[core]
    if _HARDLY.fullmatch(core):
        return "no"
    kinds = {_WHOLE.get(word) for word in core.split()}
    return kinds.pop() if len(kinds) == 1 else None


_FIRST_CLAUSE = re.compile(r"\W{0,8}([\w']{1,16})[,.!;:。，、！]")
_LAST_CLAUSE = re.compile(r"[\s:：,，。.?？是]([\w']{1,16})\W{0,6}\Z")


def foreign(text: str) -> Answer | None:
    """Yes or no in another language, as the first or the last clause of a text."""
    for found in (_FIRST_CLAUSE.match(text), _LAST_CLAUSE.search(text[-40:])):
        if found and found[1].casefold() in FOREIGN:
            return FOREIGN[found[1].casefold()]
    return None
