"""What a data tool works on: an entry of the registry, or a file; and what the columns of its rows are."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunebook.data import registry as datasets
from tunebook.data.forms import DEFAULT_TAGS, first_rows, form_of, refuse_other_tables
from tunebook.data.rows import TABLE_SUFFIXES
from tunebook.errors import TunebookError
from tunebook.types import MEDIA, DatasetEntry

if TYPE_CHECKING:
    from collections.abc import Mapping

# LLaMA-Factory's names for columns, and what it reads where an entry has no `columns`
# (llamafactory/data/parser.py).
DEFAULT_COLUMNS = {
    "prompt": "instruction",
    "query": "input",
    "response": "output",
    "messages": "conversations",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Rows to work on, and how to read them."""

    entry: DatasetEntry
    """The registry's; for a file that no entry names, one made from the columns of its first row."""
    files: tuple[Path, ...]
    """In the order in which they are read."""
    registered: bool
    """Whether the entry is in a registry."""
    left_out: tuple[str, ...] = ()
    """Of a file that no entry names, the columns that no engine would see."""

    @property
    def bytes(self) -> int:
        """Of all files."""
        return sum(path.stat().st_size for path in self.files)


def find_source(name_or_path: str, registry_folder: Path) -> Source:
    """Return an entry of the registry, or a file: as the entry that names it, if a registry beside it does.

    Raises:
        TunebookError: There is neither, the entry's data is on a hub, or it is unclear what the columns of
            the file are.
    """
    registry = (
        datasets.load_registry(registry_folder)
        if (registry_folder / datasets.REGISTRY_FILE).is_file()
        else None
    )
    path = Path(name_or_path)
    if path.suffix in TABLE_SUFFIXES and not path.is_file():
        raise TunebookError(f"there is no file {path}", fix="check the path")
    if registry is not None and (name_or_path in registry.values or not path.is_file()):
        return of_entry(registry.entry(name_or_path))
    if not path.is_file():
        raise TunebookError(
            f"{name_or_path} is no file, and there is no {registry_folder / datasets.REGISTRY_FILE}",
            fix="give a data file, or --dataset-dir with the folder of the registry",
        )
    beside = path.parent / datasets.REGISTRY_FILE
    entries = _entries_of(path, datasets.load_registry(beside)) if beside.is_file() else []
    if len(entries) == 1:
        return Source(entry=entries[0], files=(path,), registered=True)
    return _guessed(path)


def of_entry(entry: DatasetEntry) -> Source:
    """Return the local files of a registry entry.

    Raises:
        TunebookError: They are missing, or on a hub.
    """
    files = datasets.data_files(entry)
    if not files:
        raise TunebookError(
            f"{entry.registry}: {entry.name}: its data is not on this machine but on a hub",
            fix="download it to a file, and give the entry a file_name",
        )
    return Source(entry=entry, files=tuple(files), registered=True)


def column(entry: DatasetEntry, key: str) -> str | None:
    """Return the name that a column of LLaMA-Factory's has in the data; None where the entry has none.

    Args:
        entry: The entry.
        key: `prompt`, `query`, `response`, `messages`, `system`, `history`, ...
    """
    columns = entry.values.get("columns")
    name = columns.get(key) if isinstance(columns, dict) else DEFAULT_COLUMNS.get(key)
    return name if isinstance(name, str) and name else None


def tag(entry: DatasetEntry, key: str) -> str | None:
    """Return what a tag of LLaMA-Factory's is called in the messages of an entry; None where it has none.

    Args:
        entry: The entry.
        key: `role_tag`, `content_tag`, `user_tag`, ...
    """
    tags = entry.values.get("tags")
    name = tags.get(key) if isinstance(tags, dict) else DEFAULT_TAGS.get(key)
    return name if isinstance(name, str) and name else None


def asked_columns(values: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the columns of an entry that hold what the model is asked, media among them."""
    columns = values.get("columns")
    named = columns if isinstance(columns, dict) else DEFAULT_COLUMNS
    chat = values.get("formatting", "alpaca") != "alpaca"
    keys = ("system", "history", *(("messages",) if chat else ("prompt", "query")), "tools", *MEDIA)
    return tuple(str(named[key]) for key in keys if named.get(key))


def is_chat(entry: DatasetEntry) -> bool:
    """Whether rows hold lists of messages."""
    return bool(entry.values.get("formatting", "alpaca") != "alpaca")


def reference_of(row: Mapping[str, Any], entry: DatasetEntry) -> str:
    """Return the answer that `row` gives: the text the engine trains on and a metric compares with.

    Of a pair that is the chosen answer, which in a conversation is a message by itself.

    Raises:
        TunebookError: The row has none, or one that is no text, which LLaMA-Factory drops with a warning.
    """
    if entry.values.get("ranking"):
        name = column(entry, "chosen")
        found = row.get(name or "")
        if is_chat(entry) and isinstance(found, dict):
            return _text(found, tag(entry, "content_tag"), "the chosen message")
        return _text(row, name, f"{entry.registry}: {entry.name}", key="chosen")
    if not is_chat(entry):
        return _text(row, column(entry, "response"), f"{entry.registry}: {entry.name}")
    name, assistant = column(entry, "messages"), tag(entry, "assistant_tag")
    messages = row.get(name or "")
    if not isinstance(messages, list) or not messages or not isinstance(messages[-1], dict):
        raise TunebookError(
            f"the column {name!r} holds no messages", fix="name the column under columns.messages"
        )
    last = messages[-1]
    role = last.get(tag(entry, "role_tag") or "")
    if role != assistant:
        raise TunebookError(
            f"the last message is of {role!r}, not of {assistant!r}", fix="end it with the answer"
        )
    return _text(last, tag(entry, "content_tag"), "the last message")


def _text(row: Mapping[str, Any], name: str | None, where: str, *, key: str = "response") -> str:
    if name is None:
        raise TunebookError(f"{where}: its columns name no {key}", fix=f'add "{key}" to "columns"')
    if name not in row:
        raise TunebookError(
            f"there is no column {name!r} among {', '.join(map(str, row))}",
            fix=f"name the answer's column under columns.{key} of the registry entry",
        )
    value = row[name]
    if not isinstance(value, str):
        raise TunebookError(
            f"{name!r} is {value!r}, not text; LLaMA-Factory drops such rows", fix="write it in quotes"
        )
    return value


def _entries_of(path: Path, registry: datasets.Registry) -> list[DatasetEntry]:
    """The entries whose only data is this file."""
    found = [
        name
        for name, values in registry.values.items()
        if isinstance(values, dict)
        and isinstance(values.get("file_name"), str)
        and (registry.path.parent / values["file_name"]).resolve() == path.resolve()
    ]
    return [registry.entry(name) for name in found]


def _guessed(path: Path) -> Source:
    rows = first_rows(path)
    refuse_other_tables(rows, path)
    form = form_of(rows, path)
    entry = DatasetEntry(
        name=path.stem, registry=path, values={"file_name": path.name, **form.values}, metrics=()
    )
    return Source(entry=entry, files=(path,), registered=False, left_out=form.left_out)
