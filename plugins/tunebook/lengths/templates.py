"""LLaMA-Factory's chat templates, from a snapshot of its pinned version, and the pieces they make of a row.

The snapshot is made by scripts/snapshot_templates.py from the installed engine, which is not imported here.
The engine tokenises each slot of a template apart from its neighbours, so lengths of slots add up; that is
why a row is given as pieces to count and not as one text (llamafactory/data/template.py: `_encode`).
"""

from __future__ import annotations

import difflib
import functools
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from tunebook.errors import TunebookError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_FOLDER = Path(__file__).resolve().parent

Slot = Any
"""Text with placeholders, `{"token": ...}` for one token, or `{"special": "bos_token" | "eos_token"}`."""

Piece = str | int
"""Text to be tokenised on its own, or a number of tokens that is known."""


class Message(NamedTuple):
    """One message of a conversation."""

    role: Literal["user", "assistant", "observation"]
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Template:
    """One of LLaMA-Factory's templates."""

    name: str
    kind: Literal["plain", "fused_system", "reasoning"]
    """How a row is put together: system message before the first question, inside it, or with thinking."""
    user: Sequence[Slot]
    assistant: Sequence[Slot]
    system: Sequence[Slot]
    observation: Sequence[Slot]
    prefix: Sequence[Slot]
    default_system: str
    stop_words: tuple[str, ...]
    """Added to the tokenizer as special tokens; the first replaces its EOS where `replace_eos` says so."""
    thought_words: tuple[str, str]
    empty_thought: str
    """What stands for a thought in an answer that has none; of reasoning templates only."""
    efficient_eos: bool
    """The answer's slots close no turn: the engine puts one EOS at the end of the row."""
    replace_eos: bool
    multimodal: bool
    """Rows may hold images, videos or audio, which become tokens in ways not known here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Thinking:
    """The recipe's keys that reasoning templates read."""

    enable_thinking: bool | None = True
    mask_history: bool = False
    preserve_thinking: bool = False


@functools.cache
def snapshot() -> Mapping[str, Any]:
    """Return the snapshot: `version` of the engine, and `templates` by name."""
    found = sorted(_FOLDER.glob("llamafactory-*.json"))
    values: Mapping[str, Any] = json.loads(found[-1].read_text(encoding="utf-8"))
    return values


def load_template(name: str) -> Template:
    """Return the template of that name.

    Raises:
        TunebookError: The pinned engine has none.
    """
    known = snapshot()["templates"]
    if name not in known:
        close = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
        raise TunebookError(
            f"LLaMA-Factory {snapshot()['version']} has no template {name!r}",
            fix=f"did you mean {close[0]}?" if close else "see LLaMA-Factory's list of models and templates",
        )
    values = dict(known[name])
    values["stop_words"] = tuple(values["stop_words"])
    first, last = values["thought_words"]
    return Template(name=name, **{**values, "thought_words": (first, last)})


def pieces(
    template: Template,
    messages: Sequence[Message],
    *,
    system: str,
    thinking: Thinking,
    bos_tokens: int,
    eos_tokens: int,
) -> list[list[Piece]]:
    """Return the pieces of each message, questions and answers by turns.

    Args:
        messages: An even number: questions (or observations) at even places, answers at odd ones.
        system: The row's system message, empty for the template's own.
        bos_tokens: Tokens of a BOS slot: 1, or 0 where the tokenizer has no BOS.
        eos_tokens: The same for EOS.
    """
    special: dict[str, Piece] = {"bos_token": bos_tokens, "eos_token": eos_tokens}
    return _pieces(template, messages, system=system, thinking=thinking, special=special)


def texts(
    template: Template,
    messages: Sequence[Message],
    *,
    system: str,
    thinking: Thinking,
    special: Mapping[str, str],
) -> list[list[str]]:
    """Return the pieces of each message with the text of their tokens, to be tokenised one by one.

    Args:
        messages: As for `pieces`.
        system: As for `pieces`.
        special: What the tokenizer calls `bos_token` and `eos_token`; one that is missing is left out.
    """
    named: dict[str, Piece] = {"bos_token": "", "eos_token": "", **special}
    found = _pieces(template, messages, system=system, thinking=thinking, special=named)
    return [[str(piece) for piece in made] for made in found]


def without_thoughts(template: Template, messages: Sequence[Message], thinking: Thinking) -> list[Message]:
    """Return the messages, less the thoughts that the recipe takes out of answers."""
    if template.kind != "reasoning":
        return list(messages)
    kept = _without_thoughts(template, messages, thinking)
    return [message._replace(text=text) for message, text in zip(messages, kept, strict=True)]


def _pieces(
    template: Template,
    messages: Sequence[Message],
    *,
    system: str,
    thinking: Thinking,
    special: Mapping[str, Piece],
) -> list[list[Piece]]:
    reasoning = template.kind == "reasoning"
    texts = _without_thoughts(template, messages, thinking) if reasoning else [one.text for one in messages]
    found: list[list[Piece]] = []
    for place, (message, text) in enumerate(zip(messages, texts, strict=True)):
        made: list[Piece] = []
        before = ""
        if place == 0:
            made += _fill(template.prefix, special)
            shown = system or template.default_system
            if shown and template.kind == "fused_system":
                # The engine takes the first slot alone.
                (before,) = (str(piece) for piece in _fill(template.system[:1], special, content=shown))
            elif shown:
                made += _fill(template.system, special, content=shown)
        if message.role == "user":
            index = {} if template.kind == "fused_system" else {"idx": str(place // 2)}
            made += _fill(template.user, special, content=before + text, **index)
        else:
            slots = template.assistant if message.role == "assistant" else template.observation
            made += _fill(slots, special, content=text)
        found.append(made)
    if reasoning:
        _add_empty_thoughts(template, texts, thinking, found)
    return found


def closing(template: Template) -> list[Slot]:
    """Return the slots, or the rest of one, that close an answer: what stands behind its text."""
    for place, slot in enumerate(template.assistant):
        if isinstance(slot, str) and "{{content}}" in slot:
            rest = slot.partition("{{content}}")[2]
            return [*([rest] if rest else []), *template.assistant[place + 1 :]]
    raise ValueError(f"{template.name}: no slot of the answer holds its text")


def _fill(slots: Sequence[Slot], special: Mapping[str, Piece], **values: str) -> list[Piece]:
    """As StringFormatter.apply: each placeholder once a slot, in the order of `values`."""
    as_text = isinstance(special["eos_token"], str)
    made: list[Piece] = []
    for slot in slots:
        if isinstance(slot, str):
            for name, value in values.items():
                slot = slot.replace("{{" + name + "}}", value, 1)
            made.append(slot)
        else:
            token: Piece = slot["token"] if as_text and "token" in slot else 1
            made.append(special[slot["special"]] if "special" in slot else token)
    return made


def _without_thoughts(template: Template, messages: Sequence[Message], thinking: Thinking) -> list[str]:
    """The texts, less the thoughts that the recipe takes out of answers."""
    texts = [message.text for message in messages]
    removed: list[int] = []
    if thinking.enable_thinking is False:
        removed += range(1, len(texts), 2)
    if _drops_history(thinking):
        removed += range(1, len(texts) - 2, 2)
    for place in removed:
        texts[place] = _thought(template.thought_words).sub("", texts[place]).lstrip("\n")
    return texts


def _add_empty_thoughts(
    template: Template, texts: Sequence[str], thinking: Thinking, found: list[list[Piece]]
) -> None:
    """An answer without a thought gets an empty one: in the prompt, or with thinking on in the answer."""
    first = len(texts) - 2 if _drops_history(thinking) else 0
    words = [word.strip() for word in template.thought_words]
    for place in range(first, len(texts), 2):
        if any(word in texts[place + 1] for word in words):
            continue
        if thinking.enable_thinking:
            found[place + 1].insert(0, template.empty_thought)
        else:
            found[place].append(template.empty_thought)


def _drops_history(thinking: Thinking) -> bool:
    return thinking.mask_history and not thinking.preserve_thinking


@functools.cache
def _thought(words: tuple[str, str]) -> re.Pattern[str]:
    return re.compile(f"{re.escape(words[0])}(.*?){re.escape(words[1])}", re.DOTALL)
