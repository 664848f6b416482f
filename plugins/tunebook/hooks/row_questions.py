"""One tokenised row as what a model or a server is asked, for `row_probe`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from tunebook.errors import TunebookError
from tunebook.hooks.rows import spans
from tunebook.types import IGNORED

_PROMPT_TOKENS_KEPT = 1024  # as in the records of an evaluation inside the engine
_NO_END = "<|tunebook: no end|>"


class Asker(Protocol):
    """An engine that rows are built by."""

    tokenizer: Any
    knows_tokenizer: bool
    """Whether it is the model's own; else a stand-in that makes a token of each byte."""


def asked(
    engine: Asker,
    ids: Sequence[int],
    labels: Sequence[int],
    messages: Sequence[Mapping[str, str]],
    stops: frozenset[int],
) -> dict[str, Any]:
    """Return a row as `tunebook.evaluation.questions.Question` holds it.

    Args:
        engine: With the tokenizer that made the row.
        ids: The whole row, before the engine cuts it.
        labels: As long.
        messages: What is before the last answer.
        stops: Tokens that end an answer.

    Raises:
        TunebookError: Nothing is learned, or everything.
    """
    found = spans(labels)
    if not found or found[-1].start == 0:
        raise TunebookError(
            "answer and prompt cannot be separated: no token is learned, or all are",
            fix="evaluate with train_on_prompt: false (LLaMA-Factory) or train_on_inputs: false (Axolotl)",
        )
    span = found[-1]
    said = [label for label in labels[span.start : span.end] if label != IGNORED]
    said = said[: next((at for at, token in enumerate(said) if token in stops), len(said))]
    prompt = list(ids[: span.start])
    text = _text(engine, prompt)
    bos = getattr(engine.tokenizer, "bos_token", None)
    if bos and _adds_bos(engine.tokenizer):
        text = text.removeprefix(bos)
    row = {"messages": list(messages), "prompt": text, "reference": _text(engine, said, shown=False)}
    if not engine.knows_tokenizer:
        return {**row, "shown": text, "prompt_tokens": None, "tokens": None}
    shown = _text(engine, prompt[-_PROMPT_TOKENS_KEPT:])
    if len(prompt) > _PROMPT_TOKENS_KEPT:
        shown = f"[{len(prompt) - _PROMPT_TOKENS_KEPT} tokens before] {shown}"
    return {**row, "shown": shown, "prompt_tokens": len(prompt), "tokens": len(ids)}


def _text(engine: Asker, ids: Sequence[int], *, shown: bool = True) -> str:
    text: str = engine.tokenizer.decode(ids, skip_special_tokens=not shown)
    return text.replace(_NO_END, "")


def _adds_bos(tokenizer: Any) -> bool:
    return bool(tokenizer("a")["input_ids"][:1] == [tokenizer.bos_token_id])


def stand_in() -> Any:
    """Return a tokenizer for a model that is not on this machine: it makes one token of each byte.

    What an engine encodes with it can be decoded again without loss. So messages and prompts are known, and
    only their tokens are not. It has no BOS, and its EOS is left out where text is shown.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    bytewise = Tokenizer(models.BPE({letter: place for place, letter in enumerate(alphabet)}, []))
    bytewise.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    bytewise.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=bytewise, eos_token=_NO_END, clean_up_tokenization_spaces=False
    )
