"""One forward pass per batch, with logits only where an answer stands.

A stock evaluation asks the model for logits at every position: batch x sequence x vocabulary, 61 GB in bf16
for one row of 200,000 tokens and Qwen3's 151,936 entries. The answer is a few tokens of that. Hugging Face
models take an index tensor as `logits_to_keep` and then run their output head, soft-capping included, on
those positions alone. Loss and argmax answers are the same numbers.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch

from tunebook.hooks.batches import Batch
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


def innermost(model: torch.nn.Module) -> torch.nn.Module:
    """The Hugging Face model below DDP, DeepSpeed, FSDP and PEFT wrappers."""
    while hasattr(model, "module"):
        model = model.module
    if hasattr(model, "get_base_model"):
        model = model.get_base_model()
    return model


@torch.no_grad()  # type: ignore[untyped-decorator]
def forward(
    model: torch.nn.Module,
    batch: Batch,
    *,
    keep_answers_only: bool,
    class_ids: Sequence[Sequence[int]] = (),
) -> list[RowResult]:
    """Run one batch and read loss, argmax and class probabilities off the answer positions.

    Args:
        model: Called as the engine's trainer would call it, wrappers and all.
        batch: On the model's device.
        keep_answers_only: Pass `logits_to_keep`; False runs the stock forward and selects afterwards.
        class_ids: For each answer class, the token ids it may begin with.

    Returns:
        One result per row, in batch order, fillers included.
    """
    # The logits at a position predict the next one, so the answer at column c is read at c - 1.
    columns = (batch.labels[:, 1:] != IGNORED).any(dim=0).nonzero().squeeze(1)
    if columns.numel() == 0:  # nothing supervised in this batch; the pass still has to be made on every rank
        columns = torch.zeros(1, dtype=torch.long, device=batch.labels.device)
    arguments: dict[str, Any] = {**batch.inputs, "use_cache": False}
    if keep_answers_only:
        arguments["logits_to_keep"] = columns
    logits = model(**arguments).logits
    if not keep_answers_only:
        logits = logits[:, columns.to(logits.device), :]
    if logits.shape[1] != columns.numel():
        raise RuntimeError(
            f"the model returned logits at {logits.shape[1]} positions, asked for {columns.numel()}; "
            "its forward does not read `logits_to_keep` as an index tensor"
        )
    targets = batch.labels[:, columns + 1].to(logits.device)
    nll, argmax = _loss_and_argmax(logits, targets)
    return _per_row(
        batch,
        columns.tolist(),
        targets.cpu(),
        nll,
        argmax,
        _class_logprobs(logits, batch, columns, class_ids),
    )


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


def _class_logprobs(
    logits: torch.Tensor, batch: Batch, columns: torch.Tensor, class_ids: Sequence[Sequence[int]]
) -> list[list[float]]:
    """Log-probability of each class at each row's first answer token; an empty list for a row without one."""
    if not class_ids:
        return [[] for _ in batch.indices]
    place = {column: number for number, column in enumerate(columns.tolist())}
    found: list[list[float]] = []
    for row, start in enumerate(batch.answer_starts):
        where = place.get(start - 1)
        if where is None:
            found.append([])
            continue
        logprobs = logits[row, where].float().log_softmax(dim=-1)
        found.append([logprobs[list(ids)].logsumexp(dim=0).item() for ids in class_ids])
    return found


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
