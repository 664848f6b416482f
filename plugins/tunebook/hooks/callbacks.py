"""Adds our callbacks to those that every `transformers.Trainer` starts with.

Bound to `transformers.trainer` by the start-up hook, so in both engines and in every stage of training.
"""

from __future__ import annotations

import os
from types import ModuleType

from tunebook.runs.stop import of_environment


def bind(trainer_module: ModuleType) -> None:
    """Add the callbacks that this process's environment asks for, and the one that writes contracts.

    That one first: to be asked to stop ends the process behind a checkpoint, which then needs its contract.
    """
    from tunebook.hooks.contract import WritesContract

    wanted: list[type] = [WritesContract]
    if of_environment() is not None:
        from tunebook.hooks.stopping import StopsWhenAsked

        wanted.append(StopsWhenAsked)
    if os.environ.get("TUNEBOOK_BENCH_FILE"):
        from tunebook.hooks.timing import TimesSteps

        wanted.append(TimesSteps)
    trainer_module.DEFAULT_CALLBACKS.extend(wanted)  # type: ignore[attr-defined]
