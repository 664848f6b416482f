"""Where a run comes from: what `run.json` records, so that it can be repeated and compared."""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunebook import __version__, files, paths
from tunebook.data import registry
from tunebook.data import rows as data_files

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from tunebook.types import Command, DatasetEntry, Recipe

FORMAT = 1
"""Version of `run.json`; it rises when a key changes its meaning or goes."""

_COUNTED_BYTES = 256 << 20
"""Rows are counted in files up to this size: about a second."""


def run_record(
    *,
    recipe: Recipe,
    sha256: str,
    entries: Iterable[DatasetEntry],
    command: Command,
    environment: Path,
    packages: Sequence[str],
    gpus: Sequence[Mapping[str, str]],
    resumed_from: str | None,
) -> dict[str, Any]:
    """Return what `run.json` holds. Environment variables are not in it, apart from those we set.

    Args:
        recipe: The resolved recipe.
        sha256: Its `run_folder.recipe_sha256`.
        entries: The registry entries it names.
        command: What is started.
        environment: The engine's environment, whose versions are recorded.
        packages: Distributions to record.
        gpus: As from `gpus()`.
        resumed_from: Name of the checkpoint folder, or None for a start from the beginning.
    """
    added = {key: value for key, value in command.env.items() if key != "PATH"}
    return {
        "format": FORMAT,
        "recipe": {
            "name": recipe.name,
            "path": str(recipe.path),
            "engine": recipe.engine,
            "overlays": list(recipe.overlays),
            "header": dict(recipe.header),
            "sha256": sha256,
        },
        "datasets": {entry.name: dataset_facts(entry) for entry in entries},
        "command": [*(f"{key}={value}" for key, value in added.items()), *command.argv],
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "host": platform.node(),
        "gpus": [dict(gpu) for gpu in gpus],
        "versions": {
            "python": paths.python_version(environment),
            "tunebook": __version__,
            **paths.installed_versions(environment, packages),
        },
        "git": git_state(recipe.path.parent),
        "resumed_from": resumed_from,
    }


def dataset_facts(entry: DatasetEntry) -> dict[str, Any]:
    """Return SHA-256, bytes and rows of an entry's local data; each None where that is not known.

    Several files are hashed as the list of their names and hashes. Data on a hub has no local files.
    """
    paths_ = registry.data_files(entry)
    if not paths_:
        return {"sha256": None, "bytes": None, "rows": None}
    hashes = [files.sha256_of(path) for path in paths_]
    sha256 = hashes[0]
    if len(paths_) > 1:
        listing = "\n".join(f"{path.name} {digest}" for path, digest in zip(paths_, hashes, strict=True))
        sha256 = hashlib.sha256(listing.encode()).hexdigest()
    size = sum(path.stat().st_size for path in paths_)
    countable = size <= _COUNTED_BYTES and all(path.suffix in data_files.READABLE for path in paths_)
    rows = sum(1 for path in paths_ for _ in data_files.iter_rows(path)) if countable else None
    return {"sha256": sha256, "bytes": size, "rows": rows}


def gpus() -> list[dict[str, str]]:
    """Return name, memory and driver of each NVIDIA GPU, as `nvidia-smi` shows them; none without it."""
    fields = ("name", "memory.total", "driver_version")
    listing = _output(["nvidia-smi", f"--query-gpu={','.join(fields)}", "--format=csv,noheader"])
    lines = (listing or "").splitlines()
    return [dict(zip(fields, (part.strip() for part in line.split(",")), strict=False)) for line in lines]


def visible_gpus(found: int, environ: Mapping[str, str]) -> int:
    """Return how many of `found` GPUs `CUDA_VISIBLE_DEVICES` leaves to be used."""
    chosen = environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is None:
        return found
    devices = []
    for device in chosen.split(","):
        # CUDA stops at the first number that is no device.
        if not device.strip() or device.strip().startswith("-"):
            break
        devices.append(device)
    return min(found, len(devices))


def git_state(folder: Path) -> dict[str, Any] | None:
    """Return commit and whether tracked files were changed; None outside a repository."""
    if not folder.is_dir():
        return None
    commit = _output(["git", "-C", str(folder), "rev-parse", "HEAD"])
    status = _output(["git", "-C", str(folder), "status", "--porcelain", "--untracked-files=no"])
    if commit is None or status is None:
        return None
    return {"commit": commit.strip(), "dirty": bool(status.strip())}


def _output(argv: list[str]) -> str | None:
    if shutil.which(argv[0]) is None:
        return None
    try:
        done = subprocess.run(
            argv,
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
            env=os.environ | {"GIT_OPTIONAL_LOCKS": "0"},
        )
    except subprocess.TimeoutExpired:
        return None
    return done.stdout if done.returncode == 0 else None
