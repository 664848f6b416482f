"""Reads a Hugging Face `config.json` into the sizes that memory depends on; refuses what it does not know."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tunebook.errors import TunebookError
from tunebook.memory.families import FAMILIES
from tunebook.memory.older_families import OLDER_FAMILIES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tunebook.memory.shapes import Shape

_READERS = {**FAMILIES, **OLDER_FAMILIES}
# The longest name first, so that `qwen2_moe` is found before `qwen2`.
_BY_LENGTH = sorted(_READERS, key=len, reverse=True)


def read_shape(config: Mapping[str, Any]) -> Shape:
    """Read a model's sizes out of its `config.json`.

    Args:
        config: The file as a mapping. Of a vision-language model the `text_config` is read.

    Raises:
        TunebookError: The architecture is not known, or the file lacks a size it needs.
    """
    inner = config.get("text_config") or config.get("llm_config")
    if isinstance(inner, dict) and "hidden_size" in inner:
        # A composite model may leave the kind of its text part to the library's default.
        kind = inner.get("model_type") or f"{config.get('model_type', '')}_text"
        tied = inner.get("tie_word_embeddings", config.get("tie_word_embeddings"))
        config = {**inner, "model_type": kind}
        if tied is not None:
            config["tie_word_embeddings"] = tied
    kind = str(config.get("model_type") or "").lower().replace("-", "_")
    if not kind:
        names = " ".join(config.get("architectures") or ()).lower()
        kind = next((known for known in _BY_LENGTH if known.replace("_", "") in names), "")
    reader = _READERS.get(kind)
    if reader is None:
        raise TunebookError(
            f"unknown architecture: model_type {config.get('model_type')!r}",
            fix=f"known are {', '.join(sorted(_READERS))}; a guess would be worth nothing",
        )
    try:
        return reader(kind, config)
    except (KeyError, TypeError, ZeroDivisionError) as err:
        raise TunebookError(
            f"the config of a {kind} model lacks {err}",
            fix="give the complete config.json of the model, not a part of it",
        ) from err
