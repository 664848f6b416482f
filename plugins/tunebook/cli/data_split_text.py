"""How `tunebook data split` prints what it plans and what it has done."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.table import Table

from tunebook.splits.outputs import spread

if TYPE_CHECKING:
    from tunebook.splits.entries import Subject
    from tunebook.splits.options import SplitOptions
    from tunebook.splits.plan import PartPlan

_SHOWN_PARTS = 32


def show_preview(subject: Subject, options: SplitOptions, plans: list[PartPlan], as_json: bool) -> None:
    """Print what a split would give each part."""
    named = [*(f"node_{node}" for node in range(options.nodes)), *(["eval"] if options.eval_rows else [])]
    rows = [
        {"part": name, "rows": plan.rows, "row_bytes": plan.bytes, "tokens": plan.tokens}
        for name, plan in zip(named, plans, strict=True)
    ]
    if as_json:
        figures = {"name": subject.name, "parts": rows, "spread": spread(plans[: options.nodes])}
        click.echo(json.dumps(figures, indent=2))
        return
    _show_parts(f"{subject.name}, planned; nothing is written", rows)
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
    told = ", ".join(f"{name} by {figure:.2%}" for name, figure in figures.items() if figure is not None)
    return f"nodes differ at most in {told} of the mean"


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
