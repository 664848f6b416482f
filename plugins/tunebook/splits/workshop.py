"""The hidden folder beside OUT in which a split is made: nothing looks finished before its last rename."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunebook.errors import TunebookError
from tunebook.splits.spans import Tapes

MANIFEST = "manifest.json"

_REQUEST = "request.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Workshop:
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
        """What is only needed meanwhile."""
        return self.folder / ".work"

    @property
    def tapes(self) -> Tapes:
        """Of the whole of the sources."""
        return Tapes(folder=self.work)

    def finished(self) -> dict[str, Any] | None:
        """Return the manifest of the very split that is asked for, where it is there already.

        Raises:
            TunebookError: `out` is there and is something else.
        """
        if not self.out.exists() or (self.out.is_dir() and not any(self.out.iterdir())):
            return None
        with suppress(OSError, ValueError):
            manifest: dict[str, Any] = json.loads((self.out / MANIFEST).read_text(encoding="utf-8"))
            if manifest.get("request") == self.request:
                return manifest
        raise TunebookError(f"{self.out} is there already", fix="choose another --output, or delete it")

    @contextmanager
    def opened(self) -> Iterator[None]:
        """Make the hidden folder, which goes where the work fails; what a killed split left in it goes first.

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
        """Make the hidden folder `out`, in one step."""
        shutil.rmtree(self.work)
        for folder in (*self.folder.rglob("*/"), self.folder):
            sync_folder(folder)
        self.folder.rename(self.out)
        sync_folder(self.out.parent)

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
            found = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            if not self.tasks:
                self._clear()
            else:
                replace_json(path, wanted)
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
            # Some network file systems have no locks; two processes there are the user's own doing.
            return


def replace_json(path: Path, values: Any) -> None:
    """Write a file of the workshop in one step; without a sync, since what it tells is checked when read."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    temporary.write_text(json.dumps(values, indent=1, ensure_ascii=False), encoding="utf-8")
    temporary.replace(path)


def sync_folder(folder: Path) -> None:
    """Put the names in a folder on disk. Some network file systems refuse."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _differences(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    return [
        f"{key} was {found.get(key)!r} and is {wanted.get(key)!r}"
        if not isinstance(wanted.get(key), dict | list)
        else key
        for key in dict.fromkeys([*found, *wanted])
        if found.get(key) != wanted.get(key)
    ]
