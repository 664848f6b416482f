"""Make word problems in GSM8K's form, small enough for the tiny model to learn: two numbers and their sum.

Each answer is worked out and ends with `#### N`, as GSM8K's do. No evaluation row stands in the
training rows, but its sum does, in other people's hands or of other things: it is the form and the table that
can be learned, not addition.

Example:
  python scripts/prepare_demo_gsm8k.py -o datasets_info/demo_gsm8k
"""

from __future__ import annotations

import random
from itertools import islice, product
from pathlib import Path

import click

from prepare_demo import write_split

ROWS = {"train": 1_200, "eval": 100}
PEOPLE = ("Anna", "Ben", "Cleo", "Dan", "Eve", "Finn")
THINGS = ("plums", "stamps", "coins", "shells")


def make_rows(*, seed: int) -> dict[str, list[dict[str, str]]]:
    """The rows of each split, a pure function of the seed; no question is asked twice, in either."""
    every = list(product(PEOPLE, THINGS, range(1, 10), range(1, 10)))
    drawn = iter(random.Random(f"gsm8k-{seed}").sample(every, sum(ROWS.values())))
    return {split: [_row(*one) for one in islice(drawn, count)] for split, count in ROWS.items()}


def _row(person: str, thing: str, has: int, buys: int) -> dict[str, str]:
    return {
        "instruction": f"{person} has {has} {thing} and buys {buys} more. How many {thing} are there?",
        "input": "",
        "output": f"{person} has {has} and {buys}, so {has}+{buys}={has + buys}.\n#### {has + buys}",
    }


@click.command()
@click.option("--seed", default=0, show_default=True, help="Seed of the rows.")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("datasets_info/demo_gsm8k"),
    show_default=True,
    help="Folder for train.json and eval.json.",
)
def main(seed: int, output: Path) -> None:
    """Make word problems in GSM8K's form for the tiny model.

    \b
    Example:
      python scripts/prepare_demo_gsm8k.py -o datasets_info/demo_gsm8k
    """
    output.mkdir(parents=True, exist_ok=True)
    for split, rows in make_rows(seed=seed).items():
        write_split(output, split, rows)
        click.echo(f"{output / split}.json: {len(rows):,} rows")


if __name__ == "__main__":
    main()
