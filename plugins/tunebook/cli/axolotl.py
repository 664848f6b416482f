"""`axolotl tunebook ...`: our commands from Axolotl's command line, by its group `axolotl.cli_commands`."""

from __future__ import annotations

import sys

import click

from tunebook.cli.main import main


@click.command(
    "tunebook",
    add_help_option=False,  # ours is asked for help, not this stand-in
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def tunebook(arguments: tuple[str, ...]) -> None:
    """Run tunebook: recipes, metrics and reports.

    \b
    Example:
      axolotl tunebook report output/demo -o reports/demo
    """
    sys.argv = ["tunebook", *arguments]
    main()
