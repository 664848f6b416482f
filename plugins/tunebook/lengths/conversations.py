"""Rows of a registry entry as LLaMA-Factory's converters turn them into conversations.

Rows that the engine leaves out are named (llamafactory/data/converter.py, data/processor/supervised.py).
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple

from tunebook.errors import TunebookError
from tunebook.lengths.columns import MEDIA, Names, names_of
from tunebook.lengths.templates import Message

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from tunebook.types import DatasetEntry

_PLACEHOLDERS = ("<image>", "<video>", "<audio>")


class Conversation(NamedTuple):
    """A row as the engine trains on it: questions at even places, answers at odd ones."""

    messages: list[Message]
    system: str


class LeftOut(NamedTuple):
    """A row that the engine leaves out, with one line in its log or none."""

    reason: str


def converter(
    entry: DatasetEntry, *, multimodal: bool
) -> Callable[[Mapping[str, Any]], Conversation | LeftOut]:
    """Return the function that reads a row of `entry`.

    Args:
        entry: Of a registry.
        multimodal: The template turns placeholders such as `<image>` into tokens.

    The function raises TunebookError for a row that stops the engine, or that holds tool calls or media,
    whose tokens are not known here.

    Raises:
        TunebookError: The entry is of a kind that supervised training does not read.
    """
    formatting = entry.values.get("formatting", "alpaca")
    for key in ("ranking", "kto_tag"):
        if entry.values.get(key) or names_of(entry).columns.get(key):
            raise TunebookError(
                f"{entry.registry}: {entry.name}: {key!r} data is for preference training: not measured",
                fix="name a dataset of questions and answers",
            )
    readers = {"alpaca": _alpaca, "sharegpt": _sharegpt, "openai": _openai}
    if formatting not in readers:
        raise TunebookError(
            f"{entry.registry}: {entry.name}: formatting is {formatting!r}",
            fix=f"use one of {', '.join(readers)}",
        )
    names, read = names_of(entry), readers[formatting]

    def convert(row: Mapping[str, Any]) -> Conversation | LeftOut:
        _refuse_media(row, names)
        found = read(row, names)
        if isinstance(found, Conversation) and multimodal:
            _refuse_placeholders(found)
        return found

    return convert


def _alpaca(row: Mapping[str, Any], names: Names) -> Conversation | LeftOut:
    columns = names.columns
    messages: list[Message] = []
    history = _value(row, columns.get("history"))
    if isinstance(history, list):
        for question, answer in history:
            messages += [
                Message("user", _text(question, "history")),
                Message("assistant", _text(answer, "history")),
            ]
    parts = [(columns[key], _value(row, columns[key])) for key in ("prompt", "query")]
    question = "\n".join(_text(value, str(name)) for name, value in parts if value)
    response = _value(row, columns["response"])
    if not isinstance(response, str):
        shown = "is empty" if response is None else f"is a {type(response).__name__}, not text"
        return LeftOut(f"the answer {shown}" if columns.get("response") else "the entry names no response")
    messages += [Message("user", question), Message("assistant", response)]
    return Conversation(messages, _optional(row, columns.get("system")))


def _sharegpt(row: Mapping[str, Any], names: Names) -> Conversation | LeftOut:
    role_key, content_key = names.tags["role_tag"] or "", names.tags["content_tag"] or ""
    found, system = _split_system(row, names)
    questions = (names.tags["user_tag"], names.tags["observation_tag"])
    answers = (names.tags["assistant_tag"], names.tags["function_tag"])
    messages: list[Message] = []
    for place, message in enumerate(found):
        role = message.get(role_key)
        if role not in (answers if place % 2 else questions):
            return LeftOut("questions and answers do not take turns")
        messages.append(_message(role, message.get(content_key), names))
    if len(messages) % 2:
        return LeftOut("the last question has no answer")
    return Conversation(messages, system) if messages else LeftOut("there are no messages")


def _openai(row: Mapping[str, Any], names: Names) -> Conversation | LeftOut:
    role_key, content_key = names.tags["role_tag"] or "", names.tags["content_tag"] or ""
    found, system = _split_system(row, names)
    messages: list[Message] = []
    responses: list[str] = []
    for message in found:
        role, content = message.get(role_key), message.get(content_key)
        if message.get("tool_calls"):
            raise _tools()
        if role == names.tags["observation_tag"]:
            responses.append(_text(content, content_key))
            continue
        if responses:
            messages.append(Message("observation", "\n</tool_response>\n<tool_response>\n".join(responses)))
            responses = []
        if role == names.tags["system_tag"]:
            return LeftOut("a system message stands behind the first message")
        if role not in (names.tags["user_tag"], names.tags["assistant_tag"], names.tags["function_tag"]):
            raise TunebookError(
                f"a message has the role {role!r}, on which LLaMA-Factory stops",
                fix='name the roles in "tags"',
            )
        messages.append(_message(role, content, names))
    if any((message.role == "assistant") != bool(place % 2) for place, message in enumerate(messages)):
        return LeftOut("questions and answers do not take turns")
    if len(messages) % 2:
        return LeftOut("the last question has no answer")
    # The engine's own addition to every conversation of this formatting.
    if not system:
        system = "detailed thinking off"
    elif "detailed thinking on" not in system and "detailed thinking off" not in system:
        system += "\ndetailed thinking off"
    return Conversation(messages, system) if messages else LeftOut("there are no messages")


def _split_system(row: Mapping[str, Any], names: Names) -> tuple[list[Mapping[str, Any]], str]:
    """The messages of a row, and its system message: the first of them, or a column."""
    column = names.columns["messages"] or ""
    messages = row.get(column)
    if not isinstance(messages, list) or not all(isinstance(message, dict) for message in messages):
        raise TunebookError(
            f"the column {column!r} holds no list of messages",
            fix='name the column as "messages" in "columns"',
        )
    tag = names.tags["system_tag"]
    if tag and messages and messages[0].get(names.tags["role_tag"] or "") == tag:
        content = messages[0].get(names.tags["content_tag"] or "")
        return messages[1:], _text(content, "system") if content else ""
    return messages, _optional(row, names.columns.get("system"))


def _message(role: Any, content: Any, names: Names) -> Message:
    if role == names.tags["function_tag"]:
        raise _tools()
    text = _text(content, names.tags["content_tag"] or "")
    if role == names.tags["observation_tag"]:
        return Message("observation", text)
    return Message("user" if role == names.tags["user_tag"] else "assistant", text)


def _refuse_media(row: Mapping[str, Any], names: Names) -> None:
    if _value(row, names.columns["tools"]):
        raise _tools()
    for key in MEDIA:
        column = names.columns[key]
        if _value(row, column):
            raise TunebookError(
                f"the column {column!r} holds {key}, whose tokens only the model's processor knows",
                fix="measure the text alone with --chars",
            )


def _refuse_placeholders(conversation: Conversation) -> None:
    for message in conversation.messages:
        for placeholder in _PLACEHOLDERS:
            if placeholder in message.text:
                raise TunebookError(
                    f"a message holds {placeholder} without a file for it: LLaMA-Factory stops here",
                    fix=f"take {placeholder} out of the text",
                )


def _tools() -> TunebookError:
    return TunebookError(
        "the row holds tools or tool calls, for which LLaMA-Factory has many forms: not measured",
        fix="measure with --chars",
    )


def _value(row: Mapping[str, Any], column: str | None) -> Any:
    return row.get(column) if column else None


def _optional(row: Mapping[str, Any], column: str | None) -> str:
    value = _value(row, column)
    return _text(value, str(column)) if value else ""


def _text(value: Any, column: str) -> str:
    if not isinstance(value, str):
        raise TunebookError(
            f"{column!r} holds {json.dumps(value, default=str)[:60]}, not text: LLaMA-Factory stops here",
            fix="write it in quotes",
        )
    return value
