"""Turn documents with their summaries into a training and an evaluation set for long-document summarisation.

Reads a CSV, JSON, JSONL or Parquet file, or a folder of such files, with a column of documents and one of
summaries; or a folder with a sub-folder of each, in which text files of the same name belong together. A
cell that holds several documents, as a list, is joined by blank lines.

Example:
  python scripts/prepare_long_documents.py --input cases.jsonl --document judgement --summary summary
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import click

from split_files import report, split_options, with_progress, write_splits
from table_rows import SUFFIXES, need_columns, table_rows
from tunebook.errors import TunebookError

INSTRUCTION = "Summarize the following legal document."


class Pair(NamedTuple):
    """A document and its summary; either may be empty."""

    document: str
    summary: str


def read_pairs(source: Path, document: str, summary: str) -> Iterator[Pair]:
    """Every document of a file or folder with its summary.

    Args:
        source: A data file, a folder of them, or a folder with sub-folders `document` and `summary`.
        document: The column or sub-folder of the documents.
        summary: The column or sub-folder of the summaries.

    Raises:
        TunebookError: There is no such file, column or sub-folder, a text file has no partner, or a cell
            holds something else than text.
    """
    if source.is_dir() and (source / document).is_dir():
        yield from _text_pairs(source / document, source / summary)
        return
    paths = (
        sorted(path for path in source.iterdir() if path.suffix in SUFFIXES) if source.is_dir() else [source]
    )
    if not paths:
        raise TunebookError(
            f"{source} holds no data files and no folder {document!r}",
            fix=f"give a folder with {', '.join(SUFFIXES)} files, or with sub-folders of text files that "
            "--document and --summary name",
        )
    for path in paths:
        for number, row in enumerate(table_rows(path), 1):
            if number == 1:
                need_columns(
                    path, row, (document, summary), fix="name the columns by --document and --summary"
                )
            yield Pair(_cell(path, number, row, document), _cell(path, number, row, summary))


def _cell(path: Path, number: int, row: Any, column: str) -> str:
    value = row.get(column)
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, list) and all(isinstance(text, str) for text in value):
        return "\n\n".join(value)
    raise TunebookError(
        f"{path}, row {number}: {column!r} holds {str(value)[:60]}, which is no text",
        fix="give a column of texts, or of lists of texts",
    )


def _text_pairs(documents: Path, summaries: Path) -> Iterator[Pair]:
    if not summaries.is_dir():
        raise TunebookError(f"no such folder: {summaries}", fix="name the folder of summaries by --summary")
    names = {folder: {path.name for path in folder.glob("*.txt")} for folder in (documents, summaries)}
    alone = sorted(names[documents] ^ names[summaries])
    if alone:
        where = documents if alone[0] in names[documents] else summaries
        raise TunebookError(
            f"{len(alone):,} text files have no partner, the first is {where / alone[0]}",
            fix=f"give the file of the same name to {documents.name} and to {summaries.name}, or delete both",
        )
    if not names[documents]:
        raise TunebookError(f"{documents} holds no .txt files", fix="name the folder by --document")
    for name in sorted(names[documents]):
        yield Pair(_text(documents / name), _text(summaries / name))


def _text(path: Path) -> str:
    try:
        # newline="": line ends stay as they are.
        with path.open(encoding="utf-8-sig", newline="") as stream:
            return stream.read()
    except UnicodeDecodeError as err:
        raise TunebookError(f"{path}: is not UTF-8 text", fix="save the file as UTF-8") from err


class Lengths:
    """Lengths of texts in characters, eight bytes each."""

    def __init__(self) -> None:
        self._lengths = array("Q")

    def add(self, text: str) -> None:
        """Count one text; an empty one is none."""
        if text.strip():
            self._lengths.append(len(text))

    def __str__(self) -> str:
        """Shortest, median, 95th percentile (nearest rank) and longest.

        >>> lengths = Lengths()
        >>> for text in ("a", "bcd", "ef"):
        ...     lengths.add(text)
        >>> str(lengths)
        'shortest 1, median 2, 95 % within 3, longest 3'
        """
        ordered = sorted(self._lengths)
        median, most = (ordered[-(-len(ordered) * share // 100) - 1] for share in (50, 95))
        return f"shortest {ordered[0]:,}, median {median:,}, 95 % within {most:,}, longest {ordered[-1]:,}"


@click.command()
@click.option(
    "--input",
    "source",
    type=click.Path(path_type=Path, exists=True),
    required=True,
    help="A .csv, .json, .jsonl or .parquet file, a folder of them, or a folder with two of text files.",
)
@click.option(
    "--document",
    default="document",
    show_default=True,
    metavar="NAME",
    help="Column, or folder, of the documents.",
)
@click.option(
    "--summary",
    default="summary",
    show_default=True,
    metavar="NAME",
    help="Column, or folder, of the summaries.",
)
@click.option(
    "--instruction", default=INSTRUCTION, show_default=True, help="What stands before each document."
)
@split_options("datasets_info/legal_summaries")
def main(
    source: Path,
    document: str,
    summary: str,
    instruction: str,
    output: Path,
    eval_share: float,
    seed: int,
    skip_empty: bool,
) -> None:
    """Turn documents with summaries into training and evaluation rows, and tell how long they are.

    \b
    Example:
      python scripts/prepare_long_documents.py --input cases.jsonl --document judgement --summary summary
    """
    lengths = {"documents": Lengths(), "summaries": Lengths()}

    def rows() -> Iterator[dict[str, str]]:
        for pair in with_progress(read_pairs(source, document, summary), source.name):
            lengths["documents"].add(pair.document)
            lengths["summaries"].add(pair.summary)
            yield {"instruction": instruction, "input": pair.document, "output": pair.summary}

    try:
        written = write_splits(
            rows(),
            output,
            needed={"input": document, "output": summary},
            source=source,
            eval_share=eval_share,
            seed=seed,
            skip_empty=skip_empty,
        )
    except TunebookError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(2)
    report(written)
    for what, found in lengths.items():
        click.echo(f"{what}, in characters: {found}")


if __name__ == "__main__":
    main()
