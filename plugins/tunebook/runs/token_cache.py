"""Folders of tokenised rows, named after everything that decides the rows.

An engine reads the folder it is given without asking what it was made from. So the last part of the name is a
hash of the data, the tokenizer and the settings: whoever changes one of them is given another folder.
"""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

from tunebook.files import sha256_of

if TYPE_CHECKING:
    from collections.abc import Mapping

DEFAULT_FOLDER = ".cache/tokenized"
"""Where `tunebook train --cache` keeps them, below the current folder."""

_OURS = re.compile(r"tunebook-[0-9a-f]{16}")
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "tokenizer.model", "chat_template.jinja")
_HASHED_WHOLE = 1 << 30
"""Bytes up to which a file is read to the end. A larger one is known by its size and time of change."""


def is_ours(path: str | PurePath) -> bool:
    """Whether the last folder of `path` was named by `keyed`."""
    return _OURS.fullmatch(PurePath(path).name) is not None


def base_of(path: str | PurePath) -> PurePath:
    """Return the folder above, where the last one was named by `keyed`; else `path` itself."""
    path = PurePath(path)
    return path.parent if is_ours(path) else path


def keyed(base: PurePath, ingredients: Mapping[str, Any]) -> str:
    """Return the folder below `base` for rows made from these ingredients."""
    text = json.dumps(ingredients, sort_keys=True, default=str)
    return str(base / f"tunebook-{hashlib.sha256(text.encode()).hexdigest()[:16]}")


def tokenizer_files(folder: Path) -> list[Path]:
    """Return the files of a model's folder that decide how text becomes tokens; none of no folder."""
    return [folder / name for name in _TOKENIZER_FILES if (folder / name).is_file()]


def content(path: Path) -> str:
    """Return what changes when the file does: its SHA-256, or size and time of change of a very large one."""
    status = path.stat()
    if status.st_size > _HASHED_WHOLE:
        return f"{status.st_size} bytes, changed {status.st_mtime_ns}"
    return sha256_of(path)
