"""Multiple choice: reads the letter that an answer settles on.

Source: the rules are ours. MMLU and ARC are usually scored by log-likelihood of the letters; this metric
reads generated text.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

from tunebook.metrics.response import visible
from tunebook.metrics.turns import takes_back
from tunebook.types import UNPARSED, Figure, Metric, Score

LETTERS = "ABCDEFGHIJ"
"""Letters that are looked for in any answer; a reference beyond J adds those up to its own."""


class LetterReading(NamedTuple):
    """What was read, and how."""

    letter: str | None
    rule: str | None
    """None exactly when `letter` is."""
    reason: str | None
    """None exactly when `letter` is not."""


# What is right before a letter is read backwards, word by word, up to a word for "answer": only the words
# below may stand between. This is quicker than patterns, and one list serves all languages.


def _listed(text: str) -> frozenset[str]:
    return frozenset(text.split())


_BE = _listed(
    """is was are be would should must will could may might has seems appears looks remains it's that's
    answer's ist lautet wäre est es sería serait é è seria sarebbe to jest är er on היא este είναι adalah
    ialah là هي هو है হল কো คือ это будет является є olur"""
)
_LIKELY = _listed(
    """likely probably possibly perhaps presumably surely certainly definitely clearly obviously
    wahrscheinlich vermutlich probablement probablemente provavelmente probabilmente вероятно скорее
    muhtemelen mungkin prawdopodobnie ймовірно"""
)
_BEST = _listed(
    """my selected chosen matching best correct right closest nearest only final appropriate plausible
    suitable accurate reasonable logical probable fitting sensible likeliest likely richtig richtige
    korrekt korrekte beste bonne correcte juste exacte meilleure correcta correcto mejor correta certa
    melhor corretta giusta esatta migliore правильный правильная верный верная лучший правильно верно
    правильна правильний вірна صحيح الصحيحة الصحيح صحیح درست सही đúng benar tepat betul doğru prawidłowa
    poprawna juiste rätt korrekta riktige σωστή σωστό הנכונה נכונה সঠিক"""
)
_NOUN = _listed(
    """ข้อ option choice alternative response match statement selection one fit letter opción opcion opção
    opcao alternativa opzione letra lettera lettre litera buchstabe auswahl variante вариант варіант буква
    الخيار خيار विकल्प বিকল্প pilihan opsi şık şıkkı seçenek opcja optie"""
)
_ANSWER = _listed(
    """answer answers ans antwort lösung réponse reponse respuesta resposta risposta antwoord odpowiedź
    odpowiedz odpověď cevap cevabı yanıt jawaban jawabannya án lời svar vastaus válasz răspuns απάντηση
    ответ ответом відповідь الإجابة الاجابة الجواب پاسخ جواب תשובה התשובה उत्तर जवाब উত্তর பதில் సమాధానం
    คำตอบ คำตอบคือ คำตอบที่ถูกต้องคือ ตอบ guess boxed ####"""
)
_CHOOSE = _listed(
    """leaves leaving choose choosing chose pick select selecting selected go going opt vote settle lean
    leaning inclined closest nearest corresponds corresponding matches wähle choisis elijo escolho scelgo
    выбираю chọn memilih pilih"""
)
_BETWEEN = _listed(
    """fits the a an this that which most more very highly almost quite in fact therefore thus then simply
    just indeed to either way approximately about close with for on towards toward of question here among
    these all given your text textbf textit mathrm mathbf die der das le la el los lo los il o os yang que
    die dire всего câu trả đáp i il ל"""
)
_MAY = _listed("could may might")
_THINK = _listed("think believe say suppose guess")
_SO = _listed("therefore thus hence so but actually also daher also donc así portanto quindi")
_OPENING = " \t*_`\"'‘’“”„«(（[【「{$\\<"
_TOKEN = re.compile(r"[^\s:：=.,;!?()\[\]{}*_\"`“”<>|/–—\\-]+|\n{1,3}|[:：=.,;!?>–—|-]")
_PLAINLY = ("answer is ", "answer: ", "answer is (", "answer: (", "answer is: ", "answer is **", "answer:** ")
"""How most answers are marked; what `_is_marked` finds too, at a greater cost."""
_BEFORE = 90
"""Characters before a letter that are read."""


_DENIES = _listed(
    """not never don't doesn't didn't wouldn't won't can't cannot isn't if whether unless suppose assuming
    nicht kein falls pas si não não se не если"""
)


def _is_denied(words: list[str], at: int) -> bool:
    """Whether the clause before word `at` negates it or makes it a condition."""
    for word in reversed(words[max(0, at - 5) : at]):
        if word in ".,;:!?" or not word.strip():
            return False
        if word in _DENIES:
            return True
    return False


def _is_marked(before: str, *, ends_clause: bool) -> bool:
    """Whether the words right before a letter say that it is the answer.

    Args:
        before: Lower-case text that ends where the letter begins.
        ends_clause: The letter ends its clause.
    """
    words = _TOKEN.findall(before.rstrip(_OPENING))
    be = colon = best = likely = noun = False
    at = len(words) - 1
    while at >= 0:
        word = words[at].removeprefix("l'")
        earlier = words[at - 1] if at else ""
        if word in _ANSWER or (
            word in _CHOOSE and not (word in ("go", "going") and "with" not in words[at:])
        ):
            if word == "answer" and words[at + 1 :] == ["to"]:
                return False  # "the answer to A is 5"
            return not _is_denied(words, at) and (be or colon or not noun or word in _ANSWER)
        if word in ":：=>|" or (word in "–—-" and not be):
            colon = True
        elif word.strip("\n") == "":
            if not colon and at < len(words) - 1:
                break
        elif word in _THINK:
            return not _is_denied(words, at) and (be or (ends_clause and earlier in ("i", "i'd", "would")))
        elif word == "," and earlier in _THINK and at > 1 and words[at - 2] == "i":
            at -= 3  # "is, I think, B"
            if words[at] != ",":
                at += 1
        elif word in _NOUN:
            noun = True
            if (be or colon) and (best or not _BEST.isdisjoint(words[max(0, at - 3) : at])):
                return not _is_denied(words, at)
        elif word == "it's" or (word == "it" and be):
            opens = at == 0 or earlier in ";,.\n" or earlier in _SO or earlier in _THINK
            return (
                not _is_denied(words, at)
                and opens
                and (ends_clause or likely)
                and _MAY.isdisjoint(words[at:])
            )
        elif word in _BE:
            be = True
        elif word in _LIKELY or word in _BEST:
            likely, best = likely or word in _LIKELY, best or word in _BEST
        elif word in _SO:
            return ends_clause and words[at + 1 : at + 2] != ["is"]  # "so is C" says the same of C
        elif word not in _BETWEEN and not word.endswith("ly") and not (word == "," and earlier in _SO):
            break
        at -= 1
    if at >= 0 and words[at] not in (".", ";", "!", "\n", "\n\n"):
        return False
    # "Richtig ist D", "Probably D."
    if best and (be or colon or (noun and (ends_clause or not before.isascii()))):
        return True
    return ends_clause and (likely or words[at + 1 : at + 2] == ["es"])


# Scripts without spaces are read by patterns, over fewer characters.
_UNSPACED_CUE = re.compile(
    r"(?:(?:答案|正解|答え|回答|解答|选项|選項|最[佳好合适適可能有]{1,3}的?(?:选项|答案)?)"
    r"(?:应该|應該|应|應|只能|就|可能|最可能)?(?:是|为|為|选|選|は|係)|(?:答案|正解|答え|回答|解答|选项|選項)[】\])\s]{0,3}[:：]?"
    r"|(?:正确|正確|符合题意)的(?:选项|選項|答案)?[是为為]|(?:\A|[，,。\n])(?:应该|應該|应当)是|而是|答[:：]"
    r"|(?:정답|답)(?:은|는|이|가)?\s?[:：]?"
    r"|(?:选择|選擇|选|選)(?!项|項)(?:了|择|定)?[:：]?)"
    r"[\s*_`\"'‘“(（\[【「{$\\<:：]{0,8}(?:(?:选项|選項|選択肢|选|選|option)\s{0,2}[({（\[]?\s{0,2})?\Z"
)
_UNSPACED_BEFORE = 32
_UNSPACED_AFFIRMED = re.compile(
    r"(?:选项|選項|项|項)?(?:的说法|说法)?(?:才是|是|为|為)?"
    r"(?:正确|正確|对的|對的|是对|最合适|最合適|最佳|最?符合(?:题意|題意)?|[对對](?=[，,。；;\s]|\Z))"
    r"|\s?が(?:正しい|正解|正答|適切)|\s?(?:번)?[이가]\s?(?:정답|맞|옳)"
)
_ENDS_CLAUSE = re.compile(r"[\s*_)\].,;!\"']{0,5}?(?:\Z|\n|[.,;!])")
_AFFIRMED = re.compile(
    r"[)\]*\"']{0,3}\s(?:is|as|seems|appears|would be|must be|looks|ist|est|es|é|è|là|adalah|to|jest"
    r"|является|[-–—])(?P<words>(?:\s[^\W\d]+){1,4})|:?\s(?:right|correct|true)\b"
    r"|\s(?:şıkkı|seçeneği)?\s?doğru"
)
_RIGHT = (_BEST | _ANSWER) - _listed(
    "my selected chosen matching only final closest nearest likely likeliest plausible probable"
)
_ONE_OF_TWO = re.compile(r"[A-Z][)\s]{1,2}(?:or|and|nor)\s[(]?\Z")
_NEGATIONS = _listed("not nicht pas no non não не không bukan değil")
# Denied or asked right after the letter.
_NOT_AFTER = re.compile(
    r"[)\]*\"'）]{0,3}(?:\s?\?|\s?(?:选项|選項|项|項|번)?"
    r"(?:不正确|不正確|不对|不對|不是|错|錯|[이가]\s?아|で?はな|ではあり|じゃな)"
    r"|\s(?:नहीं|değil|isn't|is (?:not|wrong|incorrect|false)|ist (?:nicht|falsch)|no es|n'est pas|não é|не)"
    r"(?=[\s.,।!?]|\Z))"
)
_FIRST_DENIED = re.compile(r"\s?(?:is\s|are\s)?(?:not\b|wrong|incorrect|false|错|錯|不)", re.IGNORECASE)
_OPTION_WORD = re.compile(r"(?:\b(?:option|choice)\s|(?:选项|選項)\s?)\Z", re.IGNORECASE)
_MAYBE = re.compile(r"\b(?:or|but) (?:maybe|perhaps|possibly)\b", re.IGNORECASE)
# A is an article and I a pronoun: they are letters where no word follows that goes on.
_GOES_ON = re.compile(
    r"\s(?!because\b|since\b|as\b|which\b|for\b|due\b|is\b|and\b|or\b|if\b|given\b|seems\b|appears\b)[a-z]"
)
_ALONE = re.compile(
    r"\W*(?:(?:the\s)?(?:option|choice|answer|letter|ข้อ|letra|lettre|lettera|litera|opción|opção|alternativa|вариант)"
    r"|选项|選項|选|選)?\W*([A-Z])(?:选项|選項|项|項)?\W*",
    re.IGNORECASE,
)
_SHORT_REST = 6
"""Characters after an answer in which nothing can be taken back."""
_MOST_LETTERS = 60
"""Letters that are looked at, from the end."""


@lru_cache
def _letter(last: str) -> re.Pattern[str]:
    """A capital letter by itself. No `\\b`: a Korean or Japanese word may follow without a space."""
    return re.compile(rf"[A-{last}](?<![A-Za-zÀ-ɏ0-9_'’\\][A-{last}])(?![A-Za-zÀ-ɏ0-9_'’])")


@lru_cache
def _start(last: str) -> re.Pattern[str]:
    """A letter that opens an answer, with what sets it off."""
    return re.compile(
        rf"[\s*_`\"'(（\[【]{{0,6}}(?:(?!I)([A-{last}])(?:[).:：）\]】,、。．]|\s{{0,2}}\n|\s[-–\u3040-\u9fff]|\s(?=because\s|since\s)|[*_`\"']|\Z)"
        r"|(I)[).:\]])"
    )


@lru_cache
def _more(last: str) -> re.Pattern[str]:
    """Another letter beside the one just read."""
    return re.compile(
        r"[)\]*_\"'）\s]{0,4}(?:\s?(?:or|and|and/or|nor)\s|\s?[/&,、，或和与]\s?(?:or\s|and\s)?)"
        rf"(?:option\s|choice\s)?[(\[*_\"'（]{{0,4}}([A-{last}])(?![\w'])(?!\s(?!or\b|and\b)[a-z])"
    )


_EDGE = " \t\r\n.,:;!?*_`\"'()[]{}<>$#-。、，：；！？（）【】「」"
_DENIED_BEFORE = re.compile(
    r"(?:\bnot|n't|\bexcept|\bexclude|\beliminate|\brule\sout|\brules\sout|\bnor|\bneither|\binstead\sof|\brather\sthan|排除|不选|不選|不是|而不是)"
    r"\s{0,2}(?:option\s|choice\s|选项)?[(\[*]{0,3}\Z",
    re.IGNORECASE,
)
_DENIED_AFTER = re.compile(
    r"(?:[:：]?\s?(?:wrong|incorrect|false)\b)|[)\]*）]{0,3}[^.!?。\n]{0,20}?(?:\b(?:is|are|was|seems|would\sbe|can\sbe|could\sbe)\s(?:\w+\s)?(?:not\b|n't|in\w+|wrong|false|un\w+|im\w+"
    r"|ruled|eliminated|excluded|a\spossibility|possible|plausible|tempting|also)|isn't|cannot|can't|doesn't|不正确|不正確|错|錯|不对|不對|不符|不合)",
    re.IGNORECASE,
)
_TAIL = 4_000


def read(text: str, last: str = LETTERS[-1]) -> LetterReading:
    """Read a model's whole output: the letter, the rule that read it or the reason that nothing did.

    Args:
        text: The output.
        last: The last letter that may be an answer.
    """
    said = visible(text)
    if said.reason is not None:
        return LetterReading(None, None, said.reason)
    core = said.text.strip(_EDGE).upper()
    if len(core) == 1 and "A" <= core <= "Z":
        return LetterReading(core, "bare", None)
    alone = _ALONE.fullmatch(said.text) if len(said.text) < 30 else None
    if alone and alone[1].isupper():
        return LetterReading(alone[1], "bare", None)
    tail = said.text[-_TAIL:]
    # "a" and "b" in lower case are words; a letter is only read in upper case.
    letters = list(_letter(last).finditer(tail))[-_MOST_LETTERS:]
    for letter in reversed(letters):
        if _is_answer(tail, letter):
            end = letter.end()
            if len(tail) > end + _SHORT_REST and (takes_back(tail, end) or _MAYBE.search(tail, end)):
                return LetterReading(None, None, "hedge")
            return _settled(letter[0], "slot", _more(last).match(tail, end))
    first = _start(last).match(said.text)
    denied = _FIRST_DENIED if first and first[0].endswith((".", "\n")) else _DENIED_AFTER
    if first and not denied.match(said.text, first.end()) and not _lists(last, tail):
        another = (
            _more(last).match(said.text, first.end(1 if first[1] else 2)) if len(said.text) < 30 else None
        )
        if another is None or another[1] == (first[1] or first[2]):
            return LetterReading(first[1] or first[2], "first_letter", None)
    mentioned = {letter[0] for letter in letters if _is_mentioned(tail, letter)}
    if len(mentioned) == 1:
        return LetterReading(mentioned.pop(), "only_letter", None)
    return LetterReading(None, None, "several_letters" if mentioned else "no_letter")


def _lists(last: str, text: str) -> bool:
    """Whether lines that begin with different letters repeat the options."""
    return "\n" in text and len({*re.findall(rf"^[ (*]{{0,3}}([A-{last}])[).:]", text, re.MULTILINE)}) > 1


def _settled(letter: str, rule: str, another: re.Match[str] | None) -> LetterReading:
    if another and another[1] != letter:
        return LetterReading(None, None, "several_letters")
    return LetterReading(letter, rule, None)


def _is_answer(text: str, letter: re.Match[str]) -> bool:
    """Whether what is around a letter says that it is the answer."""
    start, end = letter.span()
    if letter[0] in "AI" and _GOES_ON.match(text, end):
        return False
    if text[end : end + 1] not in (".", ",", "\n", "") and _NOT_AFTER.match(text, end):
        return False
    before = text[max(0, start - _BEFORE) : start]
    lowered = before.lower()
    if lowered.endswith(_PLAINLY) and not any(map(lowered.__contains__, ("if", "n't", "not", "whether"))):
        return True
    if lowered and _is_marked(lowered, ends_clause=_ENDS_CLAUSE.match(text, end) is not None):
        return True
    affirmed = None if _ONE_OF_TWO.search(before) else _AFFIRMED.match(text, end)
    said = (affirmed["words"] or "right").lower().split() if affirmed else ()
    if not _RIGHT.isdisjoint(said) or ("most" in said and "likely" in said):
        return _NEGATIONS.isdisjoint(said) and "if" not in said and not _DENIED_BEFORE.search(before)
    if before.isascii() and text[end : end + 8].isascii():
        return False
    if _UNSPACED_CUE.search(before[-_UNSPACED_BEFORE:]):
        return True
    return bool(_UNSPACED_AFFIRMED.match(text, end)) and not _DENIED_BEFORE.search(before)


def _is_mentioned(text: str, letter: re.Match[str]) -> bool:
    """Whether a letter is named as an option, and not ruled out."""
    start, end = letter.span()
    before, after = text[max(0, start - 24) : start], text[end : end + 2]
    # In `\ln(A)` it is a variable.
    in_brackets = (
        before[-1:] in ("(", "（") and after[:1] in (")", "）") and not re.search(r"[\w\\].\Z", before)
    )
    if not (in_brackets or (before.endswith("**") and after == "**") or _OPTION_WORD.search(before)):
        return False
    return not _DENIED_BEFORE.search(before) and not _DENIED_AFTER.match(text, end)


@lru_cache(maxsize=1024)  # references are few, and each is read once a row
def extract(text: str) -> str | None:
    """Return the letter an output settles on, or None.

    >>> extract("(B) Paris"), extract("A good question. The answer is **C**."), extract("A or B")
    ('B', 'C', None)
    """
    return read(text).letter


def score(prediction: str, reference: str) -> Score:
    """Compare the letter in `prediction` with the one in `reference`.

    Returns:
        `accuracy` 1.0 or 0.0.

    Raises:
        ValueError: The reference holds no letter: the data is wrong, not the model.
    """
    wanted = extract(reference)
    if wanted is None:
        raise ValueError(f"the reference must be a letter from A to Z, not {reference[:80]!r}")
    reading = read(prediction, max(wanted, LETTERS[-1]))
    return Score(
        values={"accuracy": float(reading.letter == wanted)},
        parsed=reading.letter,
        reference=wanted,
        rule=reading.rule,
        reason=reading.reason,
    )


def aggregate(scores: Sequence[Score]) -> Mapping[str, float]:
    """Accuracy, the share without a letter, and the accuracy of always giving the most frequent reference."""
    if not scores:
        return {}
    n = len(scores)
    references = [score.reference for score in scores]
    return {
        "accuracy": sum(score.values["accuracy"] for score in scores) / n,
        "majority_accuracy": max(references.count(letter) for letter in set(references)) / n,
        "unparsed_rate": sum(score.parsed is None for score in scores) / n,
    }


METRIC = Metric(
    name="multiple_choice",
    score=score,
    aggregate=aggregate,
    figures=(
        Figure(name="accuracy"),
        Figure(name="majority_accuracy", label="majority baseline", descriptive=True, detail=True),
        UNPARSED,
    ),
    select_by="accuracy",
    classes={letter: (letter, f" {letter}", f"({letter}", f" ({letter}") for letter in LETTERS},
    default_max_new_tokens=16,
)
