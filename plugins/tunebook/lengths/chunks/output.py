"""Writes the pieces as a data file with its registry entry: both, or neither."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import orjson

from tunebook.data.registry import LOCATION_KEYS, REGISTRY_FILE, load_registry
from tunebook.errors import TunebookError
from tunebook.files import write_json
from tunebook.lengths.chunks.documents import TEXT_COLUMN, Form

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from tunebook.types import DatasetEntry

# Where and how much of the data; what the new entry says of its own file instead.
_OF_THE_SOURCE = (*LOCATION_KEYS, "num_samples")


def new_entry(entry: DatasetEntry, file_name: str, form: Form) -> dict[str, Any]:
    """Return what the registry is to say of the pieces: the same columns and metric, another file.

    Rows for pre-training have no answer, so neither has their entry a metric.
    """
    if form == "pretrain":
        return {"file_name": file_name, "columns": {"prompt": TEXT_COLUMN}}
    kept = {key: value for key, value in entry.values.items() if key not in _OF_THE_SOURCE}
    return {"file_name": file_name, **kept}


def refuse_existing(folder: Path, name: str) -> None:
    """Stop where the output would replace something.

    Raises:
        TunebookError: The folder has such a data file or such an entry, or is a file.
    """
    if folder.exists() and not folder.is_dir():
        raise TunebookError(f"{folder} is a file", fix="give -o a folder")
    registry = folder / REGISTRY_FILE
    data = folder / f"{name}.jsonl"
    if (registry.is_file() and name in load_registry(registry).values) or data.exists():
        raise TunebookError(
            f"{folder} already has {data.name if data.exists() else f'an entry {name!r}'}",
            fix="choose another --name or another folder",
        )


def write_pieces(
    folder: Path, name: str, rows: Iterable[Mapping[str, Any]], values: Mapping[str, Any]
) -> Path:
    """Write `<folder>/<name>.jsonl`, then the entry `name` into the registry of `folder`.

    The data file appears when it is whole, and the entry after it.

    Args:
        folder: Is made where there is none; a registry in it keeps its other entries.
        name: Of the entry.
        rows: Of the data file.
        values: Of the entry.

    Returns:
        The data file.

    Raises:
        TunebookError: There is no room or no right to write, or a row cannot be read.
    """
    made = not folder.exists()
    path = folder / f"{name}.jsonl"
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as stream:
            for row in rows:
                stream.write(_line(row))
            stream.flush()
            os.fsync(stream.fileno())
        refuse_existing(folder, name)
        temporary.replace(path)
        registry = folder / REGISTRY_FILE
        others = load_registry(registry).values if registry.is_file() else {}
        write_json(registry, {**others, name: dict(values)})
    except OSError as error:
        raise TunebookError(
            f"{folder}: cannot write: {error.strerror}", fix="make room, or give -o a folder you may write to"
        ) from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        if made:
            with suppress(OSError):
                folder.rmdir()  # only if it is empty: nothing came of it
    return path


def _line(row: Mapping[str, Any]) -> bytes:
    try:
        return orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE)
    except TypeError:
        # Half characters and very large numbers, which orjson refuses; dates of Parquet as text.
        return (json.dumps(row, default=str) + "\n").encode()
