"""One forward pass per batch, with logits only where an answer stands.

A stock evaluation asks the model for logits at every position: batch x sequence x vocabulary, 61 GB in bf16
for one row of 200,000 tokens and Qwen3's 151,936 entries. The answer is a few tokens of that. Hugging Face
models take an index tensor as `logits_to_keep` and then run their output head, soft-capping included, on
those positions alone, in pieces where an answer is long (heads.py). Loss and argmax answers are the same
numbers.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Sequence
from typing import NamedTuple

import torch

from tunebook.hooks.batches import Batch
from tunebook.hooks.heads import Piece, logits_in_pieces
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


def _of_all_positions(model: torch.nn.Module, batch: Batch, columns: torch.Tensor) -> Generator[Piece]:
    logits = model(**batch.inputs, use_cache=False).logits
    yield Piece(0, logits[:, columns.to(logits.device), :])


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
