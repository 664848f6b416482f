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

from tunebook.metrics.turns import has_text, last_assistant_turn

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
      an answer before it counts.
    - Up to the first end-of-turn token.
    - Non-breaking and zero-width spaces, full-width forms, minus signs and quotes of other scripts
      are folded to ASCII.

    >>> visible("<think>It floats. So yes?</think> No.<|im_end|>")
    Visible(text='No.', reason=None)
    >>> visible("<think>It floats, so")
    Visible(text='', reason='unfinished_think')
    """
    said, reason = shown(output, turn=True)
    if len(said) > MAX_VISIBLE:
        said = f"{said[:_HEAD]}\n{said[-_TAIL:]}"
    said = fold(said).strip()
    # What is folded away altogether, such as zero-width spaces, leaves nothing to see.
    return Visible(said, None) if said else Visible("", reason or "empty")


def shown(output: str, *, turn: bool = False) -> Visible:
    """Return what a reader sees, whole and in its own characters, in Unicode's composed form (NFC).

    For figures that compare texts, of predictions and references alike: thoughts are no part of the answer
    on either side, and a text always equals itself.

    Args:
        output: A prediction or a reference.
        turn: Take the last assistant turn of what holds a conversation. Not for texts that may quote one.

    >>> shown("<think>\\n\\n</think>\\n\\nIt’s fine")
    Visible(text='It’s fine', reason=None)
    """
    if "&" in output and "&lt;" in output:
        output = output.replace("&lt;", "<").replace("&gt;", ">")
    said, unfinished = _without_thoughts(last_assistant_turn(output) if turn else output)
    said = _before_end_token(said).strip()
    if said:
        return Visible(said if said.isascii() else unicodedata.normalize("NFC", said), None)
    return Visible("", "unfinished_think" if unfinished else "empty")


def reference_text(reference: str, *, turn: bool = False) -> str:
    """Return what a reader sees of a reference; see `shown`.

    Raises:
        ValueError: That is nothing.
    """
    text, reason = shown(reference, turn=turn)
    if reason is not None:
        why = "is blank" if reason == "empty" else "ends inside its thoughts"
        raise ValueError(f"the reference {why}")
    return text


# ------------------------------------------------------------------------------------------- thoughts

_NAMES = r"(?:seed:)?(?:think(?:ing)?|thoughts?|reason(?:ing)?|reflection|analysis|scratchpad|cot)"
_OPEN = re.compile(
    rf"<(?:\s?{_NAMES}(?:\s[^<>\n]{{0,60}})?>|\|begin_of_thought\|>|\|channel\|>analysis)", re.IGNORECASE
)
_CLOSE = re.compile(rf"<(?:\s?/\s?{_NAMES}\s?>|\|end_of_thought\|>)", re.IGNORECASE)
# Magistral's and Kimi's tags, brought to the common form before the scan.
_OTHER_TAGS = (
    ("[THINK]", "<think>"),
    ("[/THINK]", "</think>"),
    ("◁think▷", "<think>"),
    ("◁/think▷", "</think>"),
)


class _Said(NamedTuple):
    text: str
    unfinished: bool


def _without_thoughts(turn: str) -> _Said:
    """The text after the last closing tag and before an opening tag that never closes.

    The last closing tag decides, not the depth: a model may name `<think>` while it thinks, and some
    templates pre-fill the opening tag that the model then writes again.
    """
    if "[" in turn or "◁" in turn:
        turn = _with_common_tags(turn)
    if "<" not in turn:
        return _Said(turn, unfinished=False)
    closing = _last_closing_tag(turn)
    after = turn[closing.end() :] if closing else turn
    opened = _OPEN.search(after)
    if opened:
        after = after[: opened.start()]
    if closing and not after.strip():
        # Thoughts last: `18 <think>checked</think>`. Without an opening tag all of it was thought.
        began = _OPEN.search(turn)
        first_closing = _CLOSE.search(turn)
        said_first = began and first_closing and began.start() < first_closing.start()
        after = turn[: began.start()] if began and said_first else ""
    return _Said(after, unfinished=opened is not None)


def _with_common_tags(turn: str) -> str:
    for tag, common in _OTHER_TAGS:
        if tag in turn:
            turn = turn.replace(tag, common)
    return turn


def _last_closing_tag(turn: str) -> re.Match[str] | None:
    """Found from the end, since thoughts are long and the answer after them is short."""
    at = turn.rfind("<")
    while at >= 0:
        tag = _CLOSE.match(turn, at)
        if tag:
            return tag
        at = turn.rfind("<", 0, at)
    return None


_END_TOKEN = re.compile(
    r"<\|(?:im_end|eot_id|eom_id|endoftext|end_of_text|end|return|END_OF_TURN_TOKEN|end_of_turn|im_start)\|>"
    r"|</s>|<end_of_turn>|<eos>|<pad>|<｜end▁of▁sentence｜>"
)


def _before_end_token(text: str) -> str:
    if "[" in text and "[EOS]" in text:
        text = text.replace("[EOS]", "<eos>")  # a pattern that begins with one character is a fast one
    if "<" not in text:
        return text
    start = 0
    for match in _END_TOKEN.finditer(text):
        # Some tokenizers begin a text with the token that also ends it.
        if has_text(text[start : match.start()]):
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
        "\u066b": ".",
        "\u066c": ",",
        "²": "^2",
        "³": "^3",
    }
    # Full-width forms, bold and italic letters and digits, and the digits of other scripts.
    digits = (
        0x660,
        0x6F0,
        0x7C0,
        0x966,
        0x9E6,
        0xA66,
        0xAE6,
        0xB66,
        0xBE6,
        0xC66,
        0xCE6,
        0xD66,
        0xE50,
        0xED0,
    )
    ranges = [(0xFF01, 0xFF5E), (0x1D400, 0x1D7FF), *((zero, zero + 9) for zero in (*digits, 0x1040, 0x17E0))]
    for first, last in ranges:
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
