"""The form of a file that no registry names: which of its columns is what, in the words of a registry entry.

Told from names and first values, completely or not at all: an entry that leaves out a system prompt, a
history or the mark of a bad answer trains on something else, and nobody is told.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

from tunebook.data.rows import iter_table
from tunebook.errors import TunebookError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

_CHARACTERS_LOOKED_AT = 4_000_000
ROWS_LOOKED_AT = 100
"""Of a file, at its start: roles of messages that come later are not known."""

# What LLaMA-Factory reads where an entry has no `tags` (llamafactory/data/parser.py). Where it has some, each
# that is not among them becomes None, and rows with that role are dropped: all are written, or none.
DEFAULT_TAGS = {
    "role_tag": "from",
    "content_tag": "value",
    "user_tag": "human",
    "assistant_tag": "gpt",
    "observation_tag": "observation",
    "function_tag": "function_call",
    "system_tag": "system",
}
_ROLES = {
    "user_tag": ("human", "user", "Human", "User", "prompter"),
    "assistant_tag": ("gpt", "assistant", "Assistant", "bot", "model", "chatgpt"),
    "system_tag": ("system", "System"),
    "observation_tag": ("observation", "tool", "function_response", "ipython"),
    "function_tag": ("function_call", "tool_call"),
}
_CHATML = {"user_tag": "user", "assistant_tag": "assistant", "observation_tag": "tool"}
_CHATS = ("messages", "conversations", "conversation")
# Question, what is asked about, answer. Of two pairs in one file nobody can tell which is meant.
_PAIRS: tuple[tuple[str, str | None, str], ...] = (
    ("instruction", "input", "output"),
    ("instruction", "context", "response"),
    ("instruction", None, "output"),
    ("instruction", None, "response"),
    ("prompt", None, "response"),
    ("prompt", None, "completion"),
    ("prompt", None, "output"),
    ("question", None, "answer"),
    ("question", None, "response"),
    ("query", None, "response"),
    ("problem", None, "solution"),
    ("input", None, "output"),
)
_MEDIA = {"images": ("images", "image"), "videos": ("videos", "video"), "audios": ("audios", "audio")}


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """What a registry entry says of a file, but for its name."""

    values: dict[str, Any]
    """`columns`, `formatting`, `tags`, `ranking`."""
    left_out: tuple[str, ...]
    """Columns that no engine will see."""


def first_rows(path: Path) -> list[dict[str, Any]]:
    """The rows that a form is told from.

    Raises:
        TunebookError: The file cannot be read, or has no rows.
    """
    rows: list[dict[str, Any]] = []
    size = 0
    for row in islice(iter_table(path), ROWS_LOOKED_AT):
        rows.append(row)
        size += sum(len(value) for value in row.values() if isinstance(value, str))
        if size > _CHARACTERS_LOOKED_AT:
            break
    if not rows:
        raise TunebookError(f"{path} holds no rows", fix="name a file with rows")
    return rows


def refuse_other_tables(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Refuse what is read, but as other rows than the user means.

    Raises:
        TunebookError: A CSV file of one column that holds separators, or an object that holds all rows.
    """
    names = list(rows[0])
    if len(names) == 1 and path.suffix == ".csv":
        separator = next((one for one in ";\t|" if one in names[0]), None)
        if separator is not None:
            raise TunebookError(
                f"{path}: its columns seem to be separated by {separator!r}, and engines read commas alone",
                fix="save it with commas",
            )
    if len(rows) == 1 and path.suffix == ".json":
        held = next((name for name in names if _is_chat(rows[0][name]) and name not in _CHATS), None)
        if held is not None or all(_columns(value) for value in rows[0].values()):
            raise TunebookError(
                f"{path} is one object that holds rows, which engines read as one row",
                fix="write the rows themselves, as one array or one object a line",
            )


def _columns(value: object) -> bool:
    """Whether this is a table written by columns: {"a": [...], "b": [...]}."""
    return isinstance(value, dict) and bool(value) and all(isinstance(one, list) for one in value.values())


def form_of(rows: Sequence[Mapping[str, Any]], path: Path) -> Form:
    """Return the form of the rows.

    Args:
        rows: The first of the file.
        path: The file, for messages.

    Raises:
        TunebookError: It cannot be told, or what the rows hold cannot be read by LLaMA-Factory.
    """
    names = list(dict.fromkeys(str(name) for row in rows for name in row))
    chats = [name for name in _CHATS if any(_is_chat(row.get(name)) for row in rows)]
    prompts = [name for name in ("instruction", "prompt", "question", "query") if name in names]
    pair = _pair(names)
    compared = {"chosen", "rejected"} <= set(names)
    if len(chats) > 1 or (chats and pair and not compared):
        raise _unclear(
            path, names, f"both {' and '.join([*chats, *(pair or {}).values()][:2])} could be meant"
        )
    if chats:
        values = _chat(rows, chats[0], path)
        if compared and not any(isinstance(row.get("chosen"), dict) for row in rows):
            raise _unclear(path, names, "beside messages, chosen and rejected have to be one message each")
    elif compared:
        if not prompts or any(
            not isinstance(row.get(key), str) for row in rows for key in ("chosen", "rejected")
        ):
            raise _unclear(path, names, "chosen and rejected have to be texts beside a prompt")
        values = {"columns": {"prompt": prompts[0]}}
        if prompts[0] == "instruction" and "input" in names:
            values["columns"]["query"] = "input"
    elif pair:
        values = {"columns": pair}
    elif "text" in names and not {"label", "labels"} & set(names):
        values = {"columns": {"prompt": "text"}}
    else:
        raise _unclear(path, names)
    columns = values["columns"]
    if compared:
        values["ranking"] = True
        columns |= {"chosen": "chosen", "rejected": "rejected"}
    mark = None if compared else _mark(rows, names, path)
    if mark is not None:
        columns["kto_tag"] = mark
    columns |= {
        name: name for name in ("system", "history", "tools") if name in names and name not in columns
    }
    if chats:
        columns.pop("history", None)
    columns |= {
        key: next(n for n in given if n in names) for key, given in _MEDIA.items() if {*given} & {*names}
    }
    used = set(columns.values())
    return Form(values=values, left_out=tuple(name for name in names if name not in used))


def _pair(names: Sequence[str]) -> dict[str, str] | None:
    if {"prompt", "question", "response"} <= set(names):  # per-node CSV files as people write them
        return {"system": "prompt", "prompt": "question", "response": "response"}
    found = [pair for pair in _PAIRS if all(name in names for name in pair if name)]
    if not found:
        return None
    question, about, answer = found[0]
    if any(other[2] not in {answer, question, about} for other in found):
        return None
    return {"prompt": question, **({"query": about} if about else {}), "response": answer}


def _is_chat(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(one, dict) for one in value)


def _chat(rows: Sequence[Mapping[str, Any]], name: str, path: Path) -> dict[str, Any]:
    messages = [one for row in rows if _is_chat(row.get(name)) for one in row[name]]
    keys = ("role", "content") if "role" in messages[0] else ("from", "value")
    if any(keys[0] not in one for one in messages):
        raise _unclear(path, [name], f"its messages have the keys {', '.join(messages[0])}")
    if any(isinstance(one.get(keys[1]), list) for one in messages):
        raise TunebookError(
            f"{path}: messages of {name} hold their content in parts, which LLaMA-Factory does not read",
            fix="write each content as one text, <image> where a picture belongs, and the files under images",
        )
    tags = {"role_tag": keys[0], "content_tag": keys[1]}
    roles = dict.fromkeys(str(one[keys[0]]) for one in messages)
    unknown = [role for role in roles if not any(role in known for known in _ROLES.values())]
    twice = [known for known in _ROLES.values() if len([role for role in roles if role in known]) > 1]
    if unknown or twice:
        odd = unknown or [role for role in roles if role in twice[0]]
        raise _unclear(path, [name], f"its messages have the roles {', '.join(odd)}")
    usual = DEFAULT_TAGS | _CHATML if {"user", "assistant"} & set(roles) else DEFAULT_TAGS
    tags |= {
        key: next((role for role in roles if role in known), usual[key]) for key, known in _ROLES.items()
    }
    # The only form of LLaMA-Factory's that reads `tool_calls`, and a list of tools.
    calls = any("tool_calls" in one and one["tool_calls"] for one in messages) or any(
        isinstance(row.get("tools"), (list, dict)) for row in rows
    )
    found: dict[str, Any] = {"formatting": "openai" if calls else "sharegpt", "columns": {"messages": name}}
    if tags != DEFAULT_TAGS:
        found["tags"] = tags
    return found


def _mark(rows: Sequence[Mapping[str, Any]], names: Sequence[str], path: Path) -> str | None:
    """The column that says whether an answer is good, as training on preferences (KTO) reads it."""
    name = next((one for one in ("kto_tag", "label") if one in names), None)
    if name is None:
        return None
    values = [row.get(name) for row in rows]
    if all(isinstance(value, bool) for value in values):
        return name
    if name == "kto_tag" or all(
        str(value).strip().lower() in ("0", "1", "true", "false") for value in values
    ):
        raise TunebookError(
            f"{path}: {name} is {values[0]!r}: LLaMA-Factory reads true and false alone, and would train on "
            "bad answers as on good ones",
            fix=f"write {name} as true or false, without quotes, or give the file a registry entry",
        )
    return None


def _unclear(path: Path, names: Sequence[str], why: str = "") -> TunebookError:
    return TunebookError(
        f"{path}: it is unclear which of its columns is what: {', '.join(names)}{f' ({why})' if why else ''}",
        fix='give it an entry in a dataset_info.json beside it: {"name": {"file_name": "'
        + path.name
        + '", "columns": {"prompt": ..., "response": ...}}}',
    )
