"""Brings `run.json` into one shape, whatever of it is there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping


def provenance(run_json: Mapping[str, Any]) -> dict[str, Any] | None:
    """The facts of `run.json` with every key present; None for what the run did not write down.

    Returns:
        None where the run left no `run.json`.
    """
    if not run_json:
        return None
    recipe, git, gpus = run_json.get("recipe"), run_json.get("git"), run_json.get("gpus")
    return {
        "recipe": {
            "name": _text(recipe, "name"),
            "overlays": [str(one) for one in _list(recipe.get("overlays"))],
            "header": {str(k): str(v) for k, v in _mapping(recipe.get("header")).items()},
            "sha256": _text(recipe, "sha256"),
        }
        if isinstance(recipe, dict)
        else None,
        "command": [str(part) for part in _list(run_json.get("command"))] or None,
        "started": _text(run_json, "started"),
        "host": _text(run_json, "host"),
        "gpus": [_gpu(gpu) for gpu in gpus] if isinstance(gpus, list) else None,
        "versions": {str(k): str(v) for k, v in _mapping(run_json.get("versions")).items()},
        "git": {"commit": _text(git, "commit"), "dirty": git.get("dirty") is True}
        if isinstance(git, dict)
        else None,
        "resumed_from": _text(run_json, "resumed_from"),
        "datasets": {
            str(name): {key: _mapping(facts).get(key) for key in ("rows", "bytes", "sha256")}
            for name, facts in _mapping(run_json.get("datasets")).items()
        },
    }


def _gpu(gpu: object) -> str:
    """Name, memory and driver in a line, e.g. `NVIDIA A100, 81920 MiB, 550.54`."""
    return ", ".join(str(value) for value in gpu.values()) if isinstance(gpu, dict) else str(gpu)


def _text(mapping: Mapping[str, Any], key: str) -> str | None:
    value = mapping.get(key)
    return value if isinstance(value, str) and value else None


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _mapping(value: object) -> dict[Any, Any]:
    return value if isinstance(value, dict) else {}
