"""How `tunebook data lengths` prints what it has measured."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tunebook.lengths.cutting import LOSS_WORDS, LOSSES

if TYPE_CHECKING:
    from rich.console import Console

_BAR = 40
_SHOWN_ROWS = 10
_COLUMNS = ("min", "mean", "p50", "p90", "p95", "p99", "p100")


def print_report(report: dict[str, Any]) -> None:
    """Print everything but the page: lengths, what the limit cuts, and how lengths are spread."""
    from rich.console import Console

    console = Console(highlight=False, soft_wrap=True)
    if report["counted_by"]:
        console.print(
            f"template {report['template']} ({report['engine']}), tokenizer {report['tokenizer']}, "
            f"counted by {report['counted_by']}"
        )
    for note in report["notes"]:
        console.print(f"note: {note}")
    for one in report["sets"]:
        console.print(f"\n[bold]{one['name']}[/] ({one['part']}): {one['rows']:,} rows")
        for note in one["notes"]:
            console.print(f"note: {note}")
        for reason, rows in one["left_out"].items():
            console.print(f"left out by the engine: {_count(rows)}: {reason}")
        if not one["rows"]:
            continue
        _print_lengths(console, one, report["unit"])
        if one["limit"]:
            _print_losses(console, one)
        if "together" not in report:
            _print_shape(console, one)
    if "together" in report:
        together = report["together"]
        console.print(f"\n[bold]together[/]: {together['rows']:,} rows")
        if together["rows"]:
            _print_lengths(console, together, report["unit"])
            _print_shape(console, together)


def _print_lengths(console: Console, one: dict[str, Any], unit: str) -> None:
    from rich.table import Table

    table = Table(unit, *_COLUMNS, box=None, pad_edge=False)
    for column in table.columns[1:]:
        column.justify = "right"
    for part in ("prompt", "answer", "total"):
        figures = one[part]
        table.add_row(
            part, *(f"{figures[key]:,.1f}" if key == "mean" else f"{figures[key]:,}" for key in _COLUMNS)
        )
    console.print(table)


def _print_losses(console: Console, one: dict[str, Any]) -> None:
    limit = one["limit"]
    where = f"at {limit['key']} {limit['value']:,} the engine {limit['rule']}"
    if not limit["losses"]:
        console.print(f"{where}: no row loses anything")
        return
    console.print(f"{where}:")
    for loss, rows in limit["losses"].items():
        share = 100 * rows["rows"] / one["rows"]
        console.print(f"  {rows['rows']:,} ({share:.2f} %) {LOSS_WORDS[loss]}{_numbers(rows)}")


def _print_shape(console: Console, one: dict[str, Any]) -> None:
    from rich.table import Table

    width, counts = one["histogram"]["width"], one["histogram"]["counts"]
    most, digits = max(counts), len(f"{len(counts) * width:,}")
    first = next(at for at, count in enumerate(counts) if count)
    console.print()
    for at, count in enumerate(counts[first:], first):
        bar = "█" * (-(-count * _BAR // most))
        console.print(f"{at * width:>{digits},} to {(at + 1) * width - 1:<{digits},} {bar:{_BAR}} {count:,}")
    if one["retention"]:
        lost = [loss for loss in LOSSES if any(step[loss] for step in one["retention"])]
        table = Table("limit", "whole", "tokens kept", *lost, box=None, pad_edge=False)
        for column in table.columns:
            column.justify = "right"
        for step in one["retention"]:
            table.add_row(
                f"{step['limit']:,}",
                f"{100 * step['whole_share']:.2f} %",
                f"{100 * step['tokens_share']:.2f} %",
                *(f"{step[loss]:,}" for loss in lost),
            )
        console.print()
        console.print(table)
        for loss in lost:
            console.print(f"{loss}: rows that {LOSS_WORDS[loss]}", style="dim")
        suggested = one["suggested"]
        share = 100 * suggested["whole_share"]
        console.print(
            f"suggested limit: {suggested['limit']:,}, which leaves {share:.2f} % of the rows whole"
        )


def _count(rows: dict[str, Any]) -> str:
    return f"{rows['rows']:,} rows{_numbers(rows)}"


def _numbers(rows: dict[str, Any]) -> str:
    """The first row numbers, where they are known: not of several sets together."""
    shown = rows["first"][:_SHOWN_ROWS]
    more = ", ..." if rows["rows"] > len(shown) else ""
    return f" (rows {', '.join(map(str, shown))}{more})" if shown else ""
