"""Finds the assistant's turn in a decoded conversation, and where a model goes on with a made-up question.

Known headers: ChatML, Llama 3, Gemma, Mistral, Phi and Zephyr, DeepSeek, Granite, Command R, gpt-oss, Alpaca,
Vicuna, and the bare role lines that remain when special tokens are dropped.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice
from typing import NamedTuple

# Every pattern begins with one literal character: a text without it is left at once, and in any
# other `re` finds it as fast as a plain search. A scan by alternatives costs ten times as much, and most
# outputs hold no header at all.
_TOKEN = re.compile(
    r"<(?:\|im_start\|>\s{0,2}\w{1,12}"
    r"|\|start_header_id\|>\w{1,12}<\|end_header_id\|>"
    r"|\|start_of_role\|>\w{1,12}<\|end_of_role\|>"
    r"|start_of_turn>\w{1,12}"
    r"|\|START_OF_TURN_TOKEN\|>(?:<\|\w{1,12}_TOKEN\|>)?"
    r"|\|start\|>\w{1,12}(?:<\|channel\|>\w{1,12})?<\|message\|>"
    r"|\|channel\|>\w{1,12}<\|message\|>"
    r"|[|｜](?:system|user|assistant|model|User|Assistant)[|｜]>)"
)
_INST = re.compile(r"\[/?INST\]")
_MARKDOWN = re.compile(r"#(?<![^\n]#)#{1,3} ?(?:Instruction|Input|Human|User|Response|Assistant)\b:?")
_ROLE_LINE = re.compile(
    r"\n(?<=[lmrt]\n)(?:(?<=\nsystem\n)|(?<=\nuser\n)|(?<=\nassistant\n)|(?<=\nmodel\n)|(?<=\Asystem\n)"
    r"|(?<=\Auser\n)|(?<=\Aassistant\n))"
)
_ROLE_COLON = re.compile(
    r":(?:(?<=USER:)|(?<=ASSISTANT:)|(?<=User:)|(?<=Assistant:)|(?<=Human:)|(?<=HUMAN:)"
    r"|(?<=\nassistant:)|(?<=\Aassistant:))"
)
_LAST_WORD = re.compile(r"[A-Za-z]{4,9}\Z")
_MAX_HEADERS = 1_000
"""Of each kind. What holds more of them is no conversation but a loop."""
_ASSISTANT = re.compile(r"assistant|model|response|chatbot|/inst|final|<\|message", re.IGNORECASE)
_THOUGHTS = re.compile(r"<\|channel\|>(?:analysis|commentary)")
_SYSTEM_PROMPT = re.compile(r"assistant|instruction|you are |chat between|conversation|begin", re.IGNORECASE)


class _Header(NamedTuple):
    start: int
    end: int
    assistant: bool
    """An answer follows; False for a user's or system's turn and for a channel of thoughts."""


def last_assistant_turn(output: str) -> str:
    """The assistant's last turn; of an output that opens with an answer, that answer."""
    # gpt-oss decoded without its special tokens.
    if output.startswith("analysis") and "assistantfinal" in output:
        return output.rpartition("assistantfinal")[2]
    headers = sorted(_headers(output))
    if not headers:
        return output
    opens_with_text = has_text(output[: headers[0].start])
    if not any(header.assistant for header in headers):
        return _before_other_turns(output, headers)
    if (
        opens_with_text
        and not headers[0].assistant
        and not _SYSTEM_PROMPT.search(output, 0, min(2_000, headers[0].start))
    ):
        return output[: headers[0].start]
    if headers[0].assistant and not opens_with_text:
        # The output opens with the assistant's own header: whatever a user says later is made up.
        own = next((at for at, header in enumerate(headers) if not header.assistant), len(headers))
        headers = headers[: own + 1]
    last = max(at for at, header in enumerate(headers) if header.assistant)
    end = headers[last + 1].start if last + 1 < len(headers) else len(output)
    return output[headers[last].end : end]


def _headers(output: str) -> Iterator[_Header]:
    for first, pattern in (("<", _TOKEN), ("[", _INST), ("#", _MARKDOWN)):
        if first not in output:
            continue
        for match in islice(pattern.finditer(output), _MAX_HEADERS):
            assistant = bool(_ASSISTANT.search(match[0])) and not _THOUGHTS.search(match[0])
            yield _Header(match.start(), match.end(), assistant)
    for first, pattern in (("\n", _ROLE_LINE), (":", _ROLE_COLON)):
        if first not in output:
            continue
        for match in islice(pattern.finditer(output), _MAX_HEADERS):
            name = _LAST_WORD.search(output, max(0, match.start() - 12), match.start())
            if name and (name.start() == 0 or output[name.start() - 1].isspace()):
                yield _Header(name.start(), match.end(), name[0].lower() in ("assistant", "model"))


def _before_other_turns(output: str, headers: list[_Header]) -> str:
    """Cut at the first header that follows some text; `User: ...` inside a paragraph is part of an answer."""
    cursor = 0
    for header in headers:
        name = output[header.start : header.end]
        may_be_prose = name.lower() == "user:" and output[max(0, header.start - 2) : header.start] != "\n\n"
        if has_text(output[cursor : header.start]) and not may_be_prose:
            return output[: header.start]
        cursor = header.end
    return output


def has_text(text: str) -> bool:
    """Whether a text holds more than blanks and begin-of-text tokens."""
    return bool(text.replace("<s>", "").replace("<bos>", "").strip())


# "The answer is 12. However, this cannot be determined from the text."
_TAKEN_BACK = re.compile(
    r"\b(?:however|but|actually|on reflection|on second thought|wait|final answer|so|therefore|thus|answer)\b"
    r"[^.!?\n]{0,80}?"
    r"(?:(?:can|could)(?:not|'t| not) be (?:determined|known|said|answered)|not enough information"
    r"|none of the (?!other)(?:options|choices|answers|above)"
    r"|no (?:correct|right) (?:answer|option)|it depends|is unclear|is unknown)"
    r"|(?:但|因此|所以|最终|其实|实际上)[^。\n]{0,20}(?:无法确定|無法確定|无法判断|没有正确|都不正确|都不对)"
)
_NO_ANSWER = (
    "determined", "be known", "be said", "be answered", "information", "none of", "no correct", "no right",
    "it depends", "is unclear", "is unknown",
)  # fmt: skip
_NO_ANSWER_CHINESE = ("无法", "無法", "没有正确", "都不")
"""What every text that takes its answer back holds one of."""


def takes_back(text: str, start: int) -> bool:
    """Whether a text says from `start` on that there is no answer after all."""
    rest = text[start:].lower()
    if not any(map(rest.__contains__, _NO_ANSWER if rest.isascii() else _NO_ANSWER + _NO_ANSWER_CHINESE)):
        return False
    return _TAKEN_BACK.search(rest) is not None


DOES_NOT_KNOW = re.compile(
    r"\b(?:no (?:lo )?sé|je ne (?:le )?sais pas|ich weiß (?:es |das )?nicht|não sei|non (?:lo )?so|не знаю"
    r"|không biết|tidak tahu|bilmiyorum|nie wiem|weet (?:ik )?niet)\b"
    r"|(?:わか|分か|判断でき)(?:りません|らない|ません)|모르겠|알 수 없|لا أعرف|لا أدري|पता नहीं|ไม่รู้|ไม่แน่ใจ",
    re.IGNORECASE,
)
"""How other languages than English say "I do not know"."""


# ---------------------------------------------------------------------------------- a question of its own

_QUESTION = re.compile(
    r"\n[#*> \t]{0,8}(?=[npeq])(?:(?:next |new )?(?:question|problem"
    r"|exercise)(?: ?\d{1,3})?\*{0,2}[ \t]?(?:[:.]|(?=\n)|\Z)"
    r"|q\d{0,3}\*{0,2}[:.])",
    re.IGNORECASE,
)
_STATES_ANSWER = re.compile(r"####|boxed|answer|=|\ba:", re.IGNORECASE)
_SHORT = 60
"""Characters: text this short before a question is an answer and not the beginning of a task."""


def before_next_question(text: str, answered: re.Pattern[str]) -> str:
    """Cut where a model, its answer given, goes on with a question of its own (`Question: ...`, `Q: ...`).

    Args:
        text: A visible answer.
        answered: What any answer holds; a question that nothing answers before it opens the task, and stays.
    """
    questions = list(_QUESTION.finditer(text)) if "\n" in text else []
    if not questions:
        return text
    first_answer = _end_of_first(answered, text)
    first_statement = _end_of_first(_STATES_ANSWER, text)
    for question in questions:
        at = question.start()
        ended = text[at - 1 : at] == "\n" or at < _SHORT or first_statement <= at
        if ended and first_answer <= at:
            return text[:at].rstrip()
    return text


def _end_of_first(pattern: re.Pattern[str], text: str) -> int:
    match = pattern.search(text)
    return match.end() if match else len(text) + 1
