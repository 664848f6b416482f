"""Starts one recipe on several nodes, from files one can read and run by hand.

`plan` decides what each node runs; a launcher starts the nodes. A new launcher is a file with a `Launcher`, a
line in `LAUNCHERS`, and a template beside the others where it needs one.
"""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from tunebook.launch.plan import LaunchPlan

LAUNCHERS = {
    "local": "tunebook.launch.attended:LOCAL",
    "ssh": "tunebook.launch.attended:SSH",
    "slurm": "tunebook.launch.slurm:SLURM",
}
"""What `--via` takes, and where the launcher is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StartOptions:
    """How the nodes are started, beside what they run."""

    after: str | None
    """Ids of jobs, with colons between, that must have ended well first."""
    parallel: int | None
    """Nodes at once; None for the launcher's own choice."""
    fail_fast: bool
    """The first node that fails ends the others."""


class Launcher(ABC):
    """A way to start the nodes of a launch."""

    needs_hosts = False
    """Whether it starts the nodes on the hosts of `--hosts`; without, that option is refused."""
    has_queue = False
    """Whether jobs wait for others in a queue; without, `--after` is refused."""

    def files(self, plan: LaunchPlan) -> dict[str, str]:  # noqa: ARG002
        """Return what it writes beside `plan.node_files`, by name below `plan.folder`."""
        return {}

    @abstractmethod
    def commands(self, plan: LaunchPlan, options: StartOptions) -> list[str]:
        """Return the commands that `start` would run, for `--dry-run`."""

    @abstractmethod
    def start(self, plan: LaunchPlan, options: StartOptions, say: Callable[[str], None]) -> int:
        """Start every node once the files are written; return the exit status.

        Args:
            plan: What to start.
            options: How.
            say: Takes a line for the user.

        Raises:
            TunebookError: They cannot be started.
        """

    def stop(
        self,
        run: Path,  # noqa: ARG002
        record: Mapping[str, Any],  # noqa: ARG002
        *,
        now: bool,  # noqa: ARG002
        dry_run: bool,  # noqa: ARG002
    ) -> str | None:
        """Ask what `start` has left running to write a checkpoint and end.

        Args:
            run: The launch's output folder.
            record: What `plan.write_record` has kept.
            now: End it at once instead.
            dry_run: Only say what would be done.

        Returns:
            What was done, a line. None where each run is a process of its own, which is found by its folder.

        Raises:
            TunebookError: It cannot be asked.
        """
        return None


def load(name: str) -> Launcher:
    """Import and return the launcher of that name.

    Raises:
        KeyError: There is none.
    """
    module, _, attribute = LAUNCHERS[name].partition(":")
    launcher: Launcher = getattr(importlib.import_module(module), attribute)
    return launcher


def all_files(plan: LaunchPlan) -> dict[str, str]:
    """Return the files of a launch by name, those of every launcher: each can be started by hand."""
    from tunebook.launch.plan import node_files

    made = node_files(plan)
    for name in LAUNCHERS:
        made |= load(name).files(plan)
    return made
