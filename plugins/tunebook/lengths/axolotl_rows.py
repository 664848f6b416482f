"""What Axolotl reads in a row: the messages of a conversation, or the columns of its own alpaca."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from tunebook.errors import TunebookError

Row = Mapping[str, Any]

# axolotl/prompters.py: AlpacaPrompter with the style `instruct`.
_WITH_INPUT = (
    "Below is an instruction that describes a task, paired with an input that provides further context. "
    "Write a response that appropriately completes the request.\n\n"
    "### Instruction:\n{instruction}\n\n### Input:\n{input}\n\n### Response:\n"
)
_WITHOUT_INPUT = (
    "Below is an instruction that describes a task. Write a response that appropriately completes the "
    "request.\n\n### Instruction:\n{instruction}\n\n### Response:\n"
)

ROLES = {"human": "user", "gpt": "assistant"}
"""Aliases of roles where a block names none; the others are called what they are."""


def conversation_reader(block: Row, template: str) -> Callable[[Row], list[dict[str, Any]]]:
    """Return the function that turns a row into the messages that `type: chat_template` renders.

    It raises TunebookError for messages whose extra fields the template reads, for tools, and for contents in
    parts: what Axolotl makes of those is not done here.
    """
    column = str(block.get("field_messages") or "messages")
    mapping = block.get("message_property_mappings") or {
        "role": "role",
        "content": "content",
        "reasoning_content": "reasoning_content",
    }
    aliases = block.get("roles")
    roles = {source: role for role, sources in aliases.items() for source in sources} if aliases else ROLES

    def read(row: Row) -> list[dict[str, Any]]:
        messages = row.get(column)
        if not isinstance(messages, list) or not messages:
            raise TunebookError(
                f"the column {column!r} holds no list of messages",
                fix="name it as `field_messages` of the block",
            )
        if row.get("tools"):
            raise TunebookError("the row holds tools, which are not measured", fix="measure with --chars")
        turns = []
        for message in messages:
            turn = {
                key: message[source] for key, source in mapping.items() if message.get(source) is not None
            }
            role = str(turn.get("role"))
            turn["role"] = roles.get(role, role)
            extra = [
                key
                for key, value in message.items()
                if key not in mapping.values() and value is not None and key in template
            ]
            if extra or not isinstance(turn.get("content", ""), str):
                what = (
                    f"the field {extra[0]!r}, which the chat template may read"
                    if extra
                    else "content in parts"
                )
                raise TunebookError(f"a message has {what}; that is not measured", fix="measure with --chars")
            turns.append(turn)
        if turns[0]["role"] != "system" and row.get("system") is not None:
            turns.insert(0, {"role": "system", "content": row["system"]})
        return turns

    return read


def alpaca_texts(row: Row) -> tuple[str, str]:
    """Return prompt and answer of a row as `type: alpaca` writes them."""
    given = text_of(row.get("input") or "")
    form = _WITH_INPUT if given else _WITHOUT_INPUT
    return form.format(instruction=row.get("instruction"), input=given), text_of(row.get("output") or "")


def text_of(value: Any) -> str:
    """Return a value that has to be text.

    Raises:
        TunebookError: It is none.
    """
    if not isinstance(value, str):
        raise TunebookError(f"{value!r} is no text, on which Axolotl stops", fix="write it in quotes")
    return value
