"""Keeps every finished example of one model on one set, so that an evaluation can be killed at any time.

One folder for each model, set and settings:

    set.json, rows.jsonl      how the set is measured, and its rows: the same for every process
    part-<shard>-<rank>.jsonl what is finished, one line for each example, appended batch by batch

Each process appends to its own part and reads all parts. A last line that a kill has torn does not count.
"""

from __future__ import annotations

import fcntl
import os
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, NamedTuple

import orjson

from tunebook.errors import TunebookError
from tunebook.evaluation.records import Answered, Generated, SetHeader, SetRow
from tunebook.files import write_atomic
from tunebook.types import MetricSpec

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

_SET, _ROWS = "set.json", "rows.jsonl"


class Finished(NamedTuple):
    """What is finished, by row. Of two lines about one row the first counts."""

    answered: dict[int, Answered]
    generated: dict[int, Generated]


class Journal:
    """The folder of one model on one set.

    Args:
        folder: Need not exist.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def begin(self, header: SetHeader, rows: Sequence[SetRow]) -> None:
        """Write down how the set is measured, and its rows; several processes may write the same.

        Raises:
            TunebookError: The folder holds other rows: what is finished belongs to those.
        """
        lines = b"".join(orjson.dumps(asdict(row)) + b"\n" for row in rows)
        there = self.header()
        if there is not None:
            if there != header or (self.folder / _ROWS).read_bytes() != lines:
                raise TunebookError(
                    f"{self.folder} keeps answers to other rows of {header.dataset} than there are now",
                    fix="delete that folder to evaluate this model anew",
                )
            return
        write_atomic(self.folder / _ROWS, lines)
        # Last: where this file is, the rows are too.
        write_atomic(self.folder / _SET, orjson.dumps(asdict(header), option=orjson.OPT_INDENT_2))

    def header(self) -> SetHeader | None:
        """How the set is measured; None where nothing was begun."""
        path = self.folder / _SET
        if not path.is_file():
            return None
        values = orjson.loads(path.read_bytes())
        metrics = tuple(MetricSpec(**spec) for spec in values.pop("metrics"))
        return SetHeader(metrics=metrics, notes=tuple(values.pop("notes")), **values)

    def rows(self) -> list[SetRow]:
        """The rows of the set, in order; only after `begin`."""
        lines = (self.folder / _ROWS).read_bytes().splitlines()
        return [SetRow(**orjson.loads(line)) for line in lines]

    def finished(self) -> Finished:
        """What all processes have finished so far.

        Raises:
            TunebookError: A whole line of a part cannot be read.
        """
        found = Finished({}, {})
        for part in sorted(self.folder.glob("part-*.jsonl")):
            for number, line in enumerate(_whole_lines(part), 1):
                try:
                    values = orjson.loads(line)
                    if values.pop("pass") == "answer":
                        logprobs = tuple(values.pop("class_logprobs"))
                        one = Answered(class_logprobs=logprobs, **values)
                        found.answered.setdefault(one.index, one)
                    else:
                        two = Generated(**values)
                        found.generated.setdefault(two.index, two)
                except (ValueError, KeyError, TypeError, AttributeError) as err:
                    raise TunebookError(
                        f"{part}, line {number}: is damaged",
                        fix="delete the file: its rows will be evaluated again",
                    ) from err
        return found


class JournalPart:
    """One process's own file in a journal, open for appending. Close it, or use it as a context.

    Raises:
        TunebookError: Another process has it open.
    """

    def __init__(self, journal: Journal, *, shard: int, rank: int) -> None:
        path = journal.folder / f"part-{shard}-{rank}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as err:
            os.close(self._file)
            raise TunebookError(
                f"{path} is being written by another evaluation",
                fix="wait for it, or give each its own shard with --shard I/M",
            ) from err
        except OSError:
            pass  # a file system without locks
        os.ftruncate(self._file, _whole_bytes(path))

    def append(self, results: Iterable[Answered | Generated]) -> None:
        """Add a finished batch; it is on disk after return."""
        lines = b"".join(orjson.dumps(_line(result)) + b"\n" for result in results)
        while lines:
            lines = lines[os.write(self._file, lines) :]
        os.fdatasync(self._file)

    def close(self) -> None:
        """Close the file and give up its lock."""
        os.close(self._file)

    def __enter__(self) -> JournalPart:
        """Itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self.close()


def _line(result: Answered | Generated) -> dict[str, Any]:
    kind = "answer" if isinstance(result, Answered) else "generate"
    return {"pass": kind, **asdict(result)}


def _whole_lines(path: Path) -> Iterator[bytes]:
    with path.open("rb") as stream:
        for line in stream:
            if line.endswith(b"\n"):
                yield line


def _whole_bytes(path: Path) -> int:
    """Bytes up to and with the last line break."""
    with path.open("rb") as stream:
        size = stream.seek(0, os.SEEK_END)
        # Backwards: a journal may be large, and a line is not.
        while size:
            step = min(size, 1 << 16)
            stream.seek(size - step)
            at = stream.read(step).rfind(b"\n")
            if at >= 0:
                return size - step + at + 1
            size -= step
    return 0
