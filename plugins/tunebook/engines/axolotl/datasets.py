"""One registry entry for both engines: the block of Axolotl's `datasets:` that reads an entry's rows.

LLaMA-Factory's alpaca rows become our own dataset type, since Axolotl's `type: alpaca` writes another
prompt; conversations become Axolotl's `type: chat_template`. What Axolotl cannot read is refused.
"""

from __future__ import annotations

import os
from itertools import islice
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

from tunebook.data.forms import DEFAULT_TAGS
from tunebook.data.rows import READABLE, iter_rows
from tunebook.data.sources import DEFAULT_COLUMNS, is_chat
from tunebook.errors import TunebookError, join_errors

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from tunebook.data.registry import Registry
    from tunebook.types import DatasetEntry


ALPACA_TYPE = "tunebook.hooks.axolotl_alpaca"
CONVERSATION_TYPE = "chat_template"

_ALPACA_COLUMNS = ("prompt", "query", "response", "system")
# Axolotl's names for the roles of those tags, and the tags it knows by default
# (axolotl/prompt_strategies/chat_template.py).
_ROLES = {"user_tag": "user", "assistant_tag": "assistant", "observation_tag": "tool", "system_tag": "system"}
_SOURCES = {
    "assistant": ("assistant", "gpt"),
    "user": ("user", "human"),
    "system": ("system",),
    "tool": ("tool",),
}
_KNOWN_ROLES = {source: role for role, sources in _SOURCES.items() for source in sources}

# Suffix -> `ds_type`. Axolotl guesses it from the first of these found anywhere in the path, else json.
_DATA_TYPES = {".parquet": "parquet", ".arrow": "arrow", ".csv": "csv", ".txt": "text"}

_NOT_SUPERVISED = ("chosen", "rejected", "kto_tag")
_NOT_READ = ("history", "tools", "images", "videos", "audios")


def render_block(entry: DatasetEntry, dataset_dir: str) -> dict[str, Any]:
    """Return the block of `datasets:` or `test_datasets:` that gives Axolotl the rows of `entry`.

    Args:
        entry: Of a registry.
        dataset_dir: The registry's folder as the recipe is to name it.

    Raises:
        TunebookError: Axolotl has no way to read such an entry; all reasons are named.
    """
    values = entry.values
    columns = values.get("columns")
    faults = [
        TunebookError(
            f"{entry.name}: Axolotl's supervised training does not read the column {name!r}",
            fix=f'remove {name!r} from "columns", or train this dataset with LLaMA-Factory',
        )
        for name in (*_NOT_SUPERVISED, *_NOT_READ)
        if columns and columns.get(name)
    ]
    if values.get("ranking"):
        faults.append(
            TunebookError(
                f'{entry.name}: "ranking" data holds pairs, not answers', fix="train it with LLaMA-Factory"
            )
        )
    block: dict[str, Any] = {}
    for part in (_location, _conversation if is_chat(entry) else _alpaca):
        try:
            block |= part(entry, dataset_dir)
        except TunebookError as error:
            faults.append(error)
    if faults:
        raise join_errors(faults)
    return block


_LOCATION = ("path", "name", "split", "data_files")
"""Keys of a block that say where its data is."""


def block_faults(
    block: Mapping[str, Any], entry: DatasetEntry, dataset_dir: str, *, pairs: bool = False
) -> list[TunebookError]:
    """Return how a recipe's block reads other data than its registry entry; empty where it does not.

    A slice of the entry's split (`train[:64]`) is no difference: it reads fewer of the same rows. Nor is how
    the block makes rows of them, by its template, its labels or a type of its own: answers are read there.

    Args:
        block: Of `test_datasets:`.
        entry: That it is named after.
        dataset_dir: The folder of the registry.
        pairs: The rows are preferences, whose columns an entry cannot say: only the location is compared.
    """
    try:
        wanted = _location(entry, dataset_dir) if pairs else render_block(entry, dataset_dir)
    except TunebookError as error:
        return [error]
    faults = []
    for key in _COMPARED if not pairs and block.get("type") == wanted["type"] else _LOCATION:
        expected, found = _comparable(key, wanted), _comparable(key, block)
        if expected == found:
            continue
        where = f"the block of {entry.name!r}: {key} is {block.get(key)!r}"
        if key not in wanted:
            faults.append(
                TunebookError(f"{where}, which the registry entry does not say", fix=f"remove {key}")
            )
        else:
            faults.append(
                TunebookError(
                    f"{where}, where the registry entry means {wanted[key]!r}",
                    fix=f"write {key}: {wanted[key]}",
                )
            )
    return faults


def entry_of_block(block: Mapping[str, Any], registry: Registry, dataset_dir: str) -> str | None:
    """Return the name of the first registry entry that reads the data of `block`; None if none does."""
    for name in registry.values:
        try:
            location = _location(registry.entry(name), dataset_dir)
        except TunebookError:
            continue  # some other entry's fault, which is reported when that entry is used
        if all(_comparable(key, location) == _comparable(key, block) for key in _LOCATION):
            return name
    return None


def alpaca_columns(mapping: Mapping[str, Any]) -> dict[str, str]:
    """Return LLaMA-Factory's column names to the data's, as a block of our type means them.

    Args:
        mapping: The block's `message_property_mappings`. Without any of LLaMA-Factory's names in it the
            defaults hold; with one, the columns that are not named are not there, as in a registry entry.
    """
    named = {name: str(mapping[name]) for name in _ALPACA_COLUMNS if mapping.get(name)}
    return named or {name: DEFAULT_COLUMNS[name] for name in ("prompt", "query", "response")}


def _location(entry: DatasetEntry, dataset_dir: str) -> dict[str, Any]:
    values = entry.values
    split = str(values.get("split") or "train")
    if values.get("num_samples"):
        split = f"{split}[:{values['num_samples']}]"
    if "hf_hub_url" in values:
        if values.get("folder"):
            raise TunebookError(
                f'{entry.name}: Axolotl cannot read one "folder" of a hub dataset',
                fix='name the files by "hf_hub_url" and a split, or download them and use "file_name"',
            )
        block = {"path": str(values["hf_hub_url"])}
        if values.get("subset"):
            block["name"] = str(values["subset"])
        return {**block, "split": split}
    name = values.get("file_name")
    if not isinstance(name, str) or not name:
        raise TunebookError(
            f"{entry.name}: Axolotl reads a local file or a Hugging Face dataset, and it names none",
            fix='give it a "file_name" or an "hf_hub_url"',
        )
    path = PurePath(dataset_dir) / name
    block = {"path": str(path)}
    data_type = _DATA_TYPES.get(path.suffix, "json")
    if path.suffix and data_type != _guessed_type(str(path)):
        block["ds_type"] = data_type
    # A single file has no split but `train`, which Axolotl takes by default.
    return block if split == "train" and path.suffix else {**block, "split": split}


def _alpaca(entry: DatasetEntry, dataset_dir: str) -> dict[str, Any]:  # noqa: ARG001
    columns = entry.values.get("columns")
    if columns is None:
        return {"type": ALPACA_TYPE}
    named = {name: columns[name] for name in _ALPACA_COLUMNS if columns.get(name)}
    if "response" not in named:
        raise TunebookError(
            f"{entry.name}: its columns name no response", fix='add "response" to the entry\'s "columns"'
        )
    return {"type": ALPACA_TYPE, "message_property_mappings": named}


def _conversation(entry: DatasetEntry, dataset_dir: str) -> dict[str, Any]:  # noqa: ARG001
    columns, tags = entry.values.get("columns"), entry.values.get("tags") or DEFAULT_TAGS
    if columns and columns.get("system"):
        raise TunebookError(
            f"{entry.name}: Axolotl reads a system message from the conversation, not from a column",
            fix="put the system message first in each conversation",
        )
    messages = DEFAULT_COLUMNS["messages"] if columns is None else columns.get("messages")
    if not messages:
        raise TunebookError(
            f"{entry.name}: its columns name no messages", fix='add "messages" to the entry\'s "columns"'
        )
    block: dict[str, Any] = {"type": CONVERSATION_TYPE}
    if messages != "messages":
        block["field_messages"] = messages
    properties = {"role": tags.get("role_tag"), "content": tags.get("content_tag")}
    if properties != {"role": "role", "content": "content"}:
        block["message_property_mappings"] = properties
    roles = {role: [tags[tag]] for tag, role in _ROLES.items() if tags.get(tag)}
    if entry.values.get("tags") and any(
        _KNOWN_ROLES.get(source) != role for role, sources in roles.items() for source in sources
    ):
        block["roles"] = roles
    return block


def _guessed_type(path: str) -> str:
    return next((kind for suffix, kind in _DATA_TYPES.items() if suffix in path), "json")


_COMPARED = (*_LOCATION, "field_messages", "message_property_mappings", "roles")


def _comparable(key: str, block: Mapping[str, Any]) -> Any:
    value = block.get(key)
    if key == "ds_type":
        return value or _guessed_type(str(block.get("path")))
    if key == "field_messages":
        return value or "messages"
    if key == "message_property_mappings" and block.get("type") == CONVERSATION_TYPE:
        return {"role": "role", "content": "content", **(value or {})}
    if key == "roles":
        return {role: sorted(tags) for role, tags in {**_SOURCES, **(value or {})}.items()}
    if key == "path" and isinstance(value, str):
        return os.path.normpath(Path.cwd() / value) if "/" in value or Path(value).exists() else value
    if key == "split":
        return str(value or "train").partition("[")[0]
    return value


# Whether the first rows of an Axolotl recipe's local files have anything to learn from.
#
# Axolotl trains on rows without a label with a loss of 0, and ends well.

_ROWS = 100


def label_fault(block: Mapping[str, Any], root: Path) -> TunebookError | None:
    """Return why the first rows of a block carry no label; None where they do, or where that is not known.

    Args:
        block: Of `datasets:` or `test_datasets:`. Only the types that registry entries render to are read.
        root: The folder that relative paths start from.
    """
    path = root / str(block.get("path"))
    if path.suffix not in READABLE or not path.is_file():
        return None
    rows = list(islice(iter_rows(path), _ROWS))
    if not rows:
        return TunebookError(f"{path} has no rows", fix="check the file")
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
    roles = block.get("roles") or _SOURCES
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
