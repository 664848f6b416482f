"""What `loading` takes and gives: weights to load, and an encoder of conversations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from tunebook.errors import TunebookError
from tunebook.hooks.rows import spans
from tunebook.types import EngineName

Message = Mapping[str, str]
"""`{"role": "system" | "user" | "assistant", "content": text}`."""


class WeightsToLoad(NamedTuple):
    """Which weights to load, and the settings they were trained with; made from a `ModelSource`."""

    engine: EngineName | None
    settings: dict[str, Any]
    model: str
    """A folder or a hub's name: the whole model, or the base of `adapter`."""
    revision: str | None
    adapter: str | None
    compute: str | None
    """`float32`, `bfloat16` or `float16`; None where no contract says."""


class Encoded(NamedTuple):
    """A whole conversation as training saw it."""

    ids: list[int]
    labels: list[int]
    """As long as `ids`; -100 where no loss is taken."""


class Encoder(Protocol):
    """Writes conversations as one engine does, with one tokenizer and template."""

    tokenizer: Any
    stop_ids: frozenset[int]
    """End-of-turn tokens that the template itself names, without the tokenizer's own."""
    thinks: bool
    """Whether the model is asked to think before it answers."""

    def prompt(self, messages: Sequence[Message]) -> list[int]:
        """Token ids of a conversation that ends with the user's turn, up to where the answer begins."""
        ...

    def conversation(self, messages: Sequence[Message]) -> Encoded:
        """Token ids and labels of a conversation that ends with an answer."""
        ...


def before_the_answer(encoded: Encoded) -> list[int]:
    """The ids before the last supervised span.

    Raises:
        TunebookError: Nothing is supervised, or everything is.
    """
    found = spans(encoded.labels)
    if not found or found[-1].start == 0:
        raise TunebookError(
            "the recipe's template marks no answer: nothing says where one begins",
            fix="set `train_on_inputs: false` (Axolotl) or `train_on_prompt: false` (LLaMA-Factory)",
        )
    return encoded.ids[: found[-1].start]
