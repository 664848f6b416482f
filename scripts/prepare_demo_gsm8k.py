"""Make word problems in GSM8K's form, small enough for the tiny model to learn: two numbers and their sum.

Each answer is worked out and ends with `#### N`, as GSM8K's do. The evaluation rows ask for sums that the
training rows also ask for, in other people's hands: it is the form and the table that can be learned, not
addition.

Example:
  python scripts/prepare_demo_gsm8k.py -o datasets_info/demo_gsm8k
"""

from __future__ import annotations

import random
from pathlib import Path

import click

from prepare_demo import write_split

ROWS = {"train": 1_200, "eval": 100}
PEOPLE = ("Anna", "Ben", "Cleo", "Dan", "Eve", "Finn")
THINGS = ("plums", "stamps", "coins", "shells")


def make_rows(split: str, rows: int, *, seed: int) -> list[dict[str, str]]:
    """Rows of one split, a pure function of its name, its size and the seed."""
    rng = random.Random(f"gsm8k-{seed}-{split}")
    made = []
    for _ in range(rows):
        person, thing = rng.choice(PEOPLE), rng.choice(THINGS)
        has, buys = rng.randint(1, 9), rng.randint(1, 9)
        question = f"{person} has {has} {thing} and buys {buys} more. How many {thing} are there?"
        made.append(
            {
                "instruction": question,
                "input": "",
                "output": f"{person} has {has} and {buys}, so {has}+{buys}={has + buys}.\n#### {has + buys}",
            }
        )
    return made


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
    for split, count in ROWS.items():
        write_split(output, split, make_rows(split, count, seed=seed))
        click.echo(f"{output / split}.json: {count:,} rows")


if __name__ == "__main__":
    main()
