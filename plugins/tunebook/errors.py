"""The one error a user is meant to see: what is wrong, and the step that ends it."""

from __future__ import annotations

import errno
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


class TunebookError(Exception):
    """Something the user can fix.

    Args:
        problem: What is wrong, naming file, key and value.
        fix: The step that ends it, as an imperative; empty where `problem` has one for each fault.
        faults: The single errors, where this one stands for several; see `join_errors`.

    The command line prints both lines and exits 2; anything else that is raised is a bug and keeps its
    traceback.

    >>> print(TunebookError("no such recipe: qwen", fix="list them with `tunebook ls`"))
    no such recipe: qwen
    fix: list them with `tunebook ls`
    """

    def __init__(self, problem: str, *, fix: str, faults: tuple[TunebookError, ...] = ()) -> None:
        super().__init__(problem, fix)
        self.problem = problem
        self.fix = fix
        self.faults = faults or (self,)

    def __str__(self) -> str:
        return f"{self.problem}\nfix: {self.fix}" if self.fix else self.problem


_FIXES = {
    errno.ENOSPC: "free some space, or name a place on another disk",
    errno.EDQUOT: "free some space, or name a place on another disk",
    errno.EFBIG: "raise the limit of `ulimit -f`, or name a smaller part of the data",
    errno.ENAMETOOLONG: "use a shorter name",
    errno.EACCES: "change the rights, or name another place",
    errno.EPERM: "change the rights, or name another place",
    errno.EROFS: "name a place that may be written to",
    errno.ELOOP: "name the place itself: the link leads to itself",
}


def from_system(error: OSError | RecursionError | MemoryError) -> TunebookError:
    """Return what the operating system or Python refused, as an error for a user.

    >>> print(from_system(OSError(errno.ENOSPC, "No space left on device", "out/x.json")))
    out/x.json: No space left on device
    fix: free some space, or name a place on another disk
    """
    if isinstance(error, MemoryError):
        return TunebookError("not enough memory on this machine", fix="end other programs, or use less data")
    if isinstance(error, RecursionError):
        return TunebookError("a file is nested too deeply", fix="look for a long run of brackets")
    name = error.filename if isinstance(error.filename, str | os.PathLike) else "the output"
    return TunebookError(
        f"{name}: {error.strerror or error}",
        fix=_FIXES.get(error.errno or 0, "check the path and its rights"),
    )


def join_errors(errors: Iterable[TunebookError]) -> TunebookError:
    """One error out of several, each with its fix, so that a user fixes a file once and not once per fault.

    Raises:
        ValueError: `errors` is empty.

    >>> print(join_errors([TunebookError("no a", fix="add a"), TunebookError("no b", fix="add b")]))
    2 faults:
    1. no a
       fix: add a
    2. no b
       fix: add b
    """
    faults = tuple(fault for error in errors for fault in error.faults)
    if not faults:
        raise ValueError("join_errors needs at least one error")
    if len(faults) == 1:
        return faults[0]
    lines = [f"{number}. {fault}".replace("\n", "\n   ") for number, fault in enumerate(faults, 1)]
    return TunebookError("\n".join([f"{len(faults)} faults:", *lines]), fix="", faults=faults)


class Faults:
    """Gathers what is wrong with one file or one start, so that all of it is said at once.

    >>> faults = Faults()
    >>> with faults.gather():
    ...     raise TunebookError("no such model: m", fix="name another")
    >>> [fault.problem for fault in faults]
    ['no such model: m']
    """

    def __init__(self) -> None:
        self._errors: list[TunebookError] = []

    def __iter__(self) -> Iterator[TunebookError]:
        return iter(self._errors)

    def add(self, error: TunebookError) -> None:
        """Take in an error, or each of several joined ones, unless one that is here says it already."""
        for fault in error.faults:
            if not any(fault.problem in known.problem for known in self._errors):
                self._errors.append(fault)

    @contextmanager
    def gather(self) -> Iterator[None]:
        """Take in the error that the block raises; what follows the block goes on."""
        try:
            yield
        except TunebookError as error:
            self.add(error)

    def refuse(self) -> None:
        """Raise what was gathered.

        Raises:
            TunebookError: There is a fault; several are joined.
        """
        if self._errors:
            raise join_errors(self._errors)
