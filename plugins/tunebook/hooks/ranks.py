"""The ranks that share an evaluation: who computes what, and how everybody gets all results.

The stock sampler fills the last batches with repeated rows so that ranks stay in step, and scores the
repeats: 41 rows on two ranks came out as 64. Here fillers are marked and dropped.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, NamedTuple, TypeVar

import torch

Result = TypeVar("Result")

FILLER = -1
"""Index of a row that only keeps a rank in step."""


class Rank(NamedTuple):
    """This process's place among those that share the evaluation rows."""

    number: int
    world: int


def rank_of(trainer: Any) -> Rank:
    """The data-parallel place of this process.

    Under tensor or context parallelism the ranks of one group must see the same rows. There every rank
    takes all of them, which is slow and right.
    """
    parallelism = getattr(trainer.accelerator, "parallelism_config", None)
    if parallelism is not None and getattr(parallelism, "non_data_parallel_size", 1) > 1:
        return Rank(0, 1)
    return Rank(trainer.args.process_index, trainer.args.world_size)


def say(line: str) -> None:
    """Print one line, on the first rank only, without tearing the engine's progress bar."""
    from tqdm import tqdm

    # By torchrun's variable: some lines are printed before the engine has its process group.
    if os.environ.get("RANK", "0") == "0":
        tqdm.write(f"[tunebook] {line}")


def in_step(model: torch.nn.Module) -> bool:
    """Whether every forward pass is collective: all ranks must make the same number of them."""
    from transformers.integrations.deepspeed import is_deepspeed_zero3_enabled
    from transformers.integrations.fsdp import is_fsdp_managed_module

    return bool(is_deepspeed_zero3_enabled() or is_fsdp_managed_module(model))


def largest(number: int, device: torch.device) -> int:
    """The largest of all ranks' numbers; collective."""
    if not torch.distributed.is_initialized():
        return number
    shared = torch.tensor([number], device=device)
    torch.distributed.all_reduce(shared, op=torch.distributed.ReduceOp.MAX)
    return int(shared.item())


def gather(results: Sequence[Result], rank: Rank) -> list[Result]:
    """All ranks' results, on every rank: a metric that only rank 0 knows would leave the others waiting."""
    if rank.world == 1:
        return list(results)
    parts: list[list[Result]] = [[] for _ in range(rank.world)]
    torch.distributed.all_gather_object(parts, list(results))
    return [result for part in parts for result in part]
