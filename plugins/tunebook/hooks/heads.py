"""Logits at chosen positions, a bounded number at a time: one pass of the decoder, several of the head.

A summary of 20,000 tokens has 20,000 x 151,936 logits: 6 GB in bf16 and 12 GB for their fp32 copy. The model
is called once as ever; its decoder's hidden states at the wanted positions are kept, and further calls of the
same model find them instead of running the decoder again. So the head is the model's own, with its
soft-capping, scaling, adapters and autocast, below whatever wrappers the engine has put around it.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Generator, Iterator
from typing import Any, NamedTuple

import torch

from tunebook.hooks.leavings import say
from tunebook.hooks.wrappers import decoder_of, innermost, text_config
from tunebook.memory.inference import LOGITS_AT_A_TIME


class Piece(NamedTuple):
    """Logits of consecutive wanted positions."""

    start: int
    """Number of the first of them among those wanted."""
    logits: torch.Tensor
    """Shape (rows, positions, vocabulary)."""


def positions_at_a_time(rows: int, vocabulary: int) -> int:
    """How many positions of each row the head runs on at a time.

    >>> positions_at_a_time(1, 151_936), positions_at_a_time(16, 151_936)
    (883, 55)
    """
    return max(1, LOGITS_AT_A_TIME // (rows * vocabulary))


def logits_in_pieces(
    model: torch.nn.Module,
    arguments: dict[str, Any],
    columns: torch.Tensor,
    *,
    read_at_a_time: int | None = None,
    agree: Callable[[int], int] = int,
) -> Generator[Piece]:
    """Yield the logits at `columns`, piece by piece; a piece that is not kept frees its memory.

    Args:
        model: Called as the engine's trainer would call it, wrappers and all. Its forward takes an index
            tensor as `logits_to_keep`.
        arguments: `input_ids` and what goes with it; `use_cache` is ours.
        columns: Positions, ascending.
        read_at_a_time: Tokens of each row that the decoder reads at a time, over a cache; None: all.
        agree: Gives the largest of all ranks' numbers where every forward pass is collective.
    """
    rows, tokens = arguments["input_ids"].shape
    vocabulary = int(text_config(model).get("vocab_size") or 0)
    size = positions_at_a_time(rows, vocabulary) if vocabulary else columns.numel()
    wanted = agree(-(-columns.numel() // size))
    reading = None if read_at_a_time is None or read_at_a_time >= tokens else read_at_a_time
    decoder = decoder_of(model)
    if decoder is not None and (wanted > 1 or reading is not None):
        kept = _Kept(model, columns, reading)
        with _in_place_of(decoder, kept):
            for number in range(wanted):
                start = number * size
                # A rank with fewer pieces than another keeps it in step with its first position.
                real = start < columns.numel()
                kept.span = (start, min(start + size, columns.numel())) if real else (0, 1)
                length = kept.span[1] - kept.span[0]
                index = torch.arange(length, device=columns.device)
                logits = model(**arguments, use_cache=False, logits_to_keep=index).logits
                if kept.hidden is None:
                    break
                if real:
                    yield Piece(start, _checked(logits, length))
                del logits
        if kept.hidden is not None:
            return
    if wanted > 1:
        _say_whole(type(innermost(model)).__name__)
    logits = model(**arguments, use_cache=False, logits_to_keep=columns).logits
    yield Piece(0, _checked(logits, columns.numel()))


@functools.cache
def _say_whole(model: str) -> None:
    say(f"{model} has no decoder of its own: all logits of a long answer are made at once")


def _checked(logits: torch.Tensor, positions: int) -> torch.Tensor:
    if logits.shape[1] != positions:
        raise RuntimeError(
            f"the model returned logits at {logits.shape[1]} positions, asked for {positions}; "
            "its forward does not read `logits_to_keep` as an index tensor"
        )
    return logits


class _Kept:
    """A decoder's forward that runs once and then gives the hidden states of `span` again."""

    def __init__(self, model: torch.nn.Module, columns: torch.Tensor, read_at_a_time: int | None) -> None:
        self.model = model
        self.columns = columns
        self.read_at_a_time = read_at_a_time
        self.span = (0, 0)
        self.hidden: torch.Tensor | None = None
        self._kind: Callable[..., Any] = dict

    def __call__(self, real: Callable[..., Any], *args: Any, **named: Any) -> Any:
        if self.hidden is None:
            if self.read_at_a_time is None:
                output = real(*args, **named)
                # A copy, so that the hidden states of all other positions can go.
                self.hidden = output[0][:, self.columns.to(output[0].device)].clone()
            else:
                output, self.hidden = self._read_in_pieces(real, self.read_at_a_time, *args, **named)
            self._kind = type(output)
        return self._kind(last_hidden_state=self.hidden[:, self.span[0] : self.span[1]])

    def _read_in_pieces(
        self, real: Callable[..., Any], size: int, *args: Any, **named: Any
    ) -> tuple[Any, torch.Tensor]:
        """Read `size` tokens at a time over a cache; gives the last output and the wanted hidden states."""
        from transformers import DynamicCache

        if args or named.get("input_ids") is None:
            raise RuntimeError("the model does not hand `input_ids` to its decoder by name")
        tokens, mask = named["input_ids"], named["attention_mask"]
        positions = named.get("position_ids")
        cache = DynamicCache(config=self._text_config())
        found: list[torch.Tensor] = []
        output: Any = None
        for start in range(0, tokens.shape[1], size):
            end = min(start + size, tokens.shape[1])
            part = {
                **named,
                "input_ids": tokens[:, start:end],
                "attention_mask": mask[:, :end],
                "past_key_values": cache,
                "use_cache": True,
            }
            if positions is not None:
                part["position_ids"] = positions[:, start:end]
            output = real(**part)
            inside = self.columns[(self.columns >= start) & (self.columns < end)] - start
            if inside.numel():
                found.append(output[0][:, inside.to(output[0].device)].clone())
        return output, torch.cat(found, dim=1)

    def _text_config(self) -> Any:
        """What tells the cache which layers keep a window only."""
        return innermost(self.model).config.get_text_config(decoder=True)


@contextlib.contextmanager
def _in_place_of(decoder: torch.nn.Module, kept: _Kept) -> Iterator[None]:
    """Let `kept` stand before the decoder's forward, and put back what was there.

    On the object and not on its class: hooks of accelerate and DeepSpeed go on working around it.
    """
    own = decoder.__dict__.get("forward")
    real = decoder.forward

    def forward(*args: Any, **named: Any) -> Any:
        return kept(real, *args, **named)

    decoder.forward = forward
    try:
        yield
    finally:
        if own is None:
            del decoder.forward
        else:
            decoder.forward = own
