"""The keys an engine accepts, from a snapshot of its pinned version: no engine is imported.

The snapshots in `schemas/` are made by scripts/snapshot_schema.py from the installed engine.
"""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

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
