"""What a server's answer says, in any of the forms that servers give it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import httpx

_SHOWN = 300


class NoAnswerError(Exception):
    """One question got no answer; says why. The others may."""


class Reply(NamedTuple):
    """What a server answered."""

    text: str
    reasoning: str
    """The model's thoughts where the server tells them apart; empty elsewhere."""
    cut: bool
    """The server stopped at the limit of tokens."""
    prompt_tokens: int | None
    generated_tokens: int | None


class RefusedError(NoAnswerError):
    """The server refuses a request as it stands.

    Args:
        status: 400, 422, ...
        said: The server's own message.
    """

    def __init__(self, status: int, said: str) -> None:
        super().__init__(f"status {status}: {said}")
        self.status = status


def json_object(response: httpx.Response) -> Mapping[str, Any]:
    """Return the object that a response is.

    Raises:
        NoAnswerError: It is another kind of JSON.
    """
    values = response.json()
    if not isinstance(values, dict):
        raise NoAnswerError(f"an answer that is a {type(values).__name__}: {response.text[:80]!r}")
    return values


def reply_of(values: Mapping[str, Any], read: Callable[[Mapping[str, Any]], tuple[str, str]]) -> Reply:
    """Return the answer in a response.

    Args:
        values: The response.
        read: Gives text and thoughts of a choice.

    Raises:
        NoAnswerError: There is none in it.
    """
    try:
        choice = values["choices"][0]
        text, reasoning = read(choice)
    except (KeyError, IndexError, TypeError) as err:
        shown = json.dumps(dict(values), ensure_ascii=False)[:_SHOWN]
        raise NoAnswerError(f"an answer without choices: {shown}") from err
    usage = values.get("usage") or {}
    return Reply(
        text=text,
        reasoning=reasoning,
        cut=choice.get("finish_reason") == "length",
        prompt_tokens=_count(usage.get("prompt_tokens")),
        generated_tokens=_count(usage.get("completion_tokens")),
    )


def chat_text(choice: Mapping[str, Any]) -> tuple[str, str]:
    """Return text and thoughts of a choice of a chat completion."""
    message = choice["message"]
    text = message.get("content")
    # vLLM has called it `reasoning` too.
    reasoning = message.get("reasoning_content") or message.get("reasoning") or ""
    if text is None and message.get("tool_calls"):
        raise NoAnswerError("the model called a tool instead of answering")
    return str(text or ""), str(reasoning)


def _count(value: Any) -> int | None:
    return value if type(value) is int else None


def message_of(response: httpx.Response) -> str:
    """Return a server's own words for what is wrong, in any of the usual places."""
    try:
        values = response.json()
    except (json.JSONDecodeError, UnicodeDecodeError):
        return " ".join(response.text.split())[:_SHOWN]
    for path in (("error", "message"), ("message",), ("detail",), ("error",)):
        found = values
        for key in path:
            found = found.get(key) if isinstance(found, dict) else None
        if isinstance(found, str):
            return found[:_SHOWN]
    return response.text[:_SHOWN]
