"""The file by which a run is asked to write a checkpoint and end, and the one that says it has.

A signal cannot do this: it reaches data loaders and launchers too, which die of it, and it reaches the ranks
of a run at different steps. A file is seen by every process of a host, and by every host of a shared disk.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from tunebook.files import write_atomic

VARIABLE = "TUNEBOOK_STOP_FILE"
"""Environment variable of the engine's process: where the request will be."""


class StopRequest(NamedTuple):
    """The two files of one run."""

    asked: Path
    """There once the run is asked to end."""
    honoured: Path
    """There once it has written its checkpoint; holds the checkpoint's name."""

    def make(self) -> None:
        """Ask the run to end at its next step."""
        write_atomic(self.asked, f"by process {os.getpid()} on {os.uname().nodename}\n")

    def honour(self, checkpoint: str) -> None:
        """Say that the checkpoint is written."""
        write_atomic(self.honoured, checkpoint + "\n")

    def clear(self) -> None:
        """Forget both, as before a start."""
        for path in self:
            with suppress(FileNotFoundError):
                path.unlink()

    def checkpoint(self) -> str | None:
        """Return the name of the checkpoint that was written on request; None where none was."""
        with suppress(FileNotFoundError):
            return self.honoured.read_text(encoding="utf-8").strip()
        return None


def of_run(folder: Path) -> StopRequest:
    """Return the request of the run whose own folder, `<output_dir>/tunebook`, this is."""
    return StopRequest(folder / "stop", folder / "stopped")


def of_environment() -> StopRequest | None:
    """Return the request that this engine process has to look for, if any."""
    path = os.environ.get(VARIABLE)
    return StopRequest(Path(path), Path(path).with_name("stopped")) if path else None
