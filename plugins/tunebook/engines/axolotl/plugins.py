"""Whether the plugins that an Axolotl recipe names can be found in the engine's environment.

Axolotl logs a plugin that it cannot import and trains without it. Here nothing is imported: the files are
looked for where that environment's Python would look.
"""

from __future__ import annotations

import json
import subprocess
from functools import cache
from importlib.machinery import PathFinder
from typing import TYPE_CHECKING, Any

from tunebook.errors import TunebookError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

_ENGINE_PREFIX = "axolotl.integrations"
"""Axolotl looks for a plugin here too, when it finds no module of the name alone."""

_ASK = "import json, sys; print(json.dumps(sys.path))"
_TRY = "import importlib.util, sys; sys.exit(importlib.util.find_spec(sys.argv[1]) is None)"


def plugin_faults(values: Mapping[str, Any], environment: Path) -> list[TunebookError]:
    """Return the plugins of a recipe that Axolotl would not find.

    Args:
        values: The recipe.
        environment: The virtual environment of the engine.
    """
    plugins = values.get("plugins") or []
    if not isinstance(plugins, list):
        return [TunebookError(f"plugins is {plugins!r}", fix="write it as a list of package.module.Class")]
    faults = []
    for plugin in plugins:
        module, dot, name = str(plugin).rpartition(".")
        if not dot or not name:
            faults.append(
                TunebookError(f"plugins: {plugin!r} names no class", fix="write package.module.Class")
            )
        elif not any(_exists(path, environment) for path in (module, f"{_ENGINE_PREFIX}.{module}")):
            faults.append(
                TunebookError(
                    f"plugins: no module {module} in {environment}; Axolotl would go on without it",
                    fix=f"correct {plugin}, or install its package there",
                )
            )
    return faults


def _exists(module: str, environment: Path) -> bool:
    if _file_exists(module, _search_path(environment)):
        return True
    # Some editable installs answer through an import hook of theirs, which only that Python knows. This
    # imports the packages above the module, so it is asked last, and not about the engine.
    if module.startswith(f"{_ENGINE_PREFIX}."):
        return False
    asked = subprocess.run(
        [environment / "bin" / "python", "-c", _TRY, module], capture_output=True, check=False
    )
    return asked.returncode == 0


def _file_exists(module: str, search_path: Sequence[str]) -> bool:
    places: Sequence[str] | None = search_path
    name = ""
    for part in module.split("."):
        name = f"{name}.{part}" if name else part
        if places is None:
            return False
        spec = PathFinder.find_spec(name, list(places))
        if spec is None:
            return False
        places = None if spec.submodule_search_locations is None else list(spec.submodule_search_locations)
    return True


@cache
def _search_path(environment: Path) -> tuple[str, ...]:
    """The `sys.path` of that environment, folders of editable installs included."""
    asked = subprocess.run(
        [environment / "bin" / "python", "-c", _ASK], capture_output=True, text=True, check=True
    )
    return tuple(json.loads(asked.stdout.splitlines()[-1]))
