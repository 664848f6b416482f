"""Headers of safetensors files: names, types and shapes of tensors, without their values."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from tunebook.errors import TunebookError

if TYPE_CHECKING:
    from pathlib import Path

_LONGEST = 100 << 20  # the format's own limit


def read(path: Path) -> dict[str, Any]:
    """Return the header of a file by tensor, `{"dtype": "BF16", "shape": [2, 3], "data_offsets": ...}`.

    Raises:
        TunebookError: It is no safetensors file.
    """
    with path.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        try:
            if length > _LONGEST:
                raise ValueError(f"a header of {length:,} bytes")
            header = json.loads(stream.read(length))
            if not isinstance(header, dict):
                raise TypeError("its header is no object")
        except (ValueError, TypeError) as err:
            raise TunebookError(
                f"{path}: is no whole safetensors file: {err}", fix="download or save it again"
            ) from err
    header.pop("__metadata__", None)
    return header


def tensors(folder: Path) -> dict[str, dict[str, Any]]:
    """Return the tensors of all safetensors files of a folder, by name."""
    found: dict[str, dict[str, Any]] = {}
    for path in sorted(folder.glob("*.safetensors")):
        found |= read(path)
    return found
