"""Times the steps of a short training, for `tunebook bench`, and ends it before anything is saved.

Bound to `transformers.trainer` when `tunebook bench` has set `TUNEBOOK_BENCH_FILE`.
"""

from __future__ import annotations

import os
import resource
import time
from pathlib import Path
from typing import Any

import torch
from transformers.trainer_callback import TrainerCallback

from tunebook.files import write_json

VARIABLE = "TUNEBOOK_BENCH_FILE"


class TimesSteps(TrainerCallback):  # type: ignore[misc]
    """Notes when each optimizer step begins and ends, and the tokens it has seen."""

    def __init__(self) -> None:
        self._steps: list[dict[str, float]] = []
        self._began = self._ended = 0.0
        self._tokens = 0
        self._attention: str | None = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **named: Any) -> None:  # noqa: ARG002
        """Have the trainer count the tokens that are no padding, over all ranks."""
        args.include_num_input_tokens_seen = "non_padding"
        config = getattr(named.get("model"), "config", None)
        self._attention = getattr(config, "_attn_implementation", None)
        self._ended = _now()
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002
        """The step's rows have been loaded by now: what has gone by since the last step was waiting."""
        self._began = _now()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002
        """One more step; its time begins where the last one ended."""
        now, tokens = _now(), int(state.num_input_tokens_seen)
        self._steps.append(
            {
                "seconds": now - self._ended,
                "loading": self._began - self._ended,
                "tokens": tokens - self._tokens,
            }
        )
        self._ended, self._tokens = now, tokens

    def on_train_end(self, args: Any, state: Any, control: Any, **named: Any) -> None:  # noqa: ARG002
        """Leave what was measured and end the process: the engine would go on to save the model."""
        cuda = torch.cuda.is_available()
        found = {
            "steps": self._steps,
            "ranks": args.world_size,
            "rows_per_step": args.train_batch_size * args.gradient_accumulation_steps * args.world_size,
            "attention": self._attention,
            "device": torch.cuda.get_device_name() if cuda else "cpu",
            "peak_allocated_bytes": torch.cuda.max_memory_allocated() if cuda else None,
            "peak_reserved_bytes": torch.cuda.max_memory_reserved() if cuda else None,
            # Linux counts in KiB.
            "peak_resident_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        }
        if args.world_size > 1:
            torch.distributed.barrier()
        if state.is_world_process_zero:
            write_json(Path(os.environ[VARIABLE]), found)
        raise SystemExit(0)


def _now() -> float:
    # Kernels run behind the program: without this a step would end before its work does.
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()
