"""The tokenizer and the chat template that an Axolotl recipe trains with."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tunebook import paths
from tunebook.errors import TunebookError
from tunebook.lengths import model_files
from tunebook.lengths.model_files import ModelTokenizer

Row = Mapping[str, Any]

# Tokens are changed by these in ways that are not done here.
_REFUSED_KEYS = (
    "added_tokens_overrides",
    "tokenizer_use_mistral_common",
    "tokenizer_type",
    "is_mistral_derived_model",
)

_TEMPLATES = "lib/python3*/site-packages/axolotl/utils/chat_templates/templates"


def prepare(values: Row) -> ModelTokenizer:
    """Return the recipe's tokenizer with the tokens that its keys add.

    Raises:
        TunebookError: It is not on this machine, or the recipe changes it in ways that are not known here.
    """
    refused = [key for key in _REFUSED_KEYS if values.get(key)]
    if refused:
        raise TunebookError(f"a recipe with {', '.join(refused)} is not measured", fix="measure with --chars")
    key = "tokenizer_config" if values.get("tokenizer_config") else "base_model"
    folder = model_files.find_folder(
        str(values.get(key)),
        revision=str(values.get("revision_of_model") or "main"),
        cache_dir=None,
        key=key,
    )
    tokenizer = model_files.load(folder)
    special = dict(values.get("special_tokens") or {})
    extra = special.pop("additional_special_tokens", None) or []
    tokenizer.special.update({name: str(token) for name, token in special.items()})
    tokenizer.add_special([*map(str, special.values()), *map(str, extra)])
    if values.get("tokens"):
        from tokenizers import AddedToken

        tokenizer.tokenizer.add_tokens(
            [AddedToken(str(token), normalized=False) for token in values["tokens"]]
        )
    return tokenizer


def chat_template_text(values: Row, block: Row, tokenizer: ModelTokenizer) -> str:
    """Return the Jinja text of the chat template that a block is rendered with.

    Raises:
        TunebookError: It cannot be found.
    """
    where = block if block.get("chat_template") else values
    choice = str(where.get("chat_template") or "tokenizer_default")
    if choice == "jinja":
        given = str(where.get("chat_template_jinja") or "")
        file = Path(given)
        return file.read_text(encoding="utf-8") if len(given) < 1024 and file.is_file() else given
    if choice == "tokenizer_default" or choice.startswith("tokenizer_default_fallback_"):
        if tokenizer.chat_template:
            return tokenizer.chat_template
        choice = choice.removeprefix("tokenizer_default_fallback_")
        if choice == "tokenizer_default":
            raise TunebookError(
                f"the tokenizer in {tokenizer.folder} has no chat template",
                fix="set chat_template to one by name",
            )
    # Axolotl's own templates travel with it; they are read there, so that they are of the version used.
    environment = paths.engine_environment("axolotl")
    found = sorted(environment.glob(f"{_TEMPLATES}/{choice}.jinja"))
    if not found:
        raise TunebookError(
            f"chat_template: the Axolotl in {environment} has no template {choice!r}",
            fix="use tokenizer_default, or a name of Axolotl's",
        )
    return found[0].read_text(encoding="utf-8")
