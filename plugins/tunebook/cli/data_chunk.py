"""`tunebook data chunk`: long documents into overlapping pieces of at most so many tokens."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tunebook import engines, paths
from tunebook.cli.data_registry import dataset_dir_option, registry_folder, tell_left_out
from tunebook.cli.parts import say
from tunebook.data import sources
from tunebook.data.rows import iter_table
from tunebook.errors import TunebookError
from tunebook.lengths.chunks import tokens
from tunebook.lengths.chunks.cutting import Cutter
from tunebook.lengths.chunks.documents import (
    Form,
    Tally,
    choose_column,
    chunk_rows,
    new_entry,
    refuse_existing,
    write_pieces,
)
from tunebook.progress import byte_progress
from tunebook.recipes.catalog import find_recipe

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tunebook.data.sources import Source


@click.command("chunk")
@click.argument("name")
@click.option("--max-tokens", required=True, type=click.IntRange(8), help="Tokens of a piece, at most.")
@click.option(
    "--overlap", default=0, show_default=True, type=click.IntRange(0), help="Tokens repeated, at most."
)
@click.option("--column", metavar="NAME", help="Column of the documents; the longest input if not given.")
@click.option("--tokenizer", metavar="PATH|MODEL", help="Folder or file of the tokenizer, or a hub model.")
@click.option("--recipe", metavar="RECIPE", help="Count with the tokenizer of this recipe's model.")
@click.option(
    "--as",
    "form",
    type=click.Choice(["same", "pretrain"]),
    default="same",
    show_default=True,
    help="Rows like the source's, or rows of text for continued pre-training.",
)
@click.option(
    "-o",
    "--output",
    required=True,
    type=click.Path(path_type=Path),
    help="Folder for the data and its registry entry.",
)
@click.option("--name", "new_name", metavar="NAME", help="Name of the new entry; <name>_chunks if not given.")
@dataset_dir_option
@click.option("--json", "as_json", is_flag=True, help="Print what was done as JSON.")
def chunk(
    name: str,
    max_tokens: int,
    overlap: int,
    column: str | None,
    tokenizer: str | None,
    recipe: str | None,
    form: Form,
    output: Path,
    new_name: str | None,
    dataset_dir: Path | None,
    *,
    as_json: bool,
) -> None:
    """Cut long documents into pieces of at most so many tokens.

    NAME is an entry of the registry, or a .json, .jsonl, .csv or .parquet file. A piece ends at the last
    paragraph in its second half, else at a sentence, else at a word. docs/chunks.md says what becomes of the
    answers.

    \b
    Example:
      tunebook data chunk legal.jsonl --max-tokens 4096 --overlap 256 --tokenizer output/tiny/qwen3 -o chunks
    """
    if (tokenizer is None) == (recipe is None):
        raise click.UsageError("give --tokenizer or --recipe, one of them")
    if overlap > max_tokens // 2:
        raise click.UsageError(f"--overlap {overlap} is more than half of --max-tokens {max_tokens}")
    source = sources.find_source(name, registry_folder(dataset_dir))
    tell_left_out(source)
    new_name = new_name or f"{source.entry.name}_chunks"
    refuse_existing(output, new_name)
    file = tokens.tokenizer_file(tokenizer or _model_of(str(recipe)))
    cutter = Cutter(tokens.load(file), max_tokens, overlap)
    tally = Tally()
    with byte_progress("cutting", source.bytes) as on_bytes:
        rows: Iterator[Any] = _rows(source, on_bytes)
        if column is None:
            column, rows = choose_column(rows, source.entry)
            say(f"cutting the column {column!r}")
        pieces = chunk_rows(rows, column, cutter, form, tally)
        path = write_pieces(output, new_name, pieces, new_entry(source.entry, f"{new_name}.jsonl", form))
    if as_json:
        done = {"dataset": new_name, "file": str(path), "column": column, "max_tokens": max_tokens}
        click.echo(json.dumps(done | {"overlap": overlap, **asdict(tally)}, indent=2, ensure_ascii=False))
    else:
        _print(tally, path, new_name, max_tokens)


def _rows(source: Source, on_bytes: Callable[[int], None]) -> Iterator[dict[str, Any]]:
    """The rows of all files, one after another."""
    before, found = 0, False

    def advance(done: int) -> None:
        on_bytes(before + done)

    for path in source.files:
        for row in iter_table(path, on_bytes=advance):
            found = True
            yield row
        before += path.stat().st_size
    if not found:
        raise TunebookError(f"{source.entry.name} holds no rows", fix="name data with rows")


def _model_of(recipe: str) -> str:
    home = paths.home()
    found = find_recipe(recipe, home / "recipes")
    key = engines.load(found.engine).model_keys[0]
    model = str(found.values[key])
    below_home = home / model
    return str(below_home) if not Path(model).exists() and below_home.exists() else model


def _print(tally: Tally, path: Path, name: str, max_tokens: int) -> None:
    mean = tally.tokens / tally.pieces if tally.pieces else 0.0
    click.echo(f"{tally.rows} rows, {tally.cut} of them cut: {tally.pieces} pieces in {path}, entry {name!r}")
    click.echo(
        f"{tally.tokens} tokens; {mean:.0f} a piece on average, {tally.longest} at most (limit {max_tokens})"
    )
    if tally.stopped_at_token:
        click.echo(f"{tally.stopped_at_token} pieces end inside a run of letters too long for one")
    if tally.empty:
        click.echo(f"{tally.empty} rows without text were left out")
