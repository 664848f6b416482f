"""Finds a model's `config.json`: in its folder, in the local hub cache, or in a small shipped table."""

from __future__ import annotations

import difflib
import json
import os
from pathlib import Path
from typing import Any, cast

from tunebook.errors import TunebookError

_TABLE = Path(__file__).with_name("known_models.json")


def find_config(model: str) -> dict[str, Any]:
    """Return the `config.json` of a model, without the network.

    Args:
        model: A folder, a `config.json`, or a hub name.

    Raises:
        TunebookError: There is none, or it is no JSON object.
    """
    path = Path(model).expanduser()
    if path.is_dir():
        path /= "config.json"
    if path.suffix == ".json" and (path.is_file() or Path(model).is_dir()):
        return _read(path)
    cached = _cached(model)
    if cached is not None:
        return _read(cached)
    table = cast("dict[str, dict[str, Any]]", json.loads(_TABLE.read_text(encoding="utf-8")))
    by_name = {name.lower(): config for name, config in table.items()}
    if model.lower() in by_name:
        return by_name[model.lower()]
    close = difflib.get_close_matches(model, table, n=1)
    hint = f"; the table holds {close[0]}" if close else ""
    raise TunebookError(
        f"{model}: its config.json is neither here nor in the table of known models{hint}",
        fix="download the model's config.json and give it with --config PATH",
    )


def _cached(model: str) -> Path | None:
    """Return the newest `config.json` that the hub client has kept for `model`."""
    home = Path(os.environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface")
    hub = Path(os.environ.get("HF_HUB_CACHE") or home / "hub")
    found = list(hub.glob(f"models--{model.replace('/', '--')}/snapshots/*/config.json"))
    return max(found, key=lambda path: path.stat().st_mtime) if found else None


def _read(path: Path) -> dict[str, Any]:
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except OSError as err:
        raise TunebookError(
            f"{path}: {err.strerror}", fix="give the model's folder, or --config PATH"
        ) from err
    except ValueError as err:
        raise TunebookError(f"{path}: is no JSON: {err}", fix="download it again") from err
    if not isinstance(config, dict):
        raise TunebookError(f"{path}: holds no JSON object", fix="give the model's own config.json")
    return config
