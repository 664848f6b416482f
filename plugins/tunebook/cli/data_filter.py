"""`tunebook data filter`: leave out rows by their length in tokens, and copy the others unchanged."""

from __future__ import annotations

import json
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tunebook.cli.data_lengths import keep_sets, make_plan, progress
from tunebook.cli.data_registry import dataset_dir_option
from tunebook.errors import TunebookError
from tunebook.files import open_atomic
from tunebook.lengths import filtering
from tunebook.lengths.filtering import Condition, Outcome, Part, sort_rows

if TYPE_CHECKING:
    from tunebook.lengths.sets import Plan

_SHOWN_ROWS = 10


@click.command("filter")
@click.argument("name", metavar="RECIPE|NAME")
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
@click.option("--max-tokens", type=click.IntRange(min=1), help="Longest row that stays.")
@click.option("--min-tokens", type=click.IntRange(min=1), help="Shortest row that stays.")
@click.option("--max-answer-tokens", type=click.IntRange(min=1), help="Longest answer that stays.")
@click.option(
    "--on",
    type=click.Choice(["total", "prompt", "answer"]),
    default="total",
    show_default=True,
    help="The length that --max and --min look at.",
)
@click.option("--max-chars", type=click.IntRange(min=1), help="As --max-tokens, without a tokenizer.")
@click.option("--min-chars", type=click.IntRange(min=1), help="As --min-tokens, without a tokenizer.")
@click.option(
    "--dataset", "wanted", multiple=True, metavar="NAME", help="Of a recipe; else its training sets."
)
@click.option("--model", metavar="PATH|MODEL", help="Tokenizer for a NAME: a folder or a hub model.")
@click.option("--template", metavar="TEMPLATE", help="LLaMA-Factory's template for a NAME, e.g. qwen3.")
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), help="Folder for the data and its registry entry."
)
@click.option(
    "--name",
    "new_name",
    metavar="NAME",
    help="Name of the new entry; NAME_max8192 and the like if not given.",
)
@click.option("--dry-run", is_flag=True, help="Only say which rows would be left out.")
@click.option(
    "--report", type=click.Path(path_type=Path, dir_okay=False), metavar="OUT.jsonl",
    help="With --dry-run: write a line for each row that would go.",
)  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print what was done as JSON.")
@dataset_dir_option
def filter_rows(
    name: str,
    overrides: tuple[str, ...],
    max_tokens: int | None,
    min_tokens: int | None,
    max_answer_tokens: int | None,
    on: Part,
    max_chars: int | None,
    min_chars: int | None,
    wanted: tuple[str, ...],
    model: str | None,
    template: str | None,
    output: Path | None,
    new_name: str | None,
    report: Path | None,
    dataset_dir: Path | None,
    *,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Leave out rows by length in tokens; copy the others unchanged.

    RECIPE and NAME are as in `tunebook data lengths`. For each set a data file, its registry entry, the list
    of the rows that went and a manifest appear in the output folder, or nothing does.

    \b
    Example:
      tunebook data filter llamafactory/demo/full_sft_recommend --max-tokens 128 -o output/filtered
    """
    chars = max_chars is not None or min_chars is not None
    condition = Condition(
        on=on,
        least=min_chars if chars else min_tokens,
        most=max_chars if chars else max_tokens,
        most_answer=max_answer_tokens,
    )
    _check_options(condition, chars=chars, tokens=[max_tokens, min_tokens, max_answer_tokens])
    if (output is None) != dry_run:
        raise click.UsageError("give either -o FOLDER or --dry-run")
    if report is not None and not dry_run:
        raise click.UsageError("--report goes with --dry-run; with -o the list is beside the data")
    plan = make_plan(
        name, overrides, (), chars=chars, model=model, template=template, dataset_dir=dataset_dir
    )
    keep_sets(plan, wanted or [rows.name for rows in plan.sets if rows.part == "train"])
    if not plan.sets:
        raise TunebookError(f"{name} names no training data", fix="name a set with --dataset")
    if new_name is not None and len(plan.sets) > 1:
        raise click.UsageError("--name goes with one set; choose it with --dataset")
    outcomes = _run(plan, condition, output, new_name, report)
    if as_json:
        click.echo(json.dumps([_as_json(outcome) for outcome in outcomes], indent=2, ensure_ascii=False))
    else:
        for outcome in outcomes:
            _print(outcome, dry_run=dry_run)


def _check_options(condition: Condition, *, chars: bool, tokens: list[int | None]) -> None:
    if chars and any(bound is not None for bound in tokens):
        raise click.UsageError("count either tokens or characters")
    if condition.most is None and condition.least is None and condition.most_answer is None:
        raise click.UsageError("give a bound, e.g. --max-tokens 8192")


def _run(
    plan: Plan, condition: Condition, output: Path | None, new_name: str | None, report: Path | None
) -> list[Outcome]:
    outcomes = [
        Outcome(name=new_name or filtering.new_name(rows.name, condition), source=rows.name)
        for rows in plan.sets
    ]
    if output is not None:
        for outcome in outcomes:
            filtering.refuse_existing(output, outcome.name)
    plan.ask(whole=True)
    with open_atomic(report) if report is not None else nullcontext() as stream:
        for rows, outcome in zip(plan.sets, outcomes, strict=True):
            with progress(f"filtering {rows.name}", rows.bytes) as on_bytes:
                parts = sort_rows(rows, condition, on_bytes=on_bytes)
                if output is None:
                    filtering.count(parts, outcome, stream)
                    continue
                counted = {
                    "unit": plan.unit,
                    "engine": plan.engine,
                    "template": plan.template,
                    "tokenizer": plan.tokenizer,
                }
                facts = filtering.facts_of(condition, counted)
                filtering.write(parts, rows, outcome, output, facts)
    return outcomes


def _as_json(outcome: Outcome) -> dict[str, Any]:
    return {
        "dataset": outcome.source,
        "name": outcome.name,
        "file": str(outcome.file) if outcome.file else None,
        "rows": outcome.rows,
        "kept": outcome.kept,
        "dropped": outcome.dropped,
        "reasons": dict(outcome.reasons),
        "first_dropped": outcome.first,
    }


def _print(outcome: Outcome, *, dry_run: bool) -> None:
    verb = "would stay" if dry_run else "kept"
    click.echo(
        f"{outcome.source}: {outcome.kept:,} of {outcome.rows:,} rows {verb}, {outcome.dropped:,} dropped"
    )
    for reason, count in outcome.reasons.most_common():
        click.echo(f"  {count:,}: {reason}")
    if outcome.first:
        more = ", ..." if outcome.dropped > _SHOWN_ROWS else ""
        click.echo(f"  rows {', '.join(map(str, outcome.first[:_SHOWN_ROWS]))}{more}")
    if outcome.file is not None:
        click.echo(f"  {outcome.file}, entry {outcome.name!r} in {outcome.file.parent}")
