"""Write GSM8K's files for the registry: the main answers, and those with Socratic sub-questions.

Reads a folder as either of its two publishers lays it out: the hub's `openai/gsm8k`, with
`main/train-*.parquet` and `socratic/train-*.parquet`, or the checkout of `openai/grade-school-math`, with
`grade_school_math/data/train.jsonl` and `train_socratic.jsonl`. Nothing is downloaded.

Example:
  python scripts/prepare_gsm8k.py --input grade-school-math
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click

from split_files import split_writers, with_progress
from table_rows import need_columns, table_rows
from tunebook.errors import TunebookError, join_errors
from tunebook.metrics import gsm8k

ROWS = {"train": 7_473, "test": 1_319}
"""What both variants have as published."""
COLUMNS = ("question", "answer")
MARK = "#### "

_CHECKOUT = Path("grade_school_math/data")
_ENDINGS = {"main": "", "socratic": "_socratic"}
_FAULTS_SHOWN = 5


def find_files(folder: Path) -> dict[str, dict[str, list[Path]]]:
    """The files of each split of each variant that a folder holds whole.

    Raises:
        TunebookError: It is no folder, or holds neither variant whole.
    """
    if not folder.is_dir():
        raise TunebookError(f"no such folder: {folder}", fix="give --input a download or checkout of GSM8K")
    found = {}
    for variant, ending in _ENDINGS.items():
        for layout in (
            {split: sorted((folder / variant).glob(f"{split}-*.parquet")) for split in ROWS},
            {split: sorted((folder / _CHECKOUT).glob(f"{split}{ending}.jsonl")) for split in ROWS},
            {split: sorted(folder.glob(f"{split}{ending}.jsonl")) for split in ROWS},
        ):
            if all(layout.values()):
                found[variant] = layout
                break
    if not found:
        raise TunebookError(
            f"{folder} holds no GSM8K with both splits",
            fix="give --input a folder with main/train-*.parquet and main/test-*.parquet, as on the hub, or "
            f"with {_CHECKOUT}/train.jsonl and test.jsonl, as in openai/grade-school-math",
        )
    return found


def checked_rows(paths: list[Path]) -> Iterator[dict[str, str]]:
    """Question and answer of each row, in the files' order.

    Raises:
        TunebookError: A column is missing, or answers do not end in a line `#### N`; after the last row, the
            first few of these together.
    """
    faults = []
    for path in paths:
        for number, row in enumerate(with_progress(table_rows(path), path.name), 1):
            need_columns(path, row, COLUMNS, fix="take the file as GSM8K's publisher has it")
            if not _ends_in_number(row):
                faults.append(
                    TunebookError(
                        f"{path}, row {number}: the answer does not end in a line `{MARK}N`: "
                        f"{str(row['answer'])[-60:]!r}",
                        fix="mend the row, or fetch the file again",
                    )
                )
            else:
                yield {column: row[column] for column in COLUMNS}
    if faults:
        raise join_errors(faults[:_FAULTS_SHOWN])


def _ends_in_number(row: Mapping[str, Any]) -> bool:
    """Whether the metric will be able to read the answer, by its mark alone."""
    answer = row["answer"]
    if not isinstance(answer, str) or not isinstance(row["question"], str):
        return False
    last = answer.rstrip().rsplit("\n", 1)[-1]
    return last.startswith(MARK) and gsm8k.extract(last) is not None


def prepare(folder: Path, output: Path) -> Iterator[tuple[Path, int]]:
    """Write the splits of each variant found, and yield each file with its rows; of a variant both or none.

    Raises:
        TunebookError: As `find_files` and `checked_rows`, or a file has no rows.
    """
    for variant, splits in find_files(folder).items():
        target = output / f"gsm8k_{variant}"
        with split_writers(target, splits, if_empty=f"fetch the files of {variant} again") as writers:
            for split, paths in splits.items():
                for row in checked_rows(paths):
                    writers[split].write(row)
        for split, writer in writers.items():
            yield target / f"{split}.jsonl", writer.rows


@click.command()
@click.option(
    "--input",
    "folder",
    type=click.Path(path_type=Path),
    required=True,
    help="A download of openai/gsm8k from the hub, or a checkout of openai/grade-school-math.",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("datasets_info"),
    show_default=True,
    help="Folder for gsm8k_main and gsm8k_socratic, each with train.jsonl and test.jsonl.",
)
def main(folder: Path, output: Path) -> None:
    """Write GSM8K's files for the registry, and check that every answer ends in a number.

    \b
    Example:
      python scripts/prepare_gsm8k.py --input grade-school-math
    """
    written = set()
    try:
        for path, rows in prepare(folder, output):
            published = ROWS[path.stem]
            note = "" if rows == published else f"; as published it has {published:,}"
            click.echo(f"{path}: {rows:,} rows{note}")
            written.add(path.parent.name)
    except TunebookError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(2)
    for variant in _ENDINGS:
        if f"gsm8k_{variant}" not in written:
            click.echo(f"note: {folder} holds no {variant} variant with both splits", err=True)


if __name__ == "__main__":
    main()
