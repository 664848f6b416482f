"""Counts the parameters that a run trained, from the headers of its weight files."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from tunebook.models import safetensors
from tunebook.runlog.records import Sourced

if TYPE_CHECKING:
    from pathlib import Path


def trained_parameters(folder: Path) -> Sourced | None:
    """How many parameters the run trained.

    An adapter holds exactly those. A folder without an adapter holds a model, of which full fine-tuning
    trained all.

    Returns:
        None where there are no weights in the folder or its newest checkpoint, or not all of them.

    Raises:
        OSError: A file cannot be read.
    """
    adapter = folder / "adapter_model.safetensors"
    files = [adapter] if adapter.is_file() else sorted(folder.glob("model*.safetensors"))
    counts = [_parameters(path) for path in files]
    if not counts or any(count is None for count in counts):
        return None
    names = files[0].name if len(files) == 1 else f"{len(files)} files model*.safetensors"
    return Sourced(value=sum(count or 0 for count in counts), source=f"{names} (header)")


def _parameters(path: Path) -> int | None:
    """Elements of all tensors of a safetensors file, or None where its header is damaged."""
    try:
        found = safetensors.read(path).tensors.values()
        return int(sum(math.prod(tensor["shape"]) for tensor in found))
    except (safetensors.DamagedHeaderError, TypeError):
        return None
