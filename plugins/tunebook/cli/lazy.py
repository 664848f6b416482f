"""A group of commands that are found by name and imported only when they are run."""

from __future__ import annotations

import importlib
from typing import Any

import click

# verb -> (module, attribute, help). The help stands here too, so that a group's `--help` imports none
# of its commands; tests/test_cli.py holds the two equal.
CommandTable = dict[str, tuple[str, str, str]]


class LazyGroup(click.Group):
    """A group whose commands are imported when they are run, so that `--help` stays under 0.2 s."""

    def __init__(self, *args: Any, table: CommandTable, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.table = table

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """The verbs, in the order a user meets them."""
        return list(self.table)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Import the verb's module and return its command."""
        if cmd_name not in self.table:
            return None
        module, attribute, _ = self.table[cmd_name]
        command = getattr(importlib.import_module(module), attribute)
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """Write the list of verbs from the table, importing nothing."""
        with formatter.section("Commands"):
            formatter.write_dl([(verb, text) for verb, (_, _, text) in self.table.items()])
