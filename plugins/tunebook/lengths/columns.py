"""What the columns and tags of a registry entry are called, as LLaMA-Factory reads it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tunebook.data import sources

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tunebook.types import DatasetEntry

# llamafactory/data/parser.py: an entry that has `columns` or `tags` gets None for each it does not name.
_COLUMNS = {"prompt": "instruction", "query": "input", "response": "output", "messages": "conversations"}
_TAGS = {
    "role_tag": "from",
    "content_tag": "value",
    "user_tag": "human",
    "assistant_tag": "gpt",
    "observation_tag": "observation",
    "function_tag": "function_call",
    "system_tag": "system",
}
MEDIA = ("images", "videos", "audios")


@dataclass(frozen=True, slots=True)
class Names:
    """An entry's names of columns and tags; None where it has none."""

    columns: Mapping[str, str | None]
    tags: Mapping[str, str | None]


def needed_columns(entry: DatasetEntry) -> list[str]:
    """Return the columns that the engine reads of every row of `entry`."""
    columns = names_of(entry).columns
    keys = (
        ("messages", "system", "tools")
        if sources.is_chat(entry)
        else ("prompt", "query", "response", "system", "tools")
    )
    return [name for key in keys if (name := columns.get(key))]


def names_of(entry: DatasetEntry) -> Names:
    """Return every name that the engine reads of `entry`."""
    columns, tags = entry.values.get("columns"), entry.values.get("tags")
    keys = (*_COLUMNS, "history", "system", "tools", "chosen", "rejected", "kto_tag", *MEDIA)
    return Names(
        {key: (columns.get(key) if columns is not None else _COLUMNS.get(key)) for key in keys},
        {key: (tags.get(key) if tags is not None else default) for key, default in _TAGS.items()},
    )
