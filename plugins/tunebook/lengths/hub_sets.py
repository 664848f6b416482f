"""Datasets of the Hugging Face hub that an engine has loaded here: where its cache has their rows."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunebook.errors import TunebookError

if TYPE_CHECKING:
    from collections.abc import Iterator

ARROW = ".arrow"

# datasets/naming.py: a name's capitals in the cache.
_CAPITALS = (re.compile(r"([A-Z]+)([A-Z][a-z])"), re.compile(r"([a-z\d])([A-Z])"))


def cached_files(name: str, *, subset: str | None, split: str, key: str) -> tuple[Path, ...]:
    """Return the files in which the library `datasets` keeps a split that it has loaded, in order.

    Args:
        name: On the hub, e.g. `openai/gsm8k`.
        subset: Its configuration; None for the only one that was loaded.
        split: E.g. `train`.
        key: What names it, for messages.

    Raises:
        TunebookError: It was never loaded on this machine, or several of its subsets were.
    """
    owner, _, last = name.rpartition("/")
    for capitals in _CAPITALS:
        last = capitals.sub(r"\1_\2", last)
    folder = _cache() / (f"{owner}___{last.lower()}" if owner else last.lower())
    # <subset>/<version>/<hash>/<name>-<split>[-00000-of-00002].arrow
    pattern = re.compile(rf"{re.escape(last.lower())}-{re.escape(split)}(-\d+-of-\d+)?\.arrow")
    found: dict[Path, list[Path]] = {}
    for file in folder.glob(f"{subset or '*'}/*/*/*.arrow"):
        if pattern.fullmatch(file.name):
            found.setdefault(file.parent, []).append(file)
    if len({place.parents[1] for place in found}) > 1:
        names = sorted({place.parents[1].name for place in found})
        raise TunebookError(f"{key}: {name} has several subsets here: {', '.join(names)}", fix="name one")
    if not found:
        arguments = ", ".join(map(repr, [name, *([subset] if subset else [])]))
        raise TunebookError(
            f"{key}: the data of {name} is on the hub, and no engine has loaded it on this machine yet",
            fix=f'load it once: python -c "from datasets import load_dataset; load_dataset({arguments})"',
        )
    newest = max(found, key=lambda place: place.stat().st_mtime)
    return tuple(sorted(found[newest]))


def iter_arrow(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the rows of a file of that cache.

    Raises:
        TunebookError: It cannot be read, or pyarrow is not installed.
    """
    try:
        import pyarrow
    except ImportError as err:
        raise TunebookError(
            f"reading {path} needs pyarrow, which is not installed",
            fix="`pip install pyarrow`, or run this in an engine's environment",
        ) from err
    try:
        with pyarrow.memory_map(str(path)) as source:
            for batch in pyarrow.ipc.open_stream(source):
                yield from batch.to_pylist()
    except (OSError, pyarrow.ArrowInvalid) as err:
        raise TunebookError(f"cannot read {path}: {err}", fix="load the dataset again") from err


def _cache() -> Path:
    home = Path(
        os.environ.get("HF_HOME") or Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")) / "huggingface"
    )
    return Path(os.environ.get("HF_DATASETS_CACHE") or home / "datasets").expanduser()
