"""`tunebook data import`: tables, chats and folders as JSONL and registry entries."""

from __future__ import annotations

import json
from pathlib import Path

import click

from tunebook import metrics
from tunebook.cli.data_split import HoldoutType
from tunebook.splits import importing


@click.command("import")
@click.argument("sources", nargs=-1, required=True, metavar="FILE|FOLDER|GLOB...")
@click.option("--question", metavar="COLUMN", help="Column of what is asked.")
@click.option("--answer", metavar="COLUMN", help="Column of the answer.")
@click.option("--system", metavar="COLUMN", help="Column of the system prompt.")
@click.option(
    "--holdout", type=HoldoutType(), metavar="N|SHARE", help="Hold rows out, as `data split --eval`."
)
@click.option("--metric", metavar="METRIC", help="Measured on the hold-out; else one that fits the answers.")
@click.option("--name", metavar="NAME", help="Of the entry; by default that of the first file.")
@click.option("--encoding", metavar="ENCODING", help="Of text files that are not UTF-8, e.g. gb18030.")
@click.option("--delimiter", metavar="CHARACTER", help="Between the columns of a table; else it is told.")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    default=Path("datasets_info"),
    show_default=True,
    help="Folder of the registry and the data.",
)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of the hold-out.")
@click.option("--json", "as_json", is_flag=True, help="Print the outcome as JSON.")
def import_command(
    sources: tuple[str, ...],
    question: str | None,
    answer: str | None,
    system: str | None,
    holdout: float | None,
    metric: str | None,
    name: str | None,
    encoding: str | None,
    delimiter: str | None,
    output: Path,
    seed: int,
    as_json: bool,
) -> None:
    """Import tables, chats and folders into the registry.

    CSV, TSV, Excel, JSON, JSONL, Parquet and Arrow, also as .gz, .xz, .bz2 or .zst. Without --question and
    --answer the form of the rows is told from their columns. `data show NAME` prints the block for Axolotl.

    \b
    Example:
      tunebook data import tickets.csv --question body --answer queue --holdout 0.1
      tunebook data import chats/ --name chats -o datasets_info
    """
    if metric is not None:
        metrics.load(metric)
    request = importing.ImportRequest(
        sources=sources,
        question=question,
        answer=answer,
        system=system,
        encoding=encoding,
        delimiter="\t" if delimiter in ("\\t", "tab") else delimiter,
        holdout=holdout or 0.0,
        seed=seed,
    )
    found = importing.read(request)
    found.metric = metric or found.metric
    first = Path(sources[0])
    name = name or (first.name if first.is_dir() else first.name.split(".")[0])
    paths = importing.write(found, output, name)
    if as_json:
        done = {
            "files": [str(path) for path in paths],
            "entries": [path.stem for path in paths],
            "rows": len(found.rows),
            "held_out": len(found.held),
            "without_question_or_answer": found.without,
            "columns_left_out": list(found.left_out),
            "entry": found.values,
            "metric": found.metric,
            "read": found.said,
        }
        click.echo(json.dumps(done, indent=2, ensure_ascii=False))
        return
    for line in found.said:
        click.echo(f"read {line}")
    left = f"; left out: {', '.join(found.left_out)}" if found.left_out else ""
    without = f"; {found.without:,} rows without a question or an answer left out" if found.without else ""
    told = {"question": question, "answer": answer, "system": system} if question else found.values["columns"]
    told = {key: value for key, value in told.items() if value}
    click.echo(f"{', '.join(f'{key} is {value}' for key, value in told.items())}{left}{without}")
    counts = " and ".join(
        f"{path} ({len(rows):,} rows)" for path, rows in zip(paths, (found.rows, found.held), strict=False)
    )
    if isinstance(found.metric, dict):
        measured = f"classification of {len(found.metric['labels'])} labels"
    else:
        measured = found.metric or "no metric: add one to the entry, see `tunebook data ls`"
    click.echo(f"wrote {counts}; entries {', '.join(path.stem for path in paths)} ({measured})")
