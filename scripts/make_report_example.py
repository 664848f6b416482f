"""Write a report with both outlines of runs below this repository, without the names of this machine.

It is what `tunebook report --template study --template slides` writes, but that paths are those below the
repository and the host has no name. `make report-example` runs it.

Example:
  python scripts/make_report_example.py output/demo/recommend output/demo/gsm8k -o reports/demos
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tunebook.report.data import gather
from tunebook.report.render import render, render_outlines, write_report

if TYPE_CHECKING:
    from tunebook.report.records import Report

ROOT = Path(__file__).resolve().parents[1]


@click.command(help=__doc__)
@click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True))
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path))
def main(runs: tuple[Path, ...], output: Path) -> None:
    report = without_host(gather(runs))
    files = render(report) | render_outlines(report, ["study", "slides"])
    write_report({name: below_root(content) for name, content in files.items()}, output)
    click.echo(
        f"wrote {output / 'report.html'}, {sum(map(len, files.values())) / 1e6:.1f} MB in {len(files)} files"
    )


def without_host(report: Report) -> Report:
    """The report with no host named in the provenance of its runs."""
    runs = tuple(
        replace(run, provenance=run.provenance | {"host": None} if run.provenance else None)
        for run in report.runs
    )
    return replace(report, runs=runs)


def below_root(content: bytes) -> bytes:
    """Content with every path into the repository, or into this Python's environment, made relative."""
    for folder in (ROOT, Path(sys.prefix).resolve().parent):
        content = content.replace(f"{folder}/".encode(), b"").replace(str(folder).encode(), b".")
    return content


if __name__ == "__main__":
    main()
