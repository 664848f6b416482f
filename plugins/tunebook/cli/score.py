"""`tunebook score`: one metric over a file of predictions."""

from __future__ import annotations

import json
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.table import Table

from tunebook import files, metrics
from tunebook.errors import TunebookError
from tunebook.progress import byte_progress
from tunebook.scoring import prediction_files
from tunebook.scoring import score as scoring
from tunebook.scoring.score import Collector, Scored, Summary

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping


@click.command("score")
@click.argument("metric")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--prediction-column", metavar="NAME", help="Column of the model's outputs; found where usual.")
@click.option("--reference-column", metavar="NAME", help="Column of the references; found where usual.")
@click.option(
    "--references",
    "references_file",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Another file that holds the references; needs --join.",
)
@click.option("--join", metavar="NAME", help="Column by which rows of both files belong together.")
@click.option("--skip-unlabelled", is_flag=True, help="Leave rows without a reference out, and count them.")
@click.option(
    "--records",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="OUT.jsonl",
    help="Write each verdict.",
)
@click.option(
    "--workers", type=click.IntRange(min=1), default=1, show_default=True, help="Processes to score with."
)
@click.option("--json", "as_json", is_flag=True, help="Print figures, intervals and counts as JSON.")
def score(
    metric: str,
    file: Path,
    prediction_column: str | None,
    reference_column: str | None,
    references_file: Path | None,
    join: str | None,
    skip_unlabelled: bool,
    records: Path | None,
    workers: int,
    as_json: bool,
) -> None:
    """Score a file of predictions with one metric; needs no torch.

    METRIC is a built-in metric, one that a package offers, or package.module:function; a metric's own options
    may follow as JSON: 'classification{"labels": ["ham", "spam"]}'. FILE is
    LLaMA-Factory's generated_predictions.jsonl, one of our eval_records, lm-evaluation-harness's
    samples_*.jsonl, OpenCompass's predictions, an Inspect log, or any .jsonl, .json, .csv or .parquet with a
    column of predictions and one of references. Columns may be dotted: doc.answer.

    \b
    Example:
      tunebook score yes_no output/demo/lora/generated_predictions.jsonl --json
    """
    if (references_file is None) != (join is None):
        raise TunebookError("--references and --join go together", fix="give both, or neither")
    references = None
    if references_file is not None and join is not None:
        references = prediction_files.References(references_file, join, reference_column)
    left_out = prediction_files.LeftOut()

    def read(on_bytes: Callable[[int], None]) -> Iterator[prediction_files.PredictionRow]:
        return prediction_files.read_predictions(
            file,
            prediction_column=prediction_column,
            reference_column=reference_column,
            references=references,
            left_out=left_out if skip_unlabelled else None,
            on_bytes=on_bytes,
        )

    size = file.stat().st_size if file.exists() else None
    loaded = metrics.load(metric)
    if loaded.fit is not None:
        with byte_progress("reading the classes", size) as on_bytes:
            found = [row.reference for row in read(on_bytes)]
        loaded = metrics.fit(loaded, found, str(file))
        left_out = prediction_files.LeftOut()
    collector = Collector(loaded)
    verdicts = files.open_atomic(records) if records is not None else nullcontext()
    with byte_progress("scoring", size) as on_bytes, verdicts as stream:
        rows = read(on_bytes)
        for scored in scoring.score_rows(loaded.name, rows, workers=workers):
            collector.add(scored.score)
            if stream is not None:
                stream.write(_record(scored, loaded.name))
    summary = collector.summary()
    if left_out.without_reference:
        click.echo(f"{left_out.without_reference} rows without a reference are left out", err=True)
    if as_json:
        click.echo(json.dumps(asdict(summary), indent=2, ensure_ascii=False))
    else:
        _print(summary)


def _record(scored: Scored, metric: str) -> str:
    number, prediction, reference = scored.row
    record = {
        "index": number,
        "prediction": prediction,
        "reference": reference,
        "scores": {metric: asdict(scored.score)},
    }
    return json.dumps(record, ensure_ascii=False) + "\n"


def _confusion(counts: Mapping[str, Mapping[str, int]]) -> Table:
    answers = sorted(
        {answer for row in counts.values() for answer in row}, key=lambda one: (one == "unparsed", one)
    )
    table = Table(title="answers by reference", title_justify="left")
    for name in ("reference", *answers):
        table.add_column(name, justify="left" if name == "reference" else "right")
    for reference, row in counts.items():
        table.add_row(reference, *(str(row.get(answer, 0)) for answer in answers))
    return table


def _print(summary: Summary) -> None:
    console = Console()
    table = Table(title=f"{summary.metric}, n = {summary.n}", title_justify="left")
    table.add_column("figure")
    table.add_column("value", justify="right")
    table.add_column("95 % interval", justify="right")
    table.add_column("by")
    for name, figure in summary.figures.items():
        interval = f"{figure.interval.low:.4f} to {figure.interval.high:.4f}" if figure.interval else "-"
        table.add_row(name, f"{figure.value:.4f}", interval, figure.method or "-")
    console.print(table)
    if summary.confusion:
        console.print(_confusion(summary.confusion))
    if summary.signature:
        # Whole and plain: it is there to be copied.
        click.echo(f"signature: {summary.signature}")
    reasons = ", ".join(f"{reason} {count}" for reason, count in summary.unparsed_reasons.items())
    console.print(f"unparsed: {summary.n_unparsed} of {summary.n}{f' ({reasons})' if reasons else ''}")
    if summary.rules:
        console.print("read by: " + ", ".join(f"{rule} {count}" for rule, count in summary.rules.items()))
