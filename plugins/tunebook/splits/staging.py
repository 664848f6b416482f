"""The hidden folder beside OUT in which a split is made: nothing looks finished before its last rename."""

from __future__ import annotations

import errno
import fcntl
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunebook import files
from tunebook.errors import TunebookError
from tunebook.splits.index import RowIndex

MANIFEST = "manifest.json"

_REQUEST = "request.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Staging:
    """Where one split is made."""

    out: Path
    """The folder that it will be."""
    request: Mapping[str, Any]
    """Everything that decides the content of `out`, as JSON."""
    tasks: int = 0
    """Of the job array that shares the hidden folder; 0 where there is none."""

    @property
    def folder(self) -> Path:
        """The hidden folder."""
        return self.out.parent / f".{self.out.name}.unfinished"

    @property
    def work(self) -> Path:
        """The folder of temporary files inside it."""
        return self.folder / ".work"

    @property
    def index(self) -> RowIndex:
        """The row index of all sources."""
        return RowIndex(folder=self.work)

    def finished(self) -> dict[str, Any] | None:
        """Return the manifest of exactly this split, where it is finished already.

        Raises:
            TunebookError: `out` exists and is something else.
        """
        if not self.out.is_symlink() and (
            not self.out.exists() or (self.out.is_dir() and not any(self.out.iterdir()))
        ):
            return None
        with suppress(OSError, ValueError):
            manifest: dict[str, Any] = files.read_json(self.out / MANIFEST)
            if manifest.get("request") == self.request:
                return manifest
        raise TunebookError(f"{self.out} is there already", fix="choose another --output, or delete it")

    @contextmanager
    def opened(self) -> Iterator[None]:
        """Make the hidden folder, without what a killed split left in it; delete it where the work fails.

        The folder of a job array stays in any case: its tasks share it, and a failed one can be run again.

        Raises:
            TunebookError: Another process works on it; a job array with other options does; the disk is full.
        """
        try:
            self.work.mkdir(parents=True, exist_ok=True)
        except OSError as err:
            raise TunebookError(
                f"{self.out}: cannot be made: {err.strerror}", fix="choose another --output"
            ) from err
        with (self.work / "lock").open("wb") as lock:
            if not self.tasks:
                self._lock(lock.fileno())
            self._claim()
            try:
                yield
            except OSError as err:
                self._give_up()
                if err.errno not in (errno.ENOSPC, errno.EDQUOT):
                    raise
                raise TunebookError(
                    f"no space is left for {self.out}", fix="free some, or choose another --output"
                ) from err
            except TunebookError:
                self._give_up()
                raise

    def publish(self) -> None:
        """Rename the hidden folder to `out`."""
        shutil.rmtree(self.work)
        for folder in (*self.folder.rglob("*/"), self.folder):
            files.sync_folder(folder)
        self.folder.rename(self.out)
        files.sync_folder(self.out.parent)

    def _give_up(self) -> None:
        if not self.tasks:
            shutil.rmtree(self.folder, ignore_errors=True)

    def _claim(self) -> None:
        """Delete what a killed split left, or see that an unfinished job array makes the same.

        Raises:
            TunebookError: The array does not.
        """
        path, wanted = self.work / _REQUEST, {**self.request, "tasks": self.tasks}
        try:
            found = files.read_json(path)
        except (OSError, ValueError):
            if not self.tasks:
                self._clear()
            else:
                files.write_json(path, wanted)
            return
        if found != wanted:
            raise TunebookError(
                f"{self.folder} holds an unfinished split with other options or another source: "
                f"{', '.join(_differences(found, wanted))}",
                fix=f"give the same command again to finish it, or delete {self.folder}",
            )

    def _clear(self) -> None:
        """Delete all but the lock: what another split left would be taken for part of this one."""
        for left in (*self.folder.iterdir(), *self.work.iterdir()):
            if left.is_dir() and left != self.work:
                shutil.rmtree(left)
            elif left.is_file() and left.name != "lock":
                left.unlink()

    def _lock(self, descriptor: int) -> None:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as err:
            raise TunebookError(
                f"another process is making {self.out}", fix="wait for it, or stop it"
            ) from err
        except OSError:
            # Some network file systems have no locks; there, two processes at once are not noticed.
            return


def _differences(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    return [
        f"{key} was {found.get(key)!r} and is {wanted.get(key)!r}"
        if not isinstance(wanted.get(key), dict | list)
        else key
        for key in dict.fromkeys([*found, *wanted])
        if found.get(key) != wanted.get(key)
    ]
