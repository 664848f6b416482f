"""Whether the first rows of an Axolotl recipe's local files have anything to learn from.

Axolotl trains on rows without a label with a loss of 0, and ends well.
"""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Any

from tunebook.data.rows import READABLE, iter_rows
from tunebook.engines.axolotl.datasets import ALPACA_TYPE, CONVERSATION_TYPE, alpaca_columns
from tunebook.errors import TunebookError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_ROWS = 100

# axolotl/prompt_strategies/chat_template.py
_ROLES = {
    "assistant": ("assistant", "gpt"),
    "user": ("user", "human"),
    "system": ("system",),
    "tool": ("tool",),
}


def label_fault(block: Mapping[str, Any], root: Path) -> TunebookError | None:
    """Return why the first rows of a block carry no label; None where they do, or where we cannot tell.

    Args:
        block: Of `datasets:` or `test_datasets:`. Only the types that registry entries render to are read.
        root: The folder that relative paths start from.
    """
    path = root / str(block.get("path"))
    if path.suffix not in READABLE or not path.is_file():
        return None
    rows = list(islice(iter_rows(path), _ROWS))
    if not rows:
        return TunebookError(f"{path} has no rows", fix="mend the file")
    if block.get("type") == ALPACA_TYPE:
        return _alpaca_fault(block, rows, path)
    if block.get("type") == CONVERSATION_TYPE:
        return _conversation_fault(block, rows, path)
    return None


def _alpaca_fault(block: Mapping[str, Any], rows: list[dict[str, Any]], path: Path) -> TunebookError | None:
    columns = alpaca_columns(block.get("message_property_mappings") or {})
    missing = sorted({column for column in columns.values() if column not in rows[0]})
    if missing or "response" not in columns:
        what = f"has no column {', '.join(missing)}" if missing else "is given no response column"
        return TunebookError(
            f"{path} {what}; it has {', '.join(rows[0])}",
            fix="name its columns as `message_property_mappings`, e.g. {prompt: question, response: reply}",
        )
    if any(row.get(columns["response"]) for row in rows):
        return None
    return TunebookError(
        f"{path}: the column {columns['response']!r} is empty in the first {len(rows)} rows",
        fix="name the column of the answers as `response` under `message_property_mappings`",
    )


def _conversation_fault(
    block: Mapping[str, Any], rows: list[dict[str, Any]], path: Path
) -> TunebookError | None:
    column = str(block.get("field_messages") or "messages")
    if column not in rows[0]:
        return TunebookError(
            f"{path} has no column {column!r}; it has {', '.join(rows[0])}",
            fix="name the column of the conversations as `field_messages`",
        )
    role_key = (block.get("message_property_mappings") or {}).get("role", "role")
    roles = block.get("roles") or _ROLES
    trained = block.get("roles_to_train") or ["assistant"]
    learned = {tag for role in trained for tag in roles.get(role, ())}
    found = {
        message.get(role_key)
        for row in rows
        for message in (row[column] if isinstance(row[column], list) else ())
        if isinstance(message, dict)
    }
    if learned & found:
        return None
    return TunebookError(
        f"{path}: no message of the first {len(rows)} rows has a role to learn from: roles "
        f"({role_key!r}) are {', '.join(sorted(map(str, found))) or 'none'}, to learn {', '.join(trained)}",
        fix="set `roles_to_train`, `roles` or `message_property_mappings` of the block",
    )
