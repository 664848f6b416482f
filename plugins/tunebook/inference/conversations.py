"""What a row asks: a conversation, read from any of the usual shapes of a row."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple

from tunebook.errors import TunebookError

if TYPE_CHECKING:
    from collections.abc import Mapping

OUTPUT_COLUMNS = ("prediction", "finish_reason", "prompt_tokens", "completion_tokens")
"""Columns that are added to a row's own; with the base model too, each again with `_base`."""

_ROLES = {
    **dict.fromkeys(("human", "user"), "user"),
    **dict.fromkeys(("gpt", "assistant", "model", "bot"), "assistant"),
    "system": "system",
}
# The wording of scripts/movie_prompts.py, which tests hold equal.
_QUESTION = "Will the user like the candidate movie? Answer Yes or No."
_WATCHED = "Movies the user has watched, oldest first:"
_CANDIDATE = "Candidate movie:"

_FORMS = (
    '{"prompt"}, {"instruction", "input"}, {"question"}, {"messages"}, {"conversations"} (sharegpt) or '
    '{"history_titles", "candidate_title"}'
)


class Conversation(NamedTuple):
    """What a model is to answer: its messages end with the user's."""

    messages: list[dict[str, str]]
    """`{"role": "system" | "user" | "assistant", "content": text}`; a system message comes first."""
    reference: str | None
    """The answer that closes the row's conversation, where it holds one."""


def conversation_of(row: Mapping[str, Any], where: str, *, system: str | None = None) -> Conversation:
    """Read a row's conversation.

    A closing answer in `messages` or `conversations` is what the model is to give: it is omitted. Rows of
    `history_titles` and `candidate_title` are worded as `scripts/prepare_movielens.py` words training rows.

    Args:
        row: One row of the file.
        where: File and row, for messages.
        system: A system prompt that replaces the row's own.

    Raises:
        TunebookError: The row has none of the shapes, or a turn is not text or out of order.
    """
    turns: list[dict[str, str]]
    if "messages" in row or "conversations" in row:
        turns = _turns(row, where)
    else:
        turns = [*_history(row, where), {"role": "user", "content": _prompt(row, where)}]
    if row.get("system"):
        if turns and turns[0]["role"] == "system":
            raise _fault(where, "has a system message and a column `system`", "keep one of them")
        turns.insert(0, {"role": "system", "content": _text(row["system"], where, "system")})
    reference = turns.pop()["content"] if turns and turns[-1]["role"] == "assistant" else None
    if system is not None:
        turns = [turn for turn in turns if turn["role"] != "system"]
        turns = [{"role": "system", "content": system}, *turns] if system else turns
    _check_order(turns, where)
    return Conversation(turns, reference)


def _turns(row: Mapping[str, Any], where: str) -> list[dict[str, str]]:
    name = "messages" if "messages" in row else "conversations"
    found = row[name]
    if isinstance(found, str):  # Parquet and CSV hold them as text
        try:
            found = json.loads(found)
        except ValueError:
            found = None
    if not isinstance(found, list) or not all(isinstance(turn, dict) for turn in found):
        raise _fault(
            where, f"`{name}` is not a list of turns", 'write [{"role": "user", "content": "..."}, ...]'
        )
    turns = []
    for number, turn in enumerate(found, 1):
        role = turn.get("role", turn.get("from"))
        if role not in _ROLES:
            known = ", ".join(_ROLES)
            raise _fault(where, f"turn {number} of `{name}` is by {role!r}", f"its role is one of {known}")
        content = turn.get("content", turn.get("value"))
        turns.append({"role": _ROLES[role], "content": _text(content, where, f"turn {number} of `{name}`")})
    return turns


def _history(row: Mapping[str, Any], where: str) -> list[dict[str, str]]:
    """LLaMA-Factory's `history`: pairs of a question and its answer."""
    turns = []
    for pair in row.get("history") or []:
        if not isinstance(pair, list) or len(pair) != 2:
            raise _fault(where, "`history` holds no pairs", 'write [["question", "answer"], ...]')
        for role, content in zip(("user", "assistant"), pair, strict=True):
            turns.append({"role": role, "content": _text(content, where, "history")})
    return turns


def _prompt(row: Mapping[str, Any], where: str) -> str:
    if "instruction" in row:
        parts = [row["instruction"], row.get("input")]
        # As LLaMA-Factory joins them.
        return "\n".join(_text(part, where, "instruction or input") for part in parts if part)
    for name in ("prompt", "question"):
        if name in row:
            return _text(row[name], where, name)
    if "candidate_title" in row:
        return _recommendation(row, where)
    raise _fault(where, f"has none of the known shapes; its columns are {', '.join(row)}", f"write {_FORMS}")


def _recommendation(row: Mapping[str, Any], where: str) -> str:
    titles = row.get("history_titles") or []
    if not isinstance(titles, list):
        raise _fault(where, "`history_titles` is not a list", 'write ["title", ...]')
    genres = row.get("history_genres") or [[]] * len(titles)
    if not isinstance(genres, list) or len(genres) != len(titles):
        raise _fault(where, "`history_genres` and `history_titles` differ in length", "give each film a list")
    films = [_film(title, kinds) for title, kinds in zip(titles, genres, strict=True)]
    candidate = _film(row["candidate_title"], row.get("candidate_genres"))
    return "\n".join([_QUESTION, _WATCHED, *films, _CANDIDATE, candidate])


def _film(title: object, genres: object) -> str:
    return f"{title} | {', '.join(map(str, genres))}" if isinstance(genres, list) and genres else str(title)


def _text(value: object, where: str, name: str) -> str:
    if isinstance(value, str):
        return value
    raise _fault(where, f"{name} is a {type(value).__name__}, not a text", "write it in quotes")


def _check_order(turns: list[dict[str, str]], where: str) -> None:
    roles = [turn["role"] for turn in turns if turn["role"] != "system"]
    expected = ["user", "assistant"] * len(roles)
    if not roles or len(roles) % 2 == 0 or roles != expected[: len(roles)]:
        shown = ", ".join(turn["role"] for turn in turns) or "nothing"
        raise _fault(where, f"its turns are {shown}", "begin and end with the user, and let both take turns")
    if any(turn["role"] == "system" for turn in turns[1:]):
        raise _fault(where, "a system message comes after another turn", "put it first")


def _fault(where: str, problem: str, fix: str) -> TunebookError:
    return TunebookError(f"{where}: {problem}", fix=fix)
