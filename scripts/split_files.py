"""The files of a prepared data set: rows drawn into splits, one JSON object a line, all files or none."""

from __future__ import annotations

import contextlib
import hashlib
import json
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, NamedTuple, TypeVar

import click
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from tunebook.errors import TunebookError

Row = TypeVar("Row")
Command = TypeVar("Command", bound=Callable[..., None])

SPLITS = ("train", "eval")


class Written(NamedTuple):
    """What `write_splits` wrote and left out."""

    rows: dict[Path, int]
    """Rows of each file."""
    left_out: int
    """Rows without a text that is needed."""


class SplitWriter:
    """Writes rows to a file, one JSON object a line, and counts them."""

    def __init__(self, stream: IO[bytes]) -> None:
        self.rows = 0
        self._stream = stream

    def write(self, row: Mapping[str, object]) -> None:
        """Append one row."""
        self._stream.write(json.dumps(row, ensure_ascii=False).encode() + b"\n")
        self.rows += 1


@contextlib.contextmanager
def split_writers(folder: Path, names: Iterable[str], *, if_empty: str) -> Iterator[dict[str, SplitWriter]]:
    """Writers of `<name>.jsonl` in a folder, which is made. The files appear when the block ends well.

    Args:
        folder: Where to write.
        names: Of the splits.
        if_empty: What the user can do about a split without rows, as an imperative.

    Raises:
        TunebookError: A split has no rows; nothing is written then.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".part-", dir=folder) as scratch, contextlib.ExitStack() as files:
        paths = {name: Path(scratch) / f"{name}.jsonl" for name in names}
        writers = {name: SplitWriter(files.enter_context(path.open("wb"))) for name, path in paths.items()}
        yield writers
        files.close()
        for name, writer in writers.items():
            if not writer.rows:
                raise TunebookError(
                    f"the {name} split has no rows, so nothing is written to {folder}",
                    fix=if_empty,
                )
        for path in paths.values():
            path.replace(folder / path.name)


def split_of(text: str, *, eval_share: float, seed: int) -> str:
    """The split of a row: a pure function of its text, so that equal rows never stand on both sides.

    Args:
        text: What makes the row the same as another, e.g. its question.
        eval_share: Share of the texts held out for evaluation, from 0 to 1.
        seed: Another seed holds out other texts.
    """
    digest = hashlib.sha256(f"{seed}:{text}".encode(errors="surrogatepass")).digest()
    return "eval" if int.from_bytes(digest[:8], "big") < eval_share * 2**64 else "train"


def with_progress(rows: Iterable[Row], what: str) -> Iterator[Row]:
    """Yield `rows`, and show on stderr how many there were so far, where that is a terminal."""
    console = Console(stderr=True)
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}: {task.completed:,} rows"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        yield from progress.track(rows, total=None, description=what)


def write_splits(
    rows: Iterable[Mapping[str, str]],
    folder: Path,
    *,
    needed: Mapping[str, str],
    source: Path,
    eval_share: float,
    seed: int,
    skip_empty: bool,
) -> Written:
    """Write alpaca rows to `train.jsonl` and `eval.jsonl` of a folder, both or none.

    A row's split is drawn from its `input`, or from its `instruction` where that is empty: two answers to one
    question stay together, and another wording around a document leaves it where it is.

    Args:
        rows: In the source's order, each with `instruction`, `input` and `output`.
        folder: Where to write; made where it is missing.
        needed: Keys whose text must not be blank, with what the source calls them.
        source: What messages call the source.
        eval_share: Share held out for evaluation.
        seed: Decides which rows are held out.
        skip_empty: Leave rows with a blank text out; otherwise they stop the script.

    Raises:
        TunebookError: There are such rows, or a split has none.
    """
    blank: dict[str, list[int]] = {name: [] for name in needed.values()}
    left_out = 0
    with split_writers(
        folder, SPLITS, if_empty="give more rows, another --eval-share or another --seed"
    ) as writers:
        for number, row in enumerate(rows, 1):
            missing = [name for key, name in needed.items() if not row[key].strip()]
            for name in missing:
                blank[name].append(number)
            if missing:
                left_out += 1
                continue
            asked = row["input"] or row["instruction"]
            writers[split_of(asked, eval_share=eval_share, seed=seed)].write(row)
        if left_out and not skip_empty:
            faults = [
                f"{len(numbers):,} of {number:,} rows have no {name}, the first is row {numbers[0]:,}"
                for name, numbers in blank.items()
                if numbers
            ]
            raise TunebookError(
                f"{source}: {'; '.join(faults)}",
                fix="fill them in, or leave these rows out with --skip-empty",
            )
    return Written({folder / f"{name}.jsonl": writer.rows for name, writer in writers.items()}, left_out)


def split_options(default_output: str) -> Callable[[Command], Command]:
    """The options that every script around `write_splits` has, for a click command."""

    def add(command: Command) -> Command:
        for option in reversed(
            (
                click.option(
                    "-o",
                    "--output",
                    type=click.Path(path_type=Path, file_okay=False),
                    default=Path(default_output),
                    show_default=True,
                    help="Folder for train.jsonl and eval.jsonl.",
                ),
                click.option(
                    "--eval-share",
                    type=click.FloatRange(0, 1, min_open=True, max_open=True),
                    default=0.05,
                    show_default=True,
                    help="Share of the rows held out for evaluation.",
                ),
                click.option("--seed", default=0, show_default=True, help="Decides which rows are held out."),
                click.option(
                    "--skip-empty",
                    is_flag=True,
                    help="Leave rows with an empty text out, instead of stopping.",
                ),
            )
        ):
            command = option(command)
        return command

    return add


def report(written: Written) -> None:
    """Print the rows of each file, and on stderr how many were left out."""
    for path, rows in written.rows.items():
        click.echo(f"{path}: {rows:,} rows")
    if written.left_out:
        click.echo(f"left out: {written.left_out:,} rows with an empty text", err=True)
