"""Loads a model as its engine does, and writes conversations as the recipe taught them, outside a training.

One module an engine, and one for a model that nothing is known of. Each gives an `Encoder`, which needs no
weights, and the model.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tunebook.hooks.encoder import Encoder, Weights


def load_encoder(weights: Weights, *, thinking: bool | None, scratch: Path) -> Encoder:
    """Load tokenizer and template.

    Args:
        weights: What to load them for.
        thinking: Ask the model to think, or not to; None for what the recipe says.
        scratch: A folder for files that an engine wants to write.

    Raises:
        TunebookError: The template knows no thinking, or cannot write single conversations.
    """
    if weights.engine == "llamafactory":
        from tunebook.hooks.loading_llamafactory import LlamaFactoryEncoder

        return LlamaFactoryEncoder(weights, thinking)
    if weights.engine == "axolotl":
        from tunebook.hooks.loading_axolotl import load

        return load(weights, thinking, scratch)
    from tunebook.hooks.loading_plain import PlainEncoder

    return PlainEncoder(weights, thinking)


def load_model(weights: Weights, encoder: Encoder, *, scratch: Path) -> Any:
    """Load the weights, adapter included, ready to generate."""
    if weights.engine == "llamafactory":
        from tunebook.hooks import loading_llamafactory

        return loading_llamafactory.model(weights, encoder)
    if weights.engine == "axolotl":
        from tunebook.hooks import loading_axolotl

        return loading_axolotl.model(weights, scratch)
    from tunebook.hooks import loading_plain

    return loading_plain.model(weights)
