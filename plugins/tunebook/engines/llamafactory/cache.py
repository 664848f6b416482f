"""LLaMA-Factory's `tokenized_path`, named after what is in the rows.

Where that folder exists, LLaMA-Factory reads it, and ignores the dataset, the template and the length
limit of the recipe with one line of warning.
"""

from __future__ import annotations

import os
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

from tunebook import paths
from tunebook.data import registry as datasets
from tunebook.engines.schema import load_schema
from tunebook.errors import TunebookError
from tunebook.runs import token_cache

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

KEY = "tokenized_path"
MARKER = "tunebook.json"
"""Beside the rows: what they were made from."""
PACKAGES = ("llamafactory", "transformers", "tokenizers", "datasets")
"""Distributions whose versions are part of the key."""

# What decides the rows (llamafactory/data, llamafactory/model/loader.py), beside the data and the tokenizer.
_SETTINGS = (
    *("template", "train_on_prompt", "mask_history", "mix_strategy", "max_samples", "val_size"),
    *("ignore_pad_token_for_loss", "eval_on_each_dataset", "neat_packing", "tool_format", "default_system"),
    *("enable_thinking", "preserve_thinking", "predict_with_generate", "use_fast_tokenizer"),
    "split_special_tokens",
)
_LISTS = ("add_tokens", "add_special_tokens")
_OF_PACKING = ("preprocessing_batch_size", "preprocessing_num_workers")


def prepare(values: Mapping[str, Any], environment: Path) -> tuple[dict[str, Any], list[str]]:
    """Return a recipe with `tokenized_path` named after what is in the rows, and what the user should know.

    A folder that already holds rows, and was not named by us, is the user's own and stays as it is.

    Args:
        values: The recipe.
        environment: LLaMA-Factory's virtual environment.

    Raises:
        TunebookError: It cannot be known what the rows are made from, or the hook that writes them is off.
    """
    path = values.get(KEY)
    if not isinstance(path, str) or not path:
        return dict(values), []
    if not token_cache.is_ours(path) and _is_tokenized(Path(path)):
        note = (
            f"{KEY}: the rows in {path} are used as they are, whatever dataset, template and cutoff_len say"
        )
        return dict(values), [note]
    _refuse(values, environment)
    defaults = load_schema("llamafactory")["keys"]

    def setting(key: str) -> Any:
        return values.get(key, defaults[key].get("default"))

    packed = bool(setting("packing") or setting("neat_packing"))
    found = ingredients(
        setting,
        packing=packed or (setting("packing") is None and setting("stage") == "pt"),
        # llamafactory/hparams/data_args.py takes one token away.
        cutoff_len=setting("cutoff_len") - packed,
        versions=paths.installed_versions(environment, PACKAGES),
    )
    folder = folder_for(path, found)
    there = "read from" if (Path(folder) / MARKER).is_file() else "will be kept in"
    return {**values, KEY: folder}, [f"tokenised rows: {there} {folder}", *_unseen(found)]


def _refuse(values: Mapping[str, Any], environment: Path) -> None:
    if os.environ.get("TUNEBOOK_HOOK") == "0" or not paths.has_startup_hook(environment):
        why = "TUNEBOOK_HOOK=0" if os.environ.get("TUNEBOOK_HOOK") == "0" else f"{environment} lacks tunebook"
        raise TunebookError(
            f"{KEY}: the start-up hook, which writes the rows whole, is off: {why}",
            fix=f"`{environment}/bin/python -m pip install tunebook` and unset TUNEBOOK_HOOK, "
            f"or leave out {KEY}",
        )
    if values.get("streaming"):
        raise TunebookError(f"{KEY}: streamed rows are not kept", fix=f"remove streaming or {KEY}")
    folder = values.get("dataset_dir", "data")
    if not isinstance(folder, str) or not Path(folder).is_dir():
        raise TunebookError(
            f"{KEY}: the registry {folder} is not on this machine, so it cannot be known what its rows are",
            fix=f"give a dataset_dir of this machine, or leave out {KEY}",
        )
    if values.get("new_special_tokens_config"):
        raise TunebookError(
            f"{KEY}: rows made with new_special_tokens_config cannot be told apart",
            fix=f"write the tokens under add_special_tokens, or leave out {KEY}",
        )


def _is_tokenized(folder: Path) -> bool:
    """Whether the folder itself holds rows that LLaMA-Factory or `datasets` saved."""
    return (folder / "dataset_dict.json").is_file() or (folder / "state.json").is_file()


def ingredients(
    setting: Callable[[str], Any], *, packing: bool, cutoff_len: int, versions: Mapping[str, str]
) -> dict[str, Any]:
    """Return everything that decides the rows.

    Args:
        setting: Gives the value that LLaMA-Factory uses for a key of the recipe, its default included.
        packing: Whether rows are packed, whichever key says so.
        cutoff_len: The length limit, less the one token that packing takes from it.
        versions: Of `PACKAGES`.

    Raises:
        TunebookError: The registry or a data file cannot be read.
    """
    trained, evaluated = names(setting("dataset")), names(setting("eval_dataset"))
    registry = datasets.load_registry(Path(setting("dataset_dir")))
    entries = {name: registry.entry(name) for name in dict.fromkeys([*trained, *evaluated])}
    found: dict[str, Any] = {key: setting(key) for key in _SETTINGS}
    found |= {"dataset": trained, "eval_dataset": evaluated, "packing": packing, "cutoff_len": cutoff_len}
    # Preference training prepares its rows as a reward model's.
    found["stage"] = "rm" if setting("stage") == "dpo" else setting("stage")
    found["val_size"] = float(found["val_size"] or 0)
    found["interleave_probs"] = [float(share) for share in names(setting("interleave_probs"))]
    found |= {key: names(setting(key)) for key in _LISTS}
    if packing:
        found |= {key: setting(key) for key in _OF_PACKING}
    drawn = found["val_size"] or found["mix_strategy"] != "concat"
    if drawn or any(entry.values.get("num_samples") for entry in entries.values()):
        found["seed"] = setting("seed")
    return {
        "versions": dict(sorted(versions.items())),
        "settings": found,
        "tokenizer": _tokenizer(str(setting("model_name_or_path")), str(setting("model_revision"))),
        "datasets": {
            name: {
                "entry": {key: value for key, value in entry.values.items() if key != "metric"},
                "files": {path.name: token_cache.content(path) for path in datasets.data_files(entry)},
            }
            for name, entry in entries.items()
        },
    }


def differences(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Return what differs between two of what `ingredients` returns: `settings.cutoff_len 64 -> 128`."""
    found = []
    for key in dict.fromkeys([*old, *new]):
        before, after = old.get(key), new.get(key)
        if isinstance(before, dict) and isinstance(after, dict):
            found += differences(before, after, f"{prefix}{key}.")
        elif before != after:
            found.append(f"{prefix}{key} {str(before)[:40]} -> {str(after)[:40]}")
    return found


def _unseen(found: Mapping[str, Any]) -> list[str]:
    """Return a line for each ingredient whose content is not on this machine, where no change is seen."""
    lines = [
        f"{name} is on a hub: if it changes there, delete the folder of tokenised rows"
        for name, dataset in found["datasets"].items()
        if any(key in dataset["entry"] for key in datasets.REMOTE_KEYS)
    ]
    media = [
        name
        for name, dataset in found["datasets"].items()
        if any((dataset["entry"].get("columns") or {}).get(kind) for kind in datasets.MEDIA_COLUMNS)
    ]
    return lines + [f"{name}: pictures and sounds are known only by their names" for name in media]


def names(value: Any) -> list[str]:
    """Return the parts of a list, or of a text with commas between them."""
    parts = value.split(",") if isinstance(value, str) else value if isinstance(value, list | tuple) else ()
    return [str(part).strip() for part in parts]


def folder_for(path: str, found: Mapping[str, Any]) -> str:
    """Return the folder of the rows below `path`, or beside it where that is one of ours."""
    return token_cache.keyed(PurePath(token_cache.base_of(path)), found)


def _tokenizer(model: str, revision: str) -> dict[str, str]:
    """A local tokenizer's content; a hub's is known by name and revision, downloaded or not."""
    files = token_cache.tokenizer_files(Path(model))
    return {path.name: token_cache.content(path) for path in files} or {"name": model, "revision": revision}
