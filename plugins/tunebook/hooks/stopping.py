"""Ends a training at a step boundary, behind a whole checkpoint, when the run is asked to end.

Added to every trainer when `tunebook train` has set `TUNEBOOK_STOP_FILE`; see `callbacks` and `runs.stop`.
The Trainer's own `enable_jit_checkpoint` acts on SIGTERM, whose time differs between ranks, and goes on to
the engine's closing evaluation, for which a preempted job has no time.
"""

from __future__ import annotations

from typing import Any

from transformers.trainer_callback import TrainerCallback

from tunebook.hooks.results import say
from tunebook.runs.stop import of_environment


class StopsWhenAsked(TrainerCallback):  # type: ignore[misc]
    """Looks for the request at every step, together with the other ranks."""

    def __init__(self) -> None:
        request = of_environment()
        assert request is not None
        self._request = request
        self._stopping = False

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Save behind this step, and train no further.

        An evaluation that is due is made first: the Trainer would not make up for it after resuming.
        """
        if not control.should_training_stop and _any_rank(self._request.asked.exists(), args):
            self._stopping = True
            control.should_save = True
            control.should_training_stop = True
            say(f"asked to stop: saving a checkpoint at step {state.global_step}")

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002
        """End the process: what engines do after training is for runs that were trained to their end."""
        if not self._stopping:
            return
        _wait_for_all(args)
        if state.is_world_process_zero:
            self._request.honour(f"checkpoint-{state.global_step}")
        _wait_for_all(args)
        raise SystemExit(0)


def _any_rank(value: bool, args: Any) -> bool:
    """Whether any rank says so: all must stop at one step, or those that go on wait for ever."""
    if args.world_size == 1:
        return value
    import torch

    flag = torch.tensor(int(value), device=args.device)
    torch.distributed.all_reduce(flag, op=torch.distributed.ReduceOp.MAX)
    return bool(flag)


def _wait_for_all(args: Any) -> None:
    if args.world_size > 1:
        import torch

        torch.distributed.barrier()
