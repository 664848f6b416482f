"""Steps, tokens and time of a run, as the Hugging Face Trainer counts them."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """How long a run is."""

    rows: int
    steps: int
    """Optimizer steps."""
    rows_per_step: int
    """The effective batch."""
    tokens: int
    """Tokens of all steps if every row had the length limit: an upper bound."""


def schedule(
    *,
    rows: int,
    micro_batch: int,
    accumulation: int,
    gpus: int,
    epochs: float,
    max_steps: int | None,
    seq_len: int,
) -> Schedule:
    """Count the optimizer steps of a run.

    Args:
        rows: Training rows, packing left out of account.
        max_steps: Ends the run early, as `max_steps` does; None for all epochs.

    >>> schedule(
    ...     rows=78271, micro_batch=2, accumulation=8, gpus=1, epochs=3, max_steps=None, seq_len=1024
    ... ).steps
    14676
    """
    batches = math.ceil(rows / (micro_batch * gpus))
    steps = math.ceil(max(1, math.ceil(batches / accumulation)) * epochs)
    seen = math.ceil(rows * epochs)
    if max_steps is not None:
        steps = max_steps
        seen = max_steps * micro_batch * accumulation * gpus
    return Schedule(
        rows=rows, steps=steps, rows_per_step=micro_batch * accumulation * gpus, tokens=seen * seq_len
    )
