"""Token ids to text, cut at the stop tokens."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

_PICTURE = re.compile(r"(<[^<>\s]{1,40}>)\1{7,}")
"""The same special token over and over is what stands for a picture."""
_PROMPT_TOKENS_KEPT = 1024  # of each prompt, at its end: a record file is read by people


class Detokenizer:
    """Decodes with one tokenizer and one set of stop tokens.

    Args:
        tokenizer: The engine's.
        stop_ids: Token ids that end an answer.
    """

    def __init__(self, tokenizer: Any, stop_ids: frozenset[int]) -> None:
        self.tokenizer = tokenizer
        self.stop_ids = stop_ids

    @property
    def pad_id(self) -> int:
        """What to pad with. The padding is masked, so a stop token will do where no pad token is set."""
        pad_id = self.tokenizer.pad_token_id
        return int(pad_id) if pad_id is not None else min(self.stop_ids)

    def answer(self, ids: Sequence[int]) -> str:
        """The text up to the first stop token, special tokens left out."""
        return str(self.tokenizer.decode(self.until_stop(ids), skip_special_tokens=True))

    def teacher_forced_answer(self, argmax: Sequence[int], reference: Sequence[int]) -> str:
        """The text that greedy decoding would give, as far as a teacher-forced argmax shows it."""
        return self.answer(_greedy_prefix(argmax, reference))

    def until_stop(self, ids: Sequence[int]) -> list[int]:
        """The ids before the first stop token."""
        end = next((place for place, token in enumerate(ids) if token in self.stop_ids), len(ids))
        return list(ids[:end])

    def stops(self, ids: Sequence[int]) -> bool:
        """Whether a stop token is among the ids."""
        return any(token in self.stop_ids for token in ids)

    def prompt(self, ids: Sequence[int]) -> str:
        """The end of a prompt, special tokens shown; says how many tokens come before it."""
        text = str(self.tokenizer.decode(ids[-_PROMPT_TOKENS_KEPT:], skip_special_tokens=False))
        text = _PICTURE.sub(lambda run: f"{run[1]} [{len(run[0]) // len(run[1])} times] ", text)
        hidden = len(ids) - _PROMPT_TOKENS_KEPT
        return f"[{hidden} tokens before] {text}" if hidden > 0 else text

    def first_ids(self, words: Sequence[str]) -> set[int]:
        """The token ids that spellings of one answer may begin with."""
        encoded = (self.tokenizer.encode(word, add_special_tokens=False) for word in words)
        return {ids[0] for ids in encoded if ids}


def _greedy_prefix(argmax: Sequence[int], reference: Sequence[int]) -> list[int]:
    """The part of a teacher-forced argmax that greedy decoding would produce too.

    Up to and including the first token that differs, the model has read only its own choices.

    >>> _greedy_prefix([4, 7, 9], [4, 5, 9])
    [4, 7]
    """
    prefix: list[int] = []
    for predicted, wanted in zip(argmax, reference, strict=False):
        prefix.append(predicted)
        if predicted != wanted:
            break
    return prefix


def stop_ids(tokenizer: Any, model: Any) -> frozenset[int]:
    """End-of-sequence ids of the tokenizer and of the model's generation settings.

    Engines put a template's end-of-turn token into one or the other.
    """
    found = {tokenizer.eos_token_id}
    configured = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    found |= set(configured) if isinstance(configured, (list, tuple)) else {configured}
    return frozenset(token for token in found if token is not None)
