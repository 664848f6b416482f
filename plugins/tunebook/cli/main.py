"""The `tunebook` command: finds the sub-command's module by name and imports only that one."""

from __future__ import annotations

import importlib
import sys
from typing import NoReturn

import click

from tunebook import __version__
from tunebook.errors import TunebookError

# verb -> (module, attribute, help). The help stands here too, so that `tunebook --help` imports no
# sub-command; tests/test_cli.py holds the two equal.
COMMANDS: dict[str, tuple[str, str, str]] = {
    "ls": ("tunebook.cli.recipes", "ls", "List the recipes: name, hardware and what each should reach."),
    "show": ("tunebook.cli.recipes", "show", "Show one recipe, with its overlays merged in."),
    "cp": ("tunebook.cli.recipes", "cp", "Copy a recipe, to make it yours."),
    "check": (
        "tunebook.cli.check",
        "check",
        "Find the faults of recipes without starting an engine.",
    ),
    "estimate": (
        "tunebook.cli.estimate",
        "estimate",
        "Estimate memory, steps, sizes and time of a recipe.",
    ),
    "train": ("tunebook.cli.train", "train", "Train a recipe with its engine."),
    "data": (
        "tunebook.cli.data",
        "data",
        "List the registry's datasets; show one as each engine is told of it.",
    ),
    "score": ("tunebook.cli.score", "score", "Score a file of predictions with one metric; needs no torch."),
    "report": ("tunebook.cli.report", "report", "Report runs as report.json, report.md and report.html."),
}


class LazyGroup(click.Group):
    """A group whose commands are imported when they are run, so that `--help` stays under 0.2 s."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """The verbs, in the order a user meets them."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Import the verb's module and return its command."""
        if cmd_name not in COMMANDS:
            return None
        module, attribute, _ = COMMANDS[cmd_name]
        command = getattr(importlib.import_module(module), attribute)
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """Write the list of verbs from the table above, importing nothing."""
        with formatter.section("Commands"):
            formatter.write_dl([(verb, text) for verb, (_, _, text) in COMMANDS.items()])


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="tunebook")
def cli() -> None:
    """Recipes, honest metrics and reports for LLaMA-Factory and Axolotl.

    \b
    Example:
      tunebook train llamafactory/demo/full_sft_recommend
      tunebook report output/demo/recommend -o reports/demo
    """


def main() -> NoReturn:
    """Run the command line: exit 0 done, 1 a check failed, 2 wrong use or file, 130 interrupted."""
    try:
        # Outside standalone mode click returns the code of `ctx.exit(code)` instead of raising it.
        code = cli.main(standalone_mode=False)
    except TunebookError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(2)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, click.Abort):
        click.echo("interrupted", err=True)
        sys.exit(130)
    sys.exit(code if isinstance(code, int) else 0)


if __name__ == "__main__":
    main()
