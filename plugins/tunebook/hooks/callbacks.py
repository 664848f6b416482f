"""Our callbacks, added to those that every `transformers.Trainer` starts with.

Bound to `transformers.trainer` by the start-up hook, so in both engines and in every stage of training.
"""

from __future__ import annotations

import functools
import os
import resource
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from transformers.trainer_callback import TrainerCallback

from tunebook.files import write_json
from tunebook.hooks.contract import WritesContract, noted
from tunebook.hooks.ranks import say
from tunebook.runs import folder as run_folder
from tunebook.runs.processes import EngineRecord
from tunebook.runs.stop import of_environment

_BENCH_FILE = "TUNEBOOK_BENCH_FILE"
"""Set by `tunebook bench`: where the times go."""


def bind(trainer_module: ModuleType) -> None:
    """Add the callbacks that this process's environment asks for, and the one that writes contracts.

    That one first: a run that is asked to stop ends after a checkpoint, which then needs its contract.
    """
    wanted: list[type] = [WritesContract]
    if of_environment() is not None:
        wanted.append(StopsWhenAsked)
    if os.environ.get(_BENCH_FILE):
        wanted.append(TimesSteps)
    elif of_environment() is None:
        wanted.append(RecordsProcess)
    trainer_module.DEFAULT_CALLBACKS.extend(wanted)  # type: ignore[attr-defined]
    _stop_at_the_last_step(trainer_module.Trainer)


def _stop_at_the_last_step(trainer: Any) -> None:
    """Have a training that resumes from its last step only close.

    The Trainer looks whether it is done after a step, never before one: a run that was killed while it saved
    its final model would train one step more than it was asked to.
    """
    taken = trainer.get_batch_samples

    @functools.wraps(taken)
    def get_batch_samples(self: Any, *given: Any, **named: Any) -> Any:
        if 0 < self.state.max_steps <= self.state.global_step:
            self.control.should_training_stop = True
            return [], None
        return taken(self, *given, **named)

    trainer.get_batch_samples = get_batch_samples


class RecordsProcess(TrainerCallback):  # type: ignore[misc]
    """Has `tunebook status` know a run that was started by the engine's own command."""

    def __init__(self) -> None:
        self._record: EngineRecord | None = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002
        """Say that this process, the first of all, trains the run."""
        if state.is_world_process_zero and noted(args.output_dir) is not None:
            self._record = EngineRecord(Path(args.output_dir) / run_folder.FOLDER)

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002
        """The training has come to its end."""
        if self._record is not None:
            self._record.trained = True


class StopsWhenAsked(TrainerCallback):  # type: ignore[misc]
    """Ends a training at a step boundary, after writing a checkpoint, when `tunebook stop` asks for it.

    Looks for the request at every step, together with the other ranks; see `runs.stop`. The Trainer's own
    `enable_jit_checkpoint` acts on SIGTERM, whose time differs between ranks, and goes on to the engine's
    closing evaluation, for which a preempted job has no time.
    """

    def __init__(self) -> None:
        request = of_environment()
        assert request is not None
        self._request = request
        self._stopping = False

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Save after this step, and train no further.

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
    flag = torch.tensor(int(value), device=args.device)
    torch.distributed.all_reduce(flag, op=torch.distributed.ReduceOp.MAX)
    return bool(flag)


def _wait_for_all(args: Any) -> None:
    if args.world_size > 1:
        torch.distributed.barrier()


class TimesSteps(TrainerCallback):  # type: ignore[misc]
    """Times the steps of a short training, for `tunebook bench`, and ends it before anything is saved."""

    def __init__(self) -> None:
        self._steps: list[dict[str, float]] = []
        self._began = self._ended = 0.0
        self._tokens = 0
        self._attention: str | None = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **named: Any) -> None:  # noqa: ARG002
        """Have the trainer count the tokens that are not padding, over all ranks."""
        args.include_num_input_tokens_seen = "non_padding"
        config = getattr(named.get("model"), "config", None)
        self._attention = getattr(config, "_attn_implementation", None)
        self._ended = _now()
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002
        """The step's rows have been loaded by now: the time since the last step was waiting for data."""
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
        """Write what was measured and end the process: the engine would go on to save the model."""
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
            write_json(Path(os.environ[_BENCH_FILE]), found)
        raise SystemExit(0)


def _now() -> float:
    # Kernels run asynchronously: without this a step would end before its work does.
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()
