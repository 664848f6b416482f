"""The keys an engine accepts, from a snapshot of its pinned version: no engine is imported.

The snapshots in `schemas/` are made by scripts/snapshot_schema.py from the installed engine.
"""

from __future__ import annotations

import difflib
import functools
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunebook.errors import TunebookError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from tunebook.types import EngineName

_FOLDER = Path(__file__).resolve().parent / "schemas"


@functools.cache
def load_schema(engine: EngineName) -> Mapping[str, Any]:
    """Return the snapshot of an engine.

    It holds `engine`, `version`, and three mappings from a key to what it takes: `keys` of the recipe,
    `models` (by name) of the mappings below it, and `plugins` (by path) with the keys each one adds.

    Raises:
        FileNotFoundError: There is no snapshot of this engine.
    """
    found = sorted(_FOLDER.glob(f"{engine}-*.json"))
    if not found:
        raise FileNotFoundError(f"no snapshot of {engine} in {_FOLDER}")
    schema: Mapping[str, Any] = json.loads(found[-1].read_text(encoding="utf-8"))
    return schema


def unknown_keys(
    values: Mapping[str, Any], schema: Mapping[str, Any], own: Mapping[str, Any], *, open_ended: bool = False
) -> list[TunebookError]:
    """Return the keys that the engine would pass over, each with the nearest one it knows.

    Args:
        values: A recipe.
        schema: As `load_schema` gives it.
        own: Further keys, as of a plugin.
        open_ended: Somebody else may add keys that we do not know: then only a key that looks like a known
            one is an error.
    """
    return list(_unknown(values, {**schema["keys"], **own}, schema["models"], "", open_ended=open_ended))


def _unknown(
    values: Mapping[str, Any],
    known: Mapping[str, Any],
    models: Mapping[str, Any],
    where: str,
    *,
    open_ended: bool,
) -> Iterator[TunebookError]:
    names = {alias: key for key, spec in known.items() for alias in (key, *spec.get("aliases", ()))}
    for key, value in values.items():
        if key not in names:
            close = difflib.get_close_matches(str(key), names, n=1, cutoff=0.8 if open_ended else 0.6)
            if close or not open_ended:
                yield TunebookError(
                    f"{where}{key}: no such key; the engine would pass over it in silence",
                    fix=f"did you mean {where}{close[0]}?" if close else f"remove {where}{key}",
                )
            continue
        inner = known[names[key]].get("models")
        if not inner:
            continue
        below: dict[str, Any] = {}
        for model in inner:
            below |= models[model]
        parts = value if isinstance(value, list) else [value]
        for number, part in enumerate(parts):
            if isinstance(part, dict):
                place = f"{where}{key}[{number}]." if isinstance(value, list) else f"{where}{key}."
                yield from _unknown(part, below, models, place, open_ended=open_ended)
