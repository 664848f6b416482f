"""The keys an engine accepts, by version, from snapshots of its releases: no engine is imported.

The files in `schemas/` are made by scripts/snapshot_schema.py. Each holds several versions side by side: what
is the same in all of them stands once.
"""

from __future__ import annotations

import functools
import json
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunebook import paths
from tunebook.engines.supported import NAMES, SUPPORTED
from tunebook.errors import TunebookError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from tunebook.types import EngineName

FOLDER = Path(__file__).resolve().parent / "schemas"
VERSIONED = "by_version"
"""Key of a value that is not the same in all versions of a file."""
DEEP = ("models", "plugins")
"""Sections whose values are mappings of keys."""


def load_schema(engine: EngineName) -> Mapping[str, Any]:
    """Return the snapshot of an engine that is nearest to the installed version.

    It holds `engine`, `version`, `transformers` (its series), `held_against` (the versions, for a reader),
    `installed` (those that are there, for a reader; empty where none is), `fits` (whether these are the same;
    true where none is installed), and three mappings from a key to what it takes: `keys` of the recipe,
    `models` (by name) of the mappings below it, and `plugins` (by path) with the keys each one adds; of
    LLaMA-Factory, `templates` and `models_of_templates` as well.
    """
    return _load(engine, os.environ.get(f"TUNEBOOK_{engine.upper()}_ENV"), str(Path.cwd()))


@functools.cache
def _load(engine: EngineName, named: str | None, folder: str) -> Mapping[str, Any]:  # noqa: ARG001
    """As `load_schema`; `named` and `folder` decide which environment is found."""
    file = _read(engine)
    installed = _installed(engine)
    version = nearest_version(file["versions"], installed.get(engine))
    schema = select(file, version)
    fits = not installed or (is_release(version) and order(installed[engine]) == order(version))
    held_against, tested = f"{NAMES[engine]} {version}", SUPPORTED[engine].pinned
    schema |= {"engine": engine, "version": version, "transformers": series(tested["transformers"])}
    if "transformers" in installed:
        schema["transformers"] = series(installed["transformers"])
    if engine == "llamafactory":
        trainer = _read("transformers")
        below = nearest_version(trainer["versions"], schema["transformers"])
        fits = fits and below == schema["transformers"]
        schema["keys"] = _joined(select(trainer, below)["keys"], schema["keys"])
        schema["transformers"] = below
        held_against += f" with transformers {below}"
    found = ", ".join(f"{name} {release}" for name, release in installed.items())
    return {**schema, "held_against": held_against, "fits": fits, "installed": found}


def _joined(trainer: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """The Trainer's keys and the engine's, which wins where it declares one anew for training."""
    joined = {**trainer, **own}
    for key in trainer.keys() & own.keys():
        if not set(trainer[key]["groups"]) & set(own[key]["groups"]):
            joined[key] = {**trainer[key], "groups": [*trainer[key]["groups"], *own[key]["groups"]]}
    return joined


@functools.cache
def versions_with(engine: EngineName, key: str, *, section: str = "keys") -> tuple[str, ...]:
    """Return the versions that have a key or template: the engine's or, by series, those of transformers.

    >>> versions_with("axolotl", "unsloth_rope")
    ('0.16.1',)
    """
    for name in (engine, "transformers") if engine == "llamafactory" else (engine,):
        file = _read(name)
        spec = file.get(section, {}).get(key)
        if spec is not None:
            parts = spec.get(VERSIONED)
            found = file["versions"] if parts is None else [one for part in parts for one in part["in"]]
            return tuple(sorted(found, key=order))
    return ()


def select(file: Mapping[str, Any], version: str) -> dict[str, Any]:
    """Return the sections of one version of a file."""

    def keys(section: Mapping[str, Any]) -> dict[str, Any]:
        held = {key: _value(value, version) for key, value in section.items()}
        return {key: value for key, value in held.items() if value is not None}

    selected: dict[str, Any] = {}
    for name, section in file.items():
        if name in DEEP:
            inner = {group: keys(part) for group, part in section.items()}
            selected[name] = {group: part for group, part in inner.items() if part}
        elif isinstance(section, dict):
            selected[name] = keys(section)
    return selected


def _value(value: Any, version: str) -> Any:
    if isinstance(value, dict) and VERSIONED in value:
        return next((part["is"] for part in value[VERSIONED] if version in part["in"]), None)
    return value


def nearest_version(versions: Iterable[str], installed: str | None) -> str:
    """Return the version whose snapshot describes `installed` best.

    The same one, else the newest below it, else the oldest; the newest release where none is installed.

    >>> nearest_version(["0.9.5", "0.10.0"], "0.9.6.dev0"), nearest_version(["0.9.5", "0.10.0"], None)
    ('0.9.5', '0.10.0')
    """
    ascending = sorted(versions, key=order)
    if installed is None:
        return [version for version in ascending if is_release(version)][-1]
    below = [version for version in ascending if order(version) <= order(installed)]
    return below[-1] if below else ascending[0]


def order(version: str) -> tuple[tuple[int, ...], bool]:
    """Return what versions are sorted by: their numbers, and what comes before a release before it.

    >>> order("0.9.6.dev0") < order("0.9.6") == order("0.9.6+cu128") < order("0.10")
    True
    """
    numbers = re.match(r"\d+(?:\.\d+)*", version)
    if numbers is None:
        return (), False
    kept = re.sub(r"(?:\.0+)+$", "", numbers[0])
    return tuple(int(number) for number in kept.split(".")), is_release(version)


def is_release(version: str) -> bool:
    """Whether a version is published, and so the same everywhere."""
    return not re.search(r"\d\.?(?:dev|a|b|c|rc)\d*", version.partition("+")[0])


def series(version: str) -> str:
    """Return the first two numbers: transformers changes its arguments with these.

    >>> series("4.57.1")
    '4.57'
    """
    return ".".join(version.split(".")[:2])


@functools.cache
def _read(name: str) -> Mapping[str, Any]:
    held: Mapping[str, Any] = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    return held


def _installed(engine: EngineName) -> dict[str, str]:
    """The versions that decide what a recipe may hold; empty where the engine is not installed."""
    try:
        return paths.installed_versions(paths.engine_environment(engine), (engine, "transformers"))
    except TunebookError:
        return {}
