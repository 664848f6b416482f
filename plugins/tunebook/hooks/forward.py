"""One forward pass per batch, with logits only at the positions of answers.

A stock evaluation asks the model for logits at every position: batch x sequence x vocabulary, 61 GB in bf16
for one row of 200,000 tokens and Qwen3's 151,936 entries. The answer is a few tokens of that. Hugging Face
models take an index tensor as `logits_to_keep` and then run their output head, soft-capping included, only on
those positions, in pieces where an answer is long. Loss and argmax answers are the same numbers.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Any, NamedTuple

import torch

from tunebook.hooks.batches import Batch
from tunebook.hooks.ranks import say
from tunebook.memory.inference import LOGITS_AT_A_TIME
from tunebook.types import IGNORED

# Positions whose logits are turned to fp32 at a time. 64 x 152k x 4 bytes is 39 MB per row of the batch.
_POSITIONS_AT_A_TIME = 64


class RowResult(NamedTuple):
    """What one row's pass gives, as plain numbers that can be gathered over ranks."""

    row: int
    nll: float
    """Sum over the row's supervised positions, in nats."""
    tokens: int
    """Supervised positions."""
    hits: int
    """Of these, how many the argmax gets right."""
    argmax_ids: list[int]
    """Argmax ids over the last supervised span, teacher forced."""
    class_logprobs: list[float]
    """Log-probability of each answer class at the first answer position; empty without classes."""


@torch.no_grad()  # type: ignore[untyped-decorator]
def forward(
    model: torch.nn.Module,
    batch: Batch,
    *,
    keep_answers_only: bool,
    class_ids: Sequence[Sequence[int]] = (),
    read_at_a_time: int | None = None,
    agree: Callable[[int], int] = int,
) -> list[RowResult]:
    """Run one batch and read loss, argmax and class probabilities off the answer positions.

    Args:
        model: Called as the engine's trainer would call it, wrappers and all.
        batch: On the model's device.
        keep_answers_only: Pass `logits_to_keep`; False runs the stock forward and selects afterwards.
        class_ids: For each answer class, the token ids it may begin with.
        read_at_a_time: Tokens of each row that the decoder reads at a time; None: all.
        agree: Gives the largest of all ranks' numbers where every forward pass is collective.

    Returns:
        One result per row, in batch order, fillers included.
    """
    # The logits at a position predict the next one, so the answer at column c is read at c - 1.
    columns = (batch.labels[:, 1:] != IGNORED).any(dim=0).nonzero().squeeze(1)
    if columns.numel() == 0:  # nothing supervised in this batch; the pass still has to be made on every rank
        columns = torch.zeros(1, dtype=torch.long, device=batch.labels.device)
    targets = batch.labels[:, columns + 1].cpu()
    if keep_answers_only:
        pieces = logits_in_pieces(
            model, dict(batch.inputs), columns, read_at_a_time=read_at_a_time, agree=agree
        )
    else:
        pieces = _of_all_positions(model, batch, columns)
    nll, argmax = [], []
    class_logprobs: list[list[float]] = [[] for _ in batch.indices]
    # Closed also when something is raised: until then the model's decoder is not its own.
    with contextlib.closing(pieces):
        for start, logits in pieces:
            places = slice(start, start + logits.shape[1])
            losses, best = _loss_and_argmax(logits, targets[:, places].to(logits.device))
            nll.append(losses)
            argmax.append(best)
            if class_ids:
                _read_classes(logits, batch, columns[places].tolist(), class_ids, class_logprobs)
    return _per_row(
        batch, columns.tolist(), targets, torch.cat(nll, dim=1), torch.cat(argmax, dim=1), class_logprobs
    )


def _of_all_positions(model: torch.nn.Module, batch: Batch, columns: torch.Tensor) -> Generator[LogitsPiece]:
    logits = model(**batch.inputs, use_cache=False).logits
    yield LogitsPiece(0, logits[:, columns.to(logits.device), :])


def _loss_and_argmax(logits: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Negative log-likelihood in float32 and argmax id per position: shapes (rows, positions), on the CPU."""
    nll, argmax = [], []
    for start in range(0, logits.shape[1], _POSITIONS_AT_A_TIME):
        part = logits[:, start : start + _POSITIONS_AT_A_TIME].float()
        wanted = targets[:, start : start + _POSITIONS_AT_A_TIME]
        nll.append(
            torch.nn.functional.cross_entropy(
                part.flatten(0, 1), wanted.flatten(), ignore_index=IGNORED, reduction="none"
            ).view_as(wanted)
        )
        argmax.append(part.argmax(dim=-1))
    return torch.cat(nll, dim=1).cpu(), torch.cat(argmax, dim=1).cpu()


def _read_classes(
    logits: torch.Tensor,
    batch: Batch,
    columns: list[int],
    class_ids: Sequence[Sequence[int]],
    found: list[list[float]],
) -> None:
    """Fill in the log-probability of each class for the rows whose first answer token is among `columns`."""
    place = {column: number for number, column in enumerate(columns)}
    for row, start in enumerate(batch.answer_starts):
        where = place.get(start - 1)
        if where is not None:
            logprobs = logits[row, where].float().log_softmax(dim=-1)
            found[row] = [logprobs[list(ids)].logsumexp(dim=0).item() for ids in class_ids]


def _per_row(
    batch: Batch,
    columns: list[int],
    targets: torch.Tensor,
    nll: torch.Tensor,
    argmax: torch.Tensor,
    class_logprobs: list[list[float]],
) -> list[RowResult]:
    results = []
    supervised = targets != IGNORED
    hits = ((argmax == targets) & supervised).sum(dim=1).tolist()
    # In float64: a sum over thousands of tokens in float32 would lose the digits that a comparison needs.
    sums = (nll.double() * supervised).sum(dim=1).tolist()
    counts = supervised.sum(dim=1).tolist()
    for row, index in enumerate(batch.indices):
        start = batch.answer_starts[row]
        span = [
            place for place, column in enumerate(columns) if column + 1 >= start and supervised[row, place]
        ]
        results.append(
            RowResult(
                row=index,
                nll=sums[row],
                tokens=counts[row],
                hits=hits[row],
                argmax_ids=argmax[row, span].tolist() if span else [],
                class_logprobs=class_logprobs[row],
            )
        )
    return results


class LogitsPiece(NamedTuple):
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
) -> Generator[LogitsPiece]:
    """Yield the logits at `columns`, piece by piece; a piece that is not kept frees its memory.

    A summary of 20,000 tokens has 20,000 x 151,936 logits: 6 GB in bf16 and 12 GB for their fp32 copy. So the
    model is called once as usual; its decoder's hidden states at the wanted positions are kept, and further
    calls of the same model find them instead of running the decoder again. The head is the model's own, with
    its soft-capping, scaling, adapters and autocast, whatever wrappers the engine has put around it.

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
                    yield LogitsPiece(start, _checked(logits, length))
                del logits
        if kept.hidden is not None:
            return
    if wanted > 1:
        _say_whole(type(innermost(model)).__name__)
    logits = model(**arguments, use_cache=False, logits_to_keep=columns).logits
    yield LogitsPiece(0, _checked(logits, columns.numel()))


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
        """From this the cache knows which layers keep only a window."""
        return innermost(self.model).config.get_text_config(decoder=True)


@contextlib.contextmanager
def _in_place_of(decoder: torch.nn.Module, kept: _Kept) -> Iterator[None]:
    """Let `kept` replace the decoder's forward, and put back what was there.

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


def innermost(model: torch.nn.Module) -> torch.nn.Module:
    """The Hugging Face model below DDP, DeepSpeed, FSDP and PEFT wrappers."""
    while hasattr(model, "module"):
        model = model.module
    if hasattr(model, "get_base_model"):
        model = model.get_base_model()
    return model


def decoder_of(model: torch.nn.Module) -> torch.nn.Module | None:
    """The part of a causal language model that gives hidden states to its output head; None if unknown."""
    inner = innermost(model)
    if hasattr(inner, "_orig_mod"):  # torch.compile has bound the whole: nothing in it can be replaced
        return None
    decoder = getattr(inner, "base_model", None)
    return decoder if isinstance(decoder, torch.nn.Module) and decoder is not inner else None


def text_config(model: torch.nn.Module) -> dict[str, Any]:
    """The configuration of the model's text part as a mapping; empty when it has none."""
    config = getattr(innermost(model), "config", None)
    if config is None or not hasattr(config, "get_text_config"):
        return {}
    return dict(config.get_text_config(decoder=True).to_dict())


def attention_of(model: torch.nn.Module) -> str:
    """The attention kernel in the words of `tunebook.memory`: flash, sdpa or eager."""
    name = str(getattr(getattr(innermost(model), "config", None), "_attn_implementation", None))
    if "flash" in name or "flex" in name:
        return "flash"
    return "sdpa" if "sdpa" in name else "eager"


def takes_index_tensor(model: torch.nn.Module) -> bool:
    """Whether the model's forward documents `logits_to_keep` as something that may be an index tensor.

    Read from the signature of the innermost model, since wrappers pass keywords through.
    """
    parameter = inspect.signature(innermost(model).forward).parameters.get("logits_to_keep")
    return parameter is not None and "Tensor" in str(parameter.annotation)


def takes_position_ids(model: torch.nn.Module) -> bool:
    """Whether to pass `position_ids`, one per token.

    Models with multimodal rotary positions want three per token and derive them from the mask themselves.
    """
    inner = innermost(model)
    multimodal = "mrope" in str(getattr(inner, "config", ""))
    return "position_ids" in inspect.signature(inner.forward).parameters and not multimodal
