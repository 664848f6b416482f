"""Where the Hugging Face hub's client keeps what has been downloaded to this machine."""

from __future__ import annotations

import os
from pathlib import Path


def snapshot(model: str, revision: str = "main") -> Path | None:
    """Return the folder of a model's files in the local cache; None where it has not been downloaded.

    Args:
        model: Its name on the hub, `name` or `owner/name`.
        revision: Branch, tag or commit.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache"))
    home = Path(os.environ.get("HF_HOME") or cache / "huggingface")
    root = Path(os.environ.get("HF_HUB_CACHE") or home / "hub").expanduser()
    repository = root / f"models--{model.replace('/', '--')}"
    reference = repository / "refs" / revision
    try:
        commit = reference.read_text(encoding="ascii").strip() if reference.is_file() else revision
    except OSError:
        return None
    folder = repository / "snapshots" / commit
    return folder if folder.is_dir() else None
