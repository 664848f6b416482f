"""The words and phrases that mean yes or no, and the answers that consist of them only."""

from __future__ import annotations

import re
from typing import Literal

from tunebook.metrics.turns import DOES_NOT_KNOW

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
# Read only where they are the whole answer, first or last: several are words of English too.
_FOREIGN_YES = words(
    """sí sì si oui ja sim да はい うん ええ そうです 是 是的 对 對 会 會 会的 好 可以 喜欢 喜歡 有 네 예 응
    真 正确 正確 能 推荐 推薦 属于 屬於 支持 正面 没错 沒錯 行 同意 肯定 真的 成立
    نعم हाँ हां بله হ্যাঁ ஆம் అవును evet tak ναι כן có igen kyllä ya так ใช่ haan vâng jah hai jawohl ano da"""
)
_FOREIGN_NO = words(
    """non nein não nao нет いいえ いや 否 不 不是 不会 不會 不喜欢 不喜歡 不可以 没有 沒有 不对 不對
    아니요 아니오 아뇨 아니
    错 錯 假 错误 錯誤 不正确 不正確 不能 不推荐 不推薦 不属于 不屬於
    反对 反對 负面 負面 不行 不同意 否定 假的 不成立
    لا नहीं नही خیر نه না இல்லை కాదు hayır hayir nie όχι לא không tidak nem ei nej ні ไม่ ไม่ใช่ nahi nee iie ne"""
)

FOREIGN: dict[str, Answer] = {
    **dict.fromkeys(_FOREIGN_YES, "yes"),
    **dict.fromkeys(_FOREIGN_NO, "no"),
}
_WHOLE: dict[str, Answer] = {
    **dict.fromkeys(_YES, "yes"),
    **dict.fromkeys(_NO, "no"),
    **FOREIGN,
    # As classifiers write them. In a sentence they are numbers.
    "1": "yes",
    "0": "no",
}
_SIGNS: dict[str, Answer] = {**dict.fromkeys("👍✅✔☑✓", "yes"), **dict.fromkeys("👎❌✗✘🚫⛔", "no")}
_EDGE = " \t\r\n.!?,;:*_`\"'()[]{}<>-~#|。！？，،।「」『』"
_NOT_WORD = re.compile(r"[^\w']+")
_HARDLY = re.compile(r"\w{2,14}ly not")
_MAX_BARE = 80


# "いいえです", "아니요입니다", "おそらくはい"
_DRESSED = re.compile(
    r"(?P<before>おそらく|たぶん|多分|もちろん|아마도?\s?|물론\s?)?(?P<word>.{1,8}?)"
    r"[」』\"']{0,2}(?:です|でした|だ|である|と思います|입니다|이다|예요|이에요|라고 생각합니다)?"
)


def _bare_foreign(core: str) -> str:
    """A word of Japanese or Korean without the copula after it and the adverb before it."""
    dressed = _DRESSED.fullmatch(core)
    return dressed["word"] if dressed else core


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
    if not core.isascii() and (said := FOREIGN.get(_bare_foreign(core))):
        return said
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


# Not \\w: the vowel signs of Hindi and others are no word characters.
_FOREIGN_WORD = r"([^\s,.!;:?。，、！؟،؛।\"'()*_]{1,16})"
_FIRST_CLAUSE = re.compile(rf"[\W_]{{0,8}}?{_FOREIGN_WORD}(?:[,.!;:。，、！؟،؛।]|\s{{0,2}}\n)")
_LAST_CLAUSE = re.compile(rf"[\s:：,，。.?？、،؛।是]{_FOREIGN_WORD}[\W_]{{0,6}}\Z")


_COPULA = re.compile(r"\s(?:है|हैं)[।.\s]{0,3}\Z")
_FIRST_THAI = re.compile(r"(ไม่ใช่|ไม่|ใช่)(?:\s|ครับ|ค่ะ)")
# An opening that takes the task on, and answers nothing.
_UNDERSTOOD = re.compile(
    r"\W{0,3}(?:はい|ええ|네|예|ja|oui|sí|sim|да|vâng|ya|tamam|evet)[、,.。!]\s{0,2}"
    r"(?:わか|分か|承知|かしこま|알겠|d'accord|хорошо|понял|baik|verstanden|entendido|entendi|tamam)",
    re.IGNORECASE,
)
_JOINING = words(
    "ou oder o u или або أو या hoặc atau veya lub of et y und e и i och og و और dan và ve en aber mais pero"
    " но mas ma men tapi nhưng ama ale maar でも とも"
)
_MIXED = 24
"""Characters of a text that may consist of both words."""


def undecided(text: str) -> bool:
    """Whether a short text says in another language that it does not know, or both yes and no."""
    if len(text) > 4 * _MIXED:
        return False
    if DOES_NOT_KNOW.search(text):
        return True
    if len(text) > _MIXED or _UNDERSTOOD.match(text):
        return False
    said = {word.strip(_EDGE).casefold() for word in text.replace("/", " ").split()} - {""}
    yes, no = said & _FOREIGN_YES, said & (_FOREIGN_NO | {"no"})
    return bool(yes and no) and said <= yes | no | _JOINING


def foreign(text: str) -> Answer | None:
    """Yes or no in another language, as the first or the last clause of a text."""
    clauses = [_LAST_CLAUSE.search(_COPULA.sub("", text[-40:]))]
    if not _UNDERSTOOD.match(text):
        clauses += [_FIRST_CLAUSE.match(text), _FIRST_THAI.match(text)]
    said = {
        FOREIGN[word]
        for found in clauses
        if found and (word := _bare_foreign(found[1].casefold())) in FOREIGN
    }
    # "Ja, men nej" commits to neither.
    return said.pop() if len(said) == 1 else None
