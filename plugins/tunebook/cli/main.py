"""The `tunebook` command: the tables of its verbs, and its exit codes."""

from __future__ import annotations

import difflib
import importlib
import os
import sys
from contextlib import suppress
from typing import Any, NoReturn

import click

from tunebook import __version__
from tunebook.errors import TunebookError, from_system
from tunebook.text import without_controls

# verb -> (module, attribute, help). The help is here too, so that a group's `--help` imports none of its
# commands; tests/test_cli.py holds the two equal.
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

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the verb; where it is misspelt, name those that are close."""
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            near = difflib.get_close_matches(args[0], self.table, n=2)
            if not near:
                raise
            meant = f"{error.message} Did you mean {' or '.join(near)}?"
            raise click.UsageError(meant, ctx) from error

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """Write the list of verbs from the table, importing nothing."""
        with formatter.section("Commands"):
            formatter.write_dl([(verb, text) for verb, (_, _, text) in self.table.items()])


COMMANDS: CommandTable = {
    "ls": ("tunebook.cli.recipes", "ls", "List the recipes: name, hardware and what each should reach."),
    "show": ("tunebook.cli.recipes", "show", "Show one recipe, with its overlays merged in."),
    "cp": ("tunebook.cli.recipes", "cp", "Copy a recipe, to make it yours."),
    "check": (
        "tunebook.cli.check",
        "check",
        "Find the faults of recipes without starting an engine.",
    ),
    "schema": (
        "tunebook.cli.schema",
        "schema",
        "Print JSON Schema of an engine's recipes, for editors.",
    ),
    "estimate": (
        "tunebook.cli.estimate",
        "estimate",
        "Estimate memory, steps, sizes and time of a recipe.",
    ),
    "train": ("tunebook.cli.train", "train", "Train a recipe with its engine."),
    "launch": (
        "tunebook.cli.launch",
        "launch",
        "Train one recipe on several nodes: here, over SSH or on SLURM.",
    ),
    "eval": (
        "tunebook.cli.eval",
        "eval_",
        "Evaluate runs, checkpoints and models as training does.",
    ),
    "status": (
        "tunebook.cli.status",
        "status",
        "Show the state of runs: step, loss, metrics, speed, time left.",
    ),
    "stop": ("tunebook.cli.stop", "stop", "Stop runs: each writes a checkpoint at its next step and ends."),
    "doctor": (
        "tunebook.cli.doctor",
        "doctor",
        "Show what this machine can run, and what to fix first.",
    ),
    "bench": (
        "tunebook.cli.bench",
        "bench",
        "Time a short training of a recipe: speed, memory, use of the GPU.",
    ),
    "data": (
        "tunebook.cli.main",
        "data",
        "Split, measure, check and list the data that recipes train on.",
    ),
    "score": ("tunebook.cli.score", "score", "Score a file of predictions with one metric; needs no torch."),
    "compare": (
        "tunebook.cli.compare",
        "compare",
        "Compare two models on the same rows, with significance tests.",
    ),
    "infer": (
        "tunebook.cli.infer",
        "infer",
        "Answer prompts, put to the model as in its training.",
    ),
    "verify": (
        "tunebook.cli.verify",
        "verify",
        "Compare what a server sends to a model with what training did.",
    ),
    "merge": (
        "tunebook.cli.merge",
        "merge_command",
        "Merge an adapter into its base, or several models into one.",
    ),
    "report": ("tunebook.cli.report", "report", "Report runs as report.json, report.md and report.html."),
}

DATA_COMMANDS: CommandTable = {
    "import": (
        "tunebook.cli.data_import",
        "import_command",
        "Import tables, chats and folders into the registry.",
    ),
    "split": (
        "tunebook.cli.data_split",
        "split",
        "Split a dataset between nodes, into a dataset_dir for each.",
    ),
    "ls": (
        "tunebook.cli.data_registry",
        "ls",
        "List the datasets of the registry and what is measured on each.",
    ),
    "show": (
        "tunebook.cli.data_registry",
        "show",
        "Show an entry, or the one that fits a file, also for Axolotl.",
    ),
    "lengths": (
        "tunebook.cli.data_lengths",
        "lengths",
        "Show how long rows are in tokens, and what the limit cuts off.",
    ),
    "filter": (
        "tunebook.cli.data_filter",
        "filter_rows",
        "Leave out rows by length in tokens; copy the others unchanged.",
    ),
    "chunk": (
        "tunebook.cli.data_chunk",
        "chunk",
        "Cut long documents into pieces of at most so many tokens.",
    ),
    "check": (
        "tunebook.cli.data_check",
        "check",
        "Find duplicates, leaks, unreadable answers and broken encodings.",
    ),
    "verify": (
        "tunebook.cli.data_registry",
        "verify",
        "Check that a split still holds each row of its source once.",
    ),
}


@click.group(cls=LazyGroup, table=COMMANDS, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="tunebook")
def cli() -> None:
    """Recipes, honest metrics and reports for LLaMA-Factory and Axolotl.

    \b
    Example:
      tunebook train llamafactory/demo/full_sft_recommend
      tunebook report output/demo/recommend -o reports/demo
    """


@click.group("data", cls=LazyGroup, table=DATA_COMMANDS)
def data() -> None:
    """Split, measure, check and list the data that recipes train on.

    \b
    Example:
      tunebook data show movielens_eval
    """


def main() -> NoReturn:
    """Run the command line: exit 0 done, 1 a check failed, 2 wrong use or file, 130 interrupted.

    `compare --require` has 3 besides: it cannot be told.
    """
    try:
        # Outside standalone mode click returns the code of `ctx.exit(code)` instead of raising it.
        code = cli.main(standalone_mode=False)
    except TunebookError as error:
        click.echo(without_controls(f"error: {error}"), err=True)
        sys.exit(2)
    except (OSError, RecursionError, MemoryError) as error:
        with suppress(OSError):
            click.echo(without_controls(f"error: {from_system(error)}"), err=True)
        # What the output could not take is tried again at the end of Python otherwise, and fails again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        sys.exit(2)
    except click.NoSuchOption as error:
        key = error.option_name.lstrip("-")
        meant = f" Keys of a recipe are written without dashes: {key}=VALUE." if "_" in key else ""
        (click.UsageError(error.message + meant, error.ctx) if meant else error).show()
        sys.exit(error.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, click.Abort):
        click.echo("interrupted", err=True)
        sys.exit(130)
    sys.exit(code if isinstance(code, int) else 0)


if __name__ == "__main__":
    main()
