"""What a server takes from the files of a model: tokenizer, chat template, end tokens, configuration."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from tunebook.errors import TunebookError
from tunebook.models import contract
from tunebook.models.source import local_folder

if TYPE_CHECKING:
    from pathlib import Path

    from tunebook.models.source import ModelSource


def served_tokenizer(source: ModelSource) -> Path:
    """Return the folder of the tokenizer that lies beside the weights, or else beside their base.

    Raises:
        TunebookError: There is none on this machine.
    """
    for folder in (source.folder, base_folder(source)):
        if folder is not None and any(
            (folder / name).is_file() for name in ("tokenizer.json", "tokenizer_config.json")
        ):
            return folder
    raise TunebookError(
        f"{source.folder}: there is no tokenizer in it, and its base {source.base!r} is not on this machine",
        fix="save the tokenizer beside the weights, or download the base model",
    )


def base_folder(source: ModelSource) -> Path | None:
    """Return the folder of the base model, where it is on this machine."""
    return None if source.base is None else local_folder(source.base, source.revision)


def chat_template_of(folder: Path) -> str | None:
    """Return the chat template that lies in a folder."""
    file = folder / "chat_template.jinja"
    if file.is_file():
        return file.read_text(encoding="utf-8")
    found = read_json(folder / "tokenizer_config.json").get("chat_template")
    return found if isinstance(found, str) else None


def template_changed(source: ModelSource, folder: Path) -> bool:
    """Whether the saved chat template is another than the one that training saved."""
    if source.contract is None:
        return False
    trained: str | None = source.contract["template"]["chat_template_sha256"]
    return contract.text_sha256(chat_template_of(folder)) != trained


def generation_eos(source: ModelSource) -> tuple[list[int] | None, str]:
    """Return the ids that end a generation, and the file that says so; None where no file does."""
    folder = source.folder if source.adapter is None else base_folder(source)
    for name in ("generation_config.json", "config.json"):
        if folder is None or not (folder / name).is_file():
            continue
        found = read_json(folder / name).get("eos_token_id")
        if found is not None:
            return (list(found) if isinstance(found, list) else [int(found)]), str(folder / name)
    return None, str((folder or source.folder) / "generation_config.json")


def text_config(folder: Path | None) -> dict[str, Any] | None:
    """Return the language model's part of a folder's `config.json`; None where there is none."""
    if folder is None or not (folder / "config.json").is_file():
        return None
    config = read_json(folder / "config.json")
    text = config.get("text_config")
    return {**config, **text} if isinstance(text, dict) else config


def read_json(path: Path) -> dict[str, Any]:
    """Return what a file holds; empty where it is not there, or holds no object.

    Raises:
        TunebookError: It is no JSON.
    """
    if not path.is_file():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as err:
        raise TunebookError(f"{path}: is no JSON: {err}", fix="save it again") from err
    return found if isinstance(found, dict) else {}
