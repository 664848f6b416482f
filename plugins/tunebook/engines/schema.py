"""The keys an engine accepts, from a snapshot of one of its versions: no engine is imported.

The snapshots in `schemas/` are made by scripts/snapshot_schema.py from an installed engine.
"""

from __future__ import annotations

import functools
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunebook import paths
from tunebook.errors import TunebookError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from tunebook.types import EngineName

_FOLDER = Path(__file__).resolve().parent / "schemas"


@functools.cache
def load_schema(engine: EngineName) -> Mapping[str, Any]:
    """Return the snapshot of an engine that fits the installed version.

    It holds `engine`, `version`, and three mappings from a key to what it takes: `keys` of the recipe,
    `models` (by name) of the mappings below it, and `plugins` (by path) with the keys each one adds.

    Raises:
        FileNotFoundError: There is no snapshot of this engine.
    """
    found = {path.stem.removeprefix(f"{engine}-"): path for path in _FOLDER.glob(f"{engine}-*.json")}
    if not found:
        raise FileNotFoundError(f"no snapshot of {engine} in {_FOLDER}")
    # Looked up only where there is a choice: it reads the metadata of an environment.
    version = next(iter(found)) if len(found) == 1 else nearest_version(found, _installed(engine))
    schema: Mapping[str, Any] = json.loads(found[version].read_text(encoding="utf-8"))
    return schema


def nearest_version(versions: Iterable[str], installed: str | None) -> str:
    """Return the version whose snapshot describes `installed` best.

    The same one, else the newest below it, else the oldest; the newest where none is installed.

    >>> nearest_version(["0.9.5", "0.10.0"], "0.9.6.dev0"), nearest_version(["0.9.5", "0.10.0"], None)
    ('0.9.5', '0.10.0')
    """
    ascending = sorted(versions, key=_release)
    if installed is None:
        return ascending[-1]
    below = [version for version in ascending if _release(version) <= _release(installed)]
    return below[-1] if below else ascending[0]


def _release(version: str) -> tuple[int, ...]:
    """The numbers of a version: 0.10.0rc1 and 0.10 are (0, 10)."""
    numbers = re.match(r"\d+(?:\.\d+)*", version)
    return (
        tuple(int(number) for number in re.sub(r"(?:\.0+)+$", "", numbers[0]).split(".")) if numbers else ()
    )


def _installed(engine: EngineName) -> str | None:
    try:
        return paths.installed_versions(paths.engine_environment(engine), [engine])[engine]
    except TunebookError:
        return None
