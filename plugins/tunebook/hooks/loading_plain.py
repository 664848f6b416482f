"""A model of which nothing is known but what lies in its folder: its own chat template and transformers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from transformers import AutoModelForCausalLM, AutoTokenizer

from tunebook.errors import TunebookError
from tunebook.hooks.encoder import Encoded, Message, Weights
from tunebook.types import IGNORED


class PlainEncoder:
    """Writes what a server writes: the tokenizer's chat template with a generation prompt."""

    def __init__(self, weights: Weights, thinking: bool | None) -> None:
        place = weights.adapter or weights.model
        self.tokenizer: Any = AutoTokenizer.from_pretrained(place, revision=weights.revision)
        self.stop_ids: frozenset[int] = frozenset()
        template = self.tokenizer.chat_template
        if not template:
            raise TunebookError(
                f"{place}: has no chat template, and nothing tells how it was taught",
                fix="name the recipe that it was trained with by --recipe",
            )
        knows = "enable_thinking" in str(template)
        if thinking is not None and not knows:
            raise TunebookError(
                f"{place}: its chat template knows no `enable_thinking`",
                fix="leave --thinking and --no-thinking away",
            )
        self._options = {} if thinking is None else {"enable_thinking": thinking}
        self.thinks = knows and thinking is not False

    def prompt(self, messages: Sequence[Message]) -> list[int]:
        """See `Encoder`."""
        return self._write(messages, add_generation_prompt=True)

    def conversation(self, messages: Sequence[Message]) -> Encoded:
        """See `Encoder`: the answer is what the template writes behind its generation prompt."""
        start, whole = self.prompt(messages[:-1]), self._write(messages)
        return Encoded(whole, [IGNORED] * len(start) + whole[len(start) :])

    def _write(self, messages: Sequence[Message], **options: Any) -> list[int]:
        ids = self.tokenizer.apply_chat_template(
            [dict(turn) for turn in messages], tokenize=True, return_dict=False, **self._options, **options
        )
        return list(ids)


def model(weights: Weights) -> Any:
    """The model in the type of its weights, on the GPUs where there are some."""
    import torch

    device = "auto" if torch.cuda.is_available() else None
    loaded = AutoModelForCausalLM.from_pretrained(
        weights.model, revision=weights.revision, dtype=weights.compute or "auto", device_map=device
    )
    if weights.adapter is not None:
        from peft import PeftModel

        loaded = PeftModel.from_pretrained(loaded, weights.adapter)
    return loaded.eval()
