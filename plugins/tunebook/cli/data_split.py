"""`tunebook data split`: each node's own part of a dataset."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import click
from rich.console import Console
from rich.table import Table

from tunebook import metrics
from tunebook.cli.data_registry import dataset_dir_option, registry_folder
from tunebook.errors import TunebookError
from tunebook.progress import progress_bar
from tunebook.splits import job_array, run
from tunebook.splits.assign import MAX_NODES
from tunebook.splits.entries import find_dataset
from tunebook.splits.manifest import Names, spread
from tunebook.splits.plan import DEFAULT_MEMORY, Balance, SplitOptions
from tunebook.splits.scan import CountTokens
from tunebook.splits.write import Progress

if TYPE_CHECKING:
    from tunebook.splits.entries import SplitDataset
    from tunebook.splits.plan import PartPlan, SplitOptions


_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


class Shard(NamedTuple):
    """One task of a job array."""

    task: int
    tasks: int


class _MemoryType(click.ParamType[int]):
    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        found = re.fullmatch(r"(\d+)\s*([KMG]?)i?B?", str(value).strip(), re.IGNORECASE)
        if found is None:
            self.fail(f"{value!r} is no size; write e.g. 256MB or 2GB", param, ctx)
        return int(found[1]) * _UNITS[found[2].upper()]


class _ShardType(click.ParamType[Shard]):
    name = "i/M"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Shard:
        found = re.fullmatch(r"(\d+)/(\d+)", str(value))
        if found is None or not int(found[1]) < int(found[2]):
            self.fail(f"{value!r} is no task; the first of 16 is 0/16, the last 15/16", param, ctx)
        return Shard(int(found[1]), int(found[2]))


class HoldoutType(click.ParamType[float]):
    """A number of rows, or a share of them."""

    name = "rows"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the number, whole from 1 on."""
        try:
            number = float(value)
        except ValueError:
            number = 0.0
        if not (0 < number < 1 or (number >= 1 and number == int(number))):
            self.fail(f"{value!r} is neither a number of rows nor a share such as 0.1", param, ctx)
        return number


@click.command("split")
@click.argument("source", metavar="NAME|FILE")
@click.option("--nodes", type=click.IntRange(1, MAX_NODES), required=True, help="How many parts.")
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), required=True, help="Folder to make; must not exist."
)
@click.option(
    "--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Seed of the random order."
)
@click.option(
    "--balance",
    type=click.Choice(["rows", "bytes", "tokens"]),
    default="rows",
    show_default=True,
    help="What the nodes get in equal amounts. Without --group-by, rows differ by one at most in any case.",
)
@click.option("--tokenizer", metavar="PATH", help="Model folder or tokenizer.json, for --balance tokens.")
@click.option(
    "--shuffle/--no-shuffle", default=True, show_default=True, help="Random order, or the source's."
)
@click.option(
    "--eval",
    "held_out",
    type=HoldoutType(),
    metavar="N|SHARE",
    help="Hold out N rows first, or a share such as 0.1, by what is asked in them: the same in any order, "
    "no prompt on both sides. A share stays the same where rows are added later, too.",
)
@click.option("--eval-name", metavar="NAME", help="Name of the hold-out's entry; by default <name>_eval.")
@click.option("--eval-metric", metavar="METRIC", help="Metric of the hold-out; by default that of NAME.")
@click.option("--group-by", metavar="COLUMN", help="Keep rows with the same value on one node.")
@click.option(
    "--node-names", is_flag=True, help="Call the files training_data_node_<i>, and link them into OUTPUT."
)
@click.option("--joint", is_flag=True, help="Also write OUTPUT/joint, for one job of all nodes together.")
@click.option(
    "--skip-bad", is_flag=True, help="Leave bad rows out and list them, rather than stop at the first."
)
@click.option(
    "--check-json",
    type=click.Choice(["auto", "full", "braces"]),
    default="auto",
    show_default=True,
    hidden=True,
    help="Parse each JSON row, or look at its braces; auto parses up to 256 MB.",
)
@click.option(
    "--memory",
    type=_MemoryType(),
    default=f"{DEFAULT_MEMORY >> 20}MB",
    show_default=True,
    hidden=True,
    help="Memory that shuffling may take.",
)
@click.option("--shard", type=_ShardType(), help="Do one task's share of the work, e.g. 0/16 of a job array.")
@click.option("--merge", type=click.IntRange(min=1), metavar="M", help="Put the shares of M tasks together.")
@dataset_dir_option
@click.option("--dry-run", is_flag=True, help="Read and plan, write nothing.")
@click.option(
    "--json", "as_json", is_flag=True, help="Print the manifest, or with --dry-run the plan, as JSON."
)
def split(
    source: str,
    nodes: int,
    output: Path,
    seed: int,
    balance: str,
    tokenizer: str | None,
    shuffle: bool,
    held_out: float | None,
    eval_name: str | None,
    eval_metric: str | None,
    group_by: str | None,
    node_names: bool,
    joint: bool,
    skip_bad: bool,
    check_json: str,
    memory: int,
    shard: Shard | None,
    merge: int | None,
    dataset_dir: Path | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Split a dataset between nodes, into a dataset_dir for each.

    NAME is an entry of the registry; FILE a .csv, .json, .jsonl or .parquet file. OUTPUT/node_<i> holds the
    rows of one node and a dataset_info.json with the same names, so a recipe runs with dataset_dir set to
    it. OUTPUT/manifest.json says what is where. A split that was cut off leaves no OUTPUT and starts again.

    \b
    Example:
      tunebook data split demo_recommend_train --nodes 4 --eval 50 -o output/split
      tunebook train llamafactory/demo/full_sft_recommend dataset_dir=output/split/node_0
    """
    dataset = find_dataset(source, registry_folder(dataset_dir))
    options = SplitOptions(
        nodes=nodes,
        seed=seed,
        balance=cast("Balance", balance),
        shuffle=shuffle,
        eval_rows=int(held_out or 0),
        eval_share=held_out if held_out and held_out < 1 else 0.0,
        group_by=group_by,
        tokenizer=tokenizer,
        skip_bad=skip_bad,
        parse_json={"auto": None, "full": True, "braces": False}[check_json],
    )
    if held_out is None and (eval_name or eval_metric):
        raise TunebookError("--eval-name and --eval-metric are for a hold-out", fix="add --eval N")
    if eval_metric is not None:
        metrics.load(eval_metric)
    with _progress() as progress:
        job = run.SplitJob(
            dataset=dataset,
            options=options,
            names=Names(eval_name=eval_name, eval_metric=eval_metric, node_names=node_names, joint=joint),
            out=output,
            memory=_checked_memory(memory),
            count_tokens=_counter(options),
            progress=progress,
        )
        if shard is not None and merge is not None:
            raise TunebookError("--shard and --merge are two steps", fix="run all shards, then --merge")
        with _says_that_nothing_is_finished():
            if dry_run:
                _, plans = run.preview(job)
                result = None
            elif shard is not None:
                job_array.run_task(job, shard.task, shard.tasks)
                return
            else:
                result = job_array.merge(job, merge) if merge is not None else run.split(job)
                plans = []
    if result is None:
        show_preview(dataset, options, plans, as_json)
    elif as_json:
        click.echo(json.dumps(result, indent=2, ensure_ascii=False))
    else:
        show_manifest(output, result)


def _counter(options: SplitOptions) -> CountTokens | None:
    if options.balance != "tokens":
        if options.tokenizer is not None:
            raise TunebookError("--tokenizer is for --balance tokens", fix="add --balance tokens")
        return None
    if options.tokenizer is None:
        raise TunebookError(
            "--balance tokens needs a tokenizer", fix="name the model's folder with --tokenizer"
        )
    # Here, since only this needs a tokenizer's libraries.
    from tunebook.lengths import counter

    return counter(options.tokenizer)


def _checked_memory(memory: int) -> int:
    if memory < run.MIN_MEMORY:
        raise TunebookError(
            f"--memory {memory >> 20}MB is too little", fix=f"give at least {run.MIN_MEMORY >> 20}MB"
        )
    return memory


@contextmanager
def _says_that_nothing_is_finished() -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        click.echo("nothing is finished yet; the same command starts again", err=True)
        raise


@contextmanager
def _progress() -> Iterator[Progress]:
    """A bar for each stage and sentences, on stderr; the bar only where that is a terminal."""
    with progress_bar() as progress:
        task = progress.add_task("", visible=False)
        stage: Callable[[str, int], None] = lambda name, total: progress.reset(  # noqa: E731
            task, description=name, total=total, visible=True
        )
        yield Progress(
            stage=stage,
            on_bytes=lambda done: progress.advance(task, done),
            say=lambda text: click.echo(text, err=True),
        )


# How `tunebook data split` prints what it plans and what it has done.

_SHOWN_PARTS = 32


def show_preview(dataset: SplitDataset, options: SplitOptions, plans: list[PartPlan], as_json: bool) -> None:
    """Print what a split would give each part."""
    named = [*(f"node_{node}" for node in range(options.nodes)), *(["eval"] if options.holds_out else [])]
    rows = [
        {"part": name, "rows": plan.rows, "row_bytes": plan.bytes, "tokens": plan.tokens}
        for name, plan in zip(named, plans, strict=True)
    ]
    if as_json:
        figures = {"name": dataset.name, "parts": rows, "spread": spread(plans[: options.nodes])}
        click.echo(json.dumps(figures, indent=2))
        return
    _show_parts(f"{dataset.name}, planned; nothing is written", rows)
    click.echo(_spread_line(spread(plans[: options.nodes])))


def show_manifest(output: Path, manifest: dict[str, Any]) -> None:
    """Print what a split has given each part, what was left out, and what comes next."""
    parts = [{"part": Path(part["file"]).parts[0], **part} for part in manifest["nodes"]]
    if manifest["eval"]:
        parts.append({"part": manifest["eval_name"], **manifest["eval"]})
    _show_parts(f"{manifest['name']} in {output}", parts)
    click.echo(_spread_line(manifest["spread"]))
    if manifest["skipped_rows"]:
        click.echo(f"left out: {manifest['skipped_rows']} bad rows, listed in {output / 'manifest.json'}")
        for bad in manifest["skipped"][:5]:
            click.echo(f"  {bad['file']}, line {bad['line']}: {bad['problem']}")
    click.echo(
        f"node i trains with dataset_dir={output}/node_<i>; prove it with `tunebook data verify {output}`"
    )


def _spread_line(figures: dict[str, float | None]) -> str:
    spreads = ", ".join(f"{name} by {figure:.2%}" for name, figure in figures.items() if figure is not None)
    return f"nodes differ at most in {spreads} of the mean"


def _show_parts(title: str, parts: list[dict[str, Any]]) -> None:
    table = Table(title=title, title_justify="left")
    table.add_column("part")
    tokens = any(part["tokens"] is not None for part in parts)
    for name in ("rows", "bytes of rows", *(("tokens",) if tokens else ())):
        table.add_column(name, justify="right")
    for part in parts[:_SHOWN_PARTS]:
        figures = [part["rows"], part["row_bytes"], *([part["tokens"]] if tokens else [])]
        table.add_row(part["part"], *(f"{figure:,}" for figure in figures))
    Console(highlight=False).print(table)
    if len(parts) > _SHOWN_PARTS:
        click.echo(f"and {len(parts) - _SHOWN_PARTS} more")
