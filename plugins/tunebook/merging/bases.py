"""Finds the base model of adapters on this machine."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunebook.errors import TunebookError
from tunebook.merging.inputs import read_json
from tunebook.merging.weights import model_weights
from tunebook.models.source import local_folder

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tunebook.merging.inputs import Input
    from tunebook.merging.weights import Weights


@dataclass(frozen=True, slots=True, kw_only=True)
class Base:
    """The model that adapters were trained on."""

    name: str
    """As the adapters, or the user, name it."""
    folder: Path
    config: Mapping[str, Any]
    weights: Weights
    notes: tuple[str, ...]


def find_base(adapters: Sequence[Input], override: str | None) -> Base:
    """Find the base model of adapters.

    Args:
        adapters: All of one base, as `differences` has proved.
        override: The folder or hub name that the user gave; None for what the adapters name.

    Raises:
        TunebookError: It is not on this machine, or its weights are quantised or not safetensors.
    """
    first = adapters[0]
    named = first.origin.base
    revision = first.origin.revision
    name = override or named
    if not name:
        raise TunebookError(
            f"{first.folder}/adapter_config.json: base_model_name_or_path is empty",
            fix="name the base with --base",
        )
    folder = local_folder(name, revision if override is None else None)
    if folder is None:
        raise TunebookError(
            f"the base model {name} is not on this machine",
            fix=f"download it (`hf download {name}`), or name its folder with --base"
            if len(Path(name).parts) <= 2 and not name.startswith((".", "/", "~"))
            else "name its folder with --base",
        )
    config = read_json(folder / "config.json")
    if config.get("quantization_config"):
        method = config["quantization_config"].get("quant_method", "unknown")
        raise TunebookError(
            f"{folder}: the base's own weights are quantised ({method}): rounding would lose the adapter",
            fix="give the unquantised model with --base",
        )
    weights = model_weights(folder)
    if weights is None:
        raise TunebookError(
            f"{folder}: holds no model.safetensors", fix="download the safetensors files of the base model"
        )
    notes = []
    if override is not None and named and local_folder(named, revision) != folder:
        notes.append(f"the base is {override}, as --base says; the adapter names {named}")
    if any(adapter.origin.quantised for adapter in adapters):
        notes.append(
            "the adapter was trained on a quantised copy of the base and is merged into the unquantised "
            "weights: it was never evaluated on exactly these"
        )
    return Base(name=name, folder=folder, config=config, weights=weights, notes=tuple(notes))
