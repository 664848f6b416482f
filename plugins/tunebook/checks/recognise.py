"""Tells what a file is: whose recipe, and for which of the engine's commands."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from tunebook.checks.findings import Finding
from tunebook.engines.schema import load_schema
from tunebook.recipes import catalog

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from tunebook.checks.subject import Command
    from tunebook.types import EngineName

_MODEL_KEYS: dict[EngineName, str] = {"llamafactory": "model_name_or_path", "axolotl": "base_model"}

# Of a file with neither engine's model key: the share of its keys that an engine must know.
_MOSTLY = 0.6

_ACCELERATE = frozenset({"compute_environment", "distributed_type", "fsdp_config", "deepspeed_config"})
_NEWER = frozenset({"model", "train_dataset", "model_path"})


def engine_of(path: Path, root: Path, text: str) -> EngineName | None:
    """Return the engine a recipe is for; None where it is neither's.

    Told by the folder, by the key of the base model, or by whose keys most of the file's are.

    Args:
        path: The file.
        root: The folder `recipes`.
        text: What the file holds. Its YAML may be broken, which is to be told about as well.
    """
    if path.suffix == ".json":
        return catalog.read_recipe(path, root).engine
    if path.resolve().is_relative_to(root.resolve()):
        folder = path.resolve().relative_to(root.resolve()).parts[0]
        if folder in catalog.ENGINES:
            return folder
    keys = _keys(text)
    by_model = [engine for engine, key in _MODEL_KEYS.items() if key in keys]
    if len(by_model) == 1:
        return by_model[0]
    shares: dict[EngineName, float] = {
        engine: len(keys & set(load_schema(engine)["keys"])) / max(1, len(keys)) for engine in catalog.ENGINES
    }
    best = max(shares, key=lambda engine: shares[engine])
    if len(keys & _ACCELERATE) > 1:
        return None
    return best if shares[best] >= _MOSTLY and len(keys) > 1 else None


def nobodys(text: str, file: str) -> Finding:
    """Return what there is to say of a file that is neither engine's recipe.

    An error where it has keys of an engine, and so was meant as a recipe; else a hint.
    """
    keys = _keys(text)
    meant = any(keys & set(load_schema(engine)["keys"]) for engine in catalog.ENGINES)
    if len(keys & _ACCELERATE) > 1:
        what, meant = "a configuration of accelerate, which is not checked", False
    elif keys & _NEWER:
        what, meant = "LLaMA-Factory's v1 form, which is not checked", False
    else:
        what = "neither engine's recipe"
    return Finding(
        file=file,
        line=None,
        key=None,
        rule="not-a-recipe",
        severity="error" if meant else "hint",
        message=f"{what}: it has neither `model_name_or_path` (LLaMA-Factory) nor `base_model` (Axolotl)",
        fix="name the base model by the key of the engine that is to train it" if meant else None,
    )


def command_of(engine: EngineName, values: Mapping[str, Any]) -> Command:
    """Tell the engine's command by the keys; what trains and exports at once is told about by a rule."""
    if engine == "axolotl":
        return "train"
    keys: Mapping[str, Any] = load_schema(engine)["keys"]
    groups = [set(keys[key]["groups"]) for key in values if key in keys]
    if any(group == {"training"} for group in groups):
        return "train"
    if any(group == {"evaluation"} for group in groups):
        return "eval"
    if "export_dir" in values:
        return "export"
    # Only training has a dataset; the rest stands in every command's arguments.
    return "train" if "dataset" in values or "do_train" in values else "chat"


def _keys(text: str) -> set[str]:
    """Keys at the top level, read without YAML."""
    return set(re.findall(r"^([A-Za-z_][\w-]*)[ \t]*:", text, re.MULTILINE))
