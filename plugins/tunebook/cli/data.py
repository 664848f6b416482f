"""`tunebook data`: the group of the data tools; each verb is its own module."""

from __future__ import annotations

import click

from tunebook.cli.main import CommandTable, LazyGroup

COMMANDS: CommandTable = {
    "split": (
        "tunebook.cli.data_split",
        "split",
        "Split a dataset between nodes; each gets a folder that is a whole dataset_dir.",
    ),
    "ls": (
        "tunebook.cli.data_registry",
        "ls",
        "List the datasets of the registry and what is measured on each.",
    ),
    "show": (
        "tunebook.cli.data_registry",
        "show",
        "Show an entry, and the block that says the same in an Axolotl recipe.",
    ),
    "lengths": (
        "tunebook.cli.data_lengths",
        "lengths",
        "Show how long rows are in tokens, and what the recipe's limit cuts off.",
    ),
    "filter": (
        "tunebook.cli.data_filter",
        "filter_rows",
        "Leave out rows by their length in tokens, and copy the others unchanged.",
    ),
    "chunk": (
        "tunebook.cli.data_chunk",
        "chunk",
        "Cut long documents into pieces of at most so many tokens.",
    ),
    "check": (
        "tunebook.cli.data_check",
        "check",
        "Find faults of data: duplicates, leaks, empty or unreadable answers, encodings.",
    ),
    "verify": (
        "tunebook.cli.data_registry",
        "verify",
        "Prove a split: its parts are as they were written and hold each row of the source once.",
    ),
}


@click.group("data", cls=LazyGroup, table=COMMANDS)
def data() -> None:
    """Split, measure, check and list the data that recipes train on.

    \b
    Example:
      tunebook data show movielens_eval
    """
