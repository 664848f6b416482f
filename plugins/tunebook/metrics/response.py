"""What a model finally said: the last assistant turn, without its thoughts, in plain characters.

A decoded output may hold the whole conversation, a think block, end-of-turn tokens, or a second
question that the model made up after its answer. Every metric that reads an answer starts from `visible`.

All steps are linear in the length of the text: tags are found by one scan, and no pattern holds an
unbounded lazy repeat.
"""

from __future__ import annotations

import re
import unicodedata
from typing import NamedTuple

MAX_VISIBLE = 64_000
"""Characters kept of a longer answer: the first 4,000 and the last 60,000."""

_HEAD, _TAIL = 4_000, 60_000


class Visible(NamedTuple):
    """The part of an output that a reader would see."""

    text: str
    """Folded to plain characters, stripped; empty when `reason` is set."""
    reason: str | None
    """Why there is nothing to read: `empty` or `unfinished_think`; None when there is."""


def visible(output: str) -> Visible:
    """Return what a reader of the chat would see of a model's output.

    - The last assistant turn, where the output holds a conversation; an output that goes on with a
      made-up next turn is cut before it.
    - The text after the last closing think tag. A think block that never closes hides what follows it;
      an answer standing before it counts.
    - Up to the first end-of-turn token.
    - Non-breaking and zero-width spaces, full-width forms, minus signs and quotes of other scripts
      are folded to ASCII.

    >>> visible("<think>It floats. So yes?</think> No.<|im_end|>")
    Visible(text='No.', reason=None)
    >>> visible("<think>It floats, so")
    Visible(text='', reason='unfinished_think')
    """
    if "&lt;" in output:
        output = output.replace("&lt;", "<").replace("&gt;", ">")
    turn = _last_turn(output)
    said, unfinished = _without_thoughts(turn)
    said = _before_end_token(said)
    if len(said) > MAX_VISIBLE:
        said = f"{said[:_HEAD]}\n{said[-_TAIL:]}"
    said = fold(said).strip()
    if said:
        return Visible(said, None)
    return Visible("", "unfinished_think" if unfinished else "empty")


# ---------------------------------------------------------------------------------------------- turns

_HEADER = re.compile(
    r"<\|im_start\|>\s{0,2}\w{1,12}"
    r"|<\|start_header_id\|>\w{1,12}<\|end_header_id\|>"
    r"|<\|start_of_role\|>\w{1,12}<\|end_of_role\|>"
    r"|<start_of_turn>\w{1,12}"
    r"|<\|START_OF_TURN_TOKEN\|>(?:<\|\w{1,12}_TOKEN\|>)?"
    r"|(?:<\|start\|>\w{1,12})?(?:<\|channel\|>\w{1,12})?<\|message\|>"
    r"|<[|｜](?:system|user|assistant|model|User|Assistant)[|｜]>"
    r"|\[/?INST\]"
    r"|^[#]{2,4} ?(?:Instruction|Input|Human|User|Response|Assistant)\b:?"
    r"|^(?:system|user|assistant|model)[ \t]{0,4}$"
    r"|(?:^|(?<=[ \t]))(?:USER|ASSISTANT|User|Assistant|Human|HUMAN) ?:",
    re.MULTILINE,
)
# A scan for headers costs more than these plain searches, and most outputs hold none of them.
_HEADER_HINTS = (
    "<|", "<｜", "<start_of_turn>", "INST]", "## ", "###", "user", "User", "USER", "assistant", "Assistant",
    "ASSISTANT", "Human", "HUMAN", "model",
)  # fmt: skip
_ASSISTANT = re.compile(r"assistant|model|response|chatbot|/inst|final|<\|message", re.IGNORECASE)
_THOUGHT_CHANNEL = re.compile(r"<\|channel\|>(?:analysis|commentary)")
_SYSTEM_PROMPT = re.compile(
    r"assistant|instruction|you are |chat between|conversation|<s>|begin", re.IGNORECASE
)


class _Header(NamedTuple):
    start: int
    end: int
    assistant: bool
    """Its text is an answer; False for a user's or system's turn and for a channel of thoughts."""


def _last_turn(output: str) -> str:
    """The assistant's last turn of a conversation, or the output up to a made-up next turn."""
    # gpt-oss decoded without its special tokens.
    if output.startswith("analysis") and "assistantfinal" in output:
        return output.rpartition("assistantfinal")[2]
    if not any(hint in output for hint in _HEADER_HINTS):
        return output
    headers = [_header(match) for match in _HEADER.finditer(output)]
    if not headers:
        return output
    preamble = output[: headers[0].start]
    answers_first = headers[0].assistant and not _is_text(preamble)
    if not any(header.assistant for header in headers):
        return _before_next_question(output, headers)
    if _is_text(preamble) and not headers[0].assistant and not _SYSTEM_PROMPT.search(preamble[:2_000]):
        return preamble
    if answers_first:
        # The output opens with the assistant's own header: whatever a later user says is made up.
        until = next((at for at, header in enumerate(headers) if not header.assistant), len(headers))
        headers = headers[: until + 1]
    last = max(at for at, header in enumerate(headers) if header.assistant)
    end = headers[last + 1].start if last + 1 < len(headers) else len(output)
    return output[headers[last].end : end]


def _header(match: re.Match[str]) -> _Header:
    text = match[0]
    assistant = bool(_ASSISTANT.search(text)) and not _THOUGHT_CHANNEL.search(text)
    return _Header(match.start(), match.end(), assistant)


def _before_next_question(output: str, headers: list[_Header]) -> str:
    """Cut at the first turn header that follows some text; `User: ...` alone may be part of an answer."""
    cursor = 0
    for header in headers:
        name = output[header.start : header.end]
        may_be_prose = name.lower().startswith("user") and name.endswith(":")
        if _is_text(output[cursor : header.start]) and not (
            may_be_prose and output[max(0, header.start - 2) : header.start] != "\n\n"
        ):
            return output[: header.start]
        cursor = header.end
    return output


def _is_text(text: str) -> bool:
    return bool(text.replace("<s>", "").replace("<bos>", "").strip())


_QUESTION = re.compile(
    r"^[#*> \t]{0,8}(?:(?:next |new )?(?:question|problem|exercise)(?: ?\d{1,3})?\*{0,2}[ \t]?(?:[:.]|$)"
    r"|q\d{0,3}\*{0,2}[:.])",
    re.IGNORECASE | re.MULTILINE,
)
_STATES_ANSWER = re.compile(r"####|boxed|answer|=|\ba:", re.IGNORECASE)
_ECHO = 60
"""Characters: text this short before a question is an answer and not the beginning of a task."""


def before_next_question(text: str, answered: re.Pattern[str]) -> str:
    """Cut where a model, its answer given, goes on with a question of its own (`Question: ...`, `Q: ...`).

    Args:
        text: A visible answer.
        answered: What any answer holds; a question before it opens the task, and stays.
    """
    for match in _QUESTION.finditer(text):
        before = text[max(0, match.start() - 4_000) : match.start()]
        if answered.search(before) and (
            before.endswith("\n\n") or len(before) < _ECHO or _STATES_ANSWER.search(before)
        ):
            return text[: match.start()].rstrip()
    return text


# ------------------------------------------------------------------------------------------- thoughts

_NAMES = r"(?:seed:)?(?:think|thinking|thought|thoughts|reason|reasoning|reflection|analysis|scratchpad|cot)"
_OPEN = re.compile(
    rf"<\s?{_NAMES}(?:\s[^<>\n]{{0,60}})?>|\[THINK\]|◁think▷|<\|begin_of_thought\|>|<\|channel\|>analysis",
    re.IGNORECASE,
)
_CLOSE = re.compile(rf"<\s?/\s?{_NAMES}\s?>|\[/THINK\]|◁/think▷|<\|end_of_thought\|>", re.IGNORECASE)


class _Said(NamedTuple):
    text: str
    unfinished: bool


def _without_thoughts(turn: str) -> _Said:
    """What stands after the last closing tag and before an opening tag that never closes.

    The last closing tag decides, not the depth: a model may name `<think>` while it thinks, and some
    templates pre-fill the opening tag that the model then writes again.
    """
    if "<" not in turn and "[" not in turn and "◁" not in turn:
        return _Said(turn, unfinished=False)
    first_close = last_close = None
    for last_close in _CLOSE.finditer(turn):
        first_close = first_close or last_close
    after = turn[last_close.end() :] if last_close else turn
    opened = _OPEN.search(after)
    if opened:
        after = after[: opened.start()]
    if last_close and not after.strip() and first_close:
        # Thoughts last: `18 <think>checked</think>`. Without an opening tag all of it was thought.
        began = _OPEN.search(turn, 0, first_close.start())
        after = turn[: began.start()] if began else ""
    return _Said(after, unfinished=opened is not None)


_END_TOKEN = re.compile(
    r"<\|(?:im_end|eot_id|eom_id|endoftext|end_of_text|end|return|END_OF_TURN_TOKEN|end_of_turn|im_start)\|>"
    r"|</s>|<end_of_turn>|<eos>|<pad>|<｜end▁of▁sentence｜>|\[EOS\]"
)


def _before_end_token(text: str) -> str:
    if "<" not in text and "[" not in text:
        return text
    start = 0
    for match in _END_TOKEN.finditer(text):
        # Some tokenizers begin a text with the token that also ends it.
        if _is_text(text[start : match.start()]):
            return text[start : match.start()]
        start = match.end()
    return text[start:]


# -------------------------------------------------------------------------------------------- folding

_NON_ASCII = re.compile(r"[^\x00-\x7f]")


def _folding_table() -> dict[str, str]:
    table = dict.fromkeys("\u200b\u200c\u200d\u2060\ufeff\u200e\u200f\u00ad", "")
    table |= dict.fromkeys(
        "\u00a0\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u202f\u205f\u3000", " "
    )
    table |= dict.fromkeys("\u2212\ufe63\u2012", "-")
    table |= dict.fromkeys("\u2018\u2019\u201a\u02bc", "'") | dict.fromkeys(
        "\u201c\u201d\u201e\u00ab\u00bb", '"'
    )
    table |= {
        "½": " 1/2",
        "¼": " 1/4",
        "¾": " 3/4",
        "⅓": " 1/3",
        "⅔": " 2/3",
        "⅛": " 1/8",
        "⅕": " 1/5",
        "⁄": "/",
    }
    # Full-width forms, bold and italic letters and digits, and the digits of other scripts.
    for first, last in (
        (0xFF01, 0xFF5E),
        (0x1D400, 0x1D7FF),
        (0x0660, 0x0669),
        (0x06F0, 0x06F9),
        (0x0966, 0x096F),
    ):
        for code in range(first, last + 1):
            character = chr(code)
            digit = unicodedata.decimal(character, None)
            table[character] = unicodedata.normalize("NFKC", character) if digit is None else str(digit)
    return table


_FOLDS = _folding_table()


def fold(text: str) -> str:
    """Fold look-alike characters to ASCII; other characters stay.

    >>> fold("\\uff34\\uff48\\uff45 \\u2212\\uff15")
    'The -5'
    """
    if text.isascii():
        return text
    return _NON_ASCII.sub(lambda match: _FOLDS.get(match[0], match[0]), text)
