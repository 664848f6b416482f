"""The JSON form `{"model_args": ..., "data_args": ..., "training_args": ...}`, as one flat recipe.

Training scripts built on Hugging Face's argument classes read such a file. LLaMA-Factory has all of these
keys in one flat YAML file, most of them under the same names.
"""

from __future__ import annotations

import json
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, NamedTuple

from tunebook.errors import TunebookError, join_errors

if TYPE_CHECKING:
    from collections.abc import Mapping

_GROUP = "_args"

# Keys of those scripts that LLaMA-Factory has under another name. Any other unknown key is reported by
# `tunebook check`, which knows the nearest name.
_RENAMED = {"max_seq_length": "cutoff_len"}
_DATA_FILE = "dataset_path"

# The scripts' own behaviour, which LLaMA-Factory has to be given. `setdefault`: a file that says more wins.
_IMPLIED = {"stage": "sft", "do_train": True, "finetuning_type": "full"}


class Flattened(NamedTuple):
    """A flat recipe, and where each of its keys is in the file."""

    values: dict[str, Any]
    sources: dict[str, str]
    """Dotted key in the file by key of the recipe; none for what only the scripts imply."""


def is_recipe(values: Mapping[str, Any]) -> bool:
    """Whether a JSON object is meant as a recipe, nested or flat, and not for DeepSpeed."""
    return bool(_groups(values)) or "model_name_or_path" in values or "base_model" in values


def parse(text: str, *, source: str) -> dict[str, Any]:
    """Read a JSON text that holds one object.

    Raises:
        TunebookError: It is not JSON, or holds something else; `source` is what the message calls it.
    """
    try:
        values = json.loads(text)
    except json.JSONDecodeError as err:
        raise TunebookError(
            f"{source}, line {err.lineno}: is not JSON: {err.msg}", fix="correct the line"
        ) from err
    if not isinstance(values, dict):
        raise TunebookError(
            f"{source}: holds a {type(values).__name__}, not an object", fix='write it as {"key": value}'
        )
    return values


def flatten(values: Mapping[str, Any], *, name: str) -> Flattened:
    """Return the flat recipe of a nested or flat JSON object.

    Groups are taken apart, `max_seq_length` becomes `cutoff_len`, and `dataset_path: DIR/NAME.csv` becomes
    the entry NAME of the registry in DIR. Of a nested object, what the scripts imply is added: full
    supervised fine-tuning, into `output/<name>` where it names no `output_dir`.

    Args:
        values: As `parse` gives it.
        name: Of the file, without its suffix.

    Raises:
        TunebookError: Two groups have the same key.
    """
    groups = _groups(values)
    found: dict[str, Any] = {}
    sources: dict[str, str] = {}
    errors: list[TunebookError] = []

    def put(key: str, value: Any, source: str) -> None:
        if key in sources:
            errors.append(
                TunebookError(f"{source} and {sources[key]} both set {key}", fix="remove one of them")
            )
        found[key], sources[key] = value, source

    for key, value in values.items():
        inner = value if key in groups else {key: value}
        for inner_key, inner_value in inner.items():
            source = f"{key}.{inner_key}" if key in groups else key
            if inner_key == _DATA_FILE and groups:
                path = PurePosixPath(str(inner_value))
                put("dataset_dir", str(path.parent), source)
                put("dataset", path.stem, source)
            else:
                put(_RENAMED.get(inner_key, inner_key) if groups else inner_key, inner_value, source)
    if errors:
        raise join_errors(errors)
    if groups and "model_name_or_path" in found:
        for key, value in {**_IMPLIED, "output_dir": f"output/{name}"}.items():
            found.setdefault(key, value)
    return Flattened(found, sources)


def _groups(values: Mapping[str, Any]) -> set[str]:
    return {key for key, value in values.items() if key.endswith(_GROUP) and isinstance(value, dict)}
