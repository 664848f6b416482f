"""Turn a CSV of conversations into a training and an evaluation set.

Its columns are `prompt`, `question` and `response`: `prompt` becomes the system message, `question` what
the user says, `response` the answer. Every field is kept as it stands: quotes, line ends, and texts such
as NA or null.

Example:
  python scripts/prepare_csv.py --input support.csv
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import click

from split_files import report, split_options, with_progress, write_splits
from table_rows import need_columns
from tunebook.data.rows import iter_rows
from tunebook.errors import TunebookError

COLUMNS = {"prompt": "system", "question": "instruction", "response": "output"}
"""What the CSV calls a text, and what a training row calls it."""


def alpaca_rows(path: Path) -> Iterator[dict[str, str]]:
    """The training row of each row of a CSV.

    Raises:
        TunebookError: The file is no CSV with these columns, or a row has another number of fields than
            the header.
    """
    if path.suffix != ".csv":
        raise TunebookError(f"{path} is no .csv file", fix="give --input a file whose name ends in .csv")
    for number, row in enumerate(with_progress(iter_rows(path), path.name), 1):
        if number == 1:
            need_columns(path, row, tuple(COLUMNS), fix="rename the columns in the first line of the file")
        if None in row.values():
            raise TunebookError(
                f"{path}, row {number}: has fewer fields than the header",
                fix="put fields with a comma, a quote or a line end in quotes",
            )
        yield {
            "system": row["prompt"],
            "instruction": row["question"],
            "input": "",
            "output": row["response"],
        }


@click.command()
@click.option(
    "--input",
    "path",
    type=click.Path(path_type=Path),
    required=True,
    help="A CSV file in UTF-8, its columns separated by commas and named in the first line.",
)
@split_options("datasets_info/csv_chat")
def main(path: Path, output: Path, eval_share: float, seed: int, skip_empty: bool) -> None:
    """Turn a CSV with the columns prompt, question and response into training and evaluation rows.

    \b
    Example:
      python scripts/prepare_csv.py --input support.csv
    """
    needed = {"instruction": "question", "output": "response"}
    try:
        written = write_splits(
            alpaca_rows(path),
            output,
            needed=needed,
            source=path,
            eval_share=eval_share,
            seed=seed,
            skip_empty=skip_empty,
        )
    except TunebookError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(2)
    report(written)


if __name__ == "__main__":
    main()
