"""Loads a model as its engine does, and writes conversations as the recipe taught them, outside a training.

One module for each engine; here the choice, and a model of which only its folder is known. Each gives an
`Encoder`, which needs no weights, and the model.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from tunebook.errors import TunebookError
from tunebook.hooks.encoder import Encoded, Encoder, Message, WeightsToLoad
from tunebook.types import IGNORED


def load_encoder(weights: WeightsToLoad, *, thinking: bool | None, scratch: Path) -> Encoder:
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
        from tunebook.hooks import loading_axolotl

        return loading_axolotl.encoder(weights, thinking, scratch)
    return PlainEncoder(weights, thinking)


def load_model(weights: WeightsToLoad, encoder: Encoder, *, scratch: Path) -> Any:
    """Load the weights, adapter included, ready to generate."""
    if weights.engine == "llamafactory":
        from tunebook.hooks import loading_llamafactory

        return loading_llamafactory.model(weights, encoder)
    if weights.engine == "axolotl":
        from tunebook.hooks import loading_axolotl

        return loading_axolotl.model(weights, scratch)
    return _plain_model(weights)


class PlainEncoder:
    """For a model of which only its folder is known: writes what a server writes, by its chat template."""

    def __init__(self, weights: WeightsToLoad, thinking: bool | None) -> None:
        place = weights.adapter or weights.model
        self.tokenizer: Any = AutoTokenizer.from_pretrained(place, revision=weights.revision)
        self.stop_ids: frozenset[int] = frozenset()
        template = self.tokenizer.chat_template
        if not template:
            raise TunebookError(
                f"{place}: has no chat template, and nothing says how it was trained",
                fix="name the recipe that it was trained with by --recipe",
            )
        knows = "enable_thinking" in str(template)
        if thinking is not None and not knows:
            raise TunebookError(
                f"{place}: its chat template has no `enable_thinking`",
                fix="omit --thinking and --no-thinking",
            )
        self._options = {} if thinking is None else {"enable_thinking": thinking}
        self.thinks = knows and thinking is not False

    def prompt(self, messages: Sequence[Message]) -> list[int]:
        """See `Encoder`."""
        return self._write(messages, add_generation_prompt=True)

    def conversation(self, messages: Sequence[Message]) -> Encoded:
        """See `Encoder`: the answer is what the template writes after its generation prompt."""
        start, whole = self.prompt(messages[:-1]), self._write(messages)
        return Encoded(whole, [IGNORED] * len(start) + whole[len(start) :])

    def _write(self, messages: Sequence[Message], **options: Any) -> list[int]:
        ids = self.tokenizer.apply_chat_template(
            [dict(turn) for turn in messages], tokenize=True, return_dict=False, **self._options, **options
        )
        return list(ids)


def _plain_model(weights: WeightsToLoad) -> Any:
    """The model in the type of its weights, on the GPUs where there are some."""
    device = "auto" if torch.cuda.is_available() else None
    loaded = AutoModelForCausalLM.from_pretrained(
        weights.model, revision=weights.revision, dtype=weights.compute or "auto", device_map=device
    )
    if weights.adapter is not None:
        from peft import PeftModel

        loaded = PeftModel.from_pretrained(loaded, weights.adapter)
    return loaded.eval()
