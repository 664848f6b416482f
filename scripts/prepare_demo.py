"""Make the demo's data: a small recommendation set in MovieLens's shape, with a rule that can be learned.

Each row lists the films a user has watched, a candidate, and whether the user liked it. The films are
invented. The rule: the user likes a candidate of the genre that fills most of the history. Some answers are
turned round, as a real user's would be, so nobody can reach 1.0.

Example:
  python scripts/prepare_demo.py -o datasets_info/demo
"""

from __future__ import annotations

import json
import random
from pathlib import Path

import click

from movie_prompts import Film, alpaca_row

GENRES = ("Action", "Comedy", "Drama", "Horror")
ROWS = {"train": 4_800, "eval": 300, "test": 400}
HISTORY = 5
"""Films in each history: enough for a majority, few enough for a fast laptop run."""
OF_FAVOURITE_GENRE = 4
"""Films of the history that are of the user's favourite genre."""
LIKED_SHARE = 0.35
"""Share of candidates drawn from the favourite genre: an always-No model is right in about 0.65."""
TURNED_ROUND = 0.03
"""Share of answers that break the rule."""

FIRST_WORDS = ("Silent", "Golden", "Broken", "Distant", "Crimson", "Hidden", "Frozen", "Electric", "Paper")
SECOND_WORDS = ("Harbor", "River", "Garden", "Station", "Mirror", "Summer", "Letter", "Mountain", "Shadow")


def make_films() -> list[Film]:
    """Every invented film: each pair of words once per genre, the same on every call."""
    return [
        Film(f"{first} {second}", (genre,))
        for genre in GENRES
        for first in FIRST_WORDS
        for second in SECOND_WORDS
    ]


def make_rows(split: str, rows: int, *, seed: int) -> list[dict[str, str]]:
    """Rows of one split, a pure function of its name, its size and the seed."""
    rng = random.Random(f"demo-{seed}-{split}")
    by_genre: dict[str, list[Film]] = {genre: [] for genre in GENRES}
    for film in make_films():
        by_genre[film.genres[0]].append(film)
    made = []
    for _ in range(rows):
        favourite, *others = rng.sample(GENRES, len(GENRES))
        history = rng.sample(by_genre[favourite], OF_FAVOURITE_GENRE)
        history += [rng.choice(by_genre[genre]) for genre in others[: HISTORY - OF_FAVOURITE_GENRE]]
        rng.shuffle(history)
        of_favourite = rng.random() < LIKED_SHARE
        unwatched = [film for film in by_genre[favourite] if film not in history]
        candidate = rng.choice(unwatched if of_favourite else by_genre[rng.choice(others)])
        liked = of_favourite != (rng.random() < TURNED_ROUND)
        made.append(alpaca_row(history, candidate, liked=liked))
    return made


def write_split(folder: Path, split: str, rows: list[dict[str, str]]) -> None:
    """Write `<split>.json` into an existing folder, whole or not at all."""
    scratch = folder / f".{split}.json.part"
    scratch.write_text(json.dumps(rows, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    scratch.replace(folder / f"{split}.json")


@click.command()
@click.option("--seed", default=0, show_default=True, help="Seed of the rows.")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("datasets_info/demo"),
    show_default=True,
    help="Folder for train.json, eval.json and test.json.",
)
def main(seed: int, output: Path) -> None:
    """Make the demo's recommendation data: invented films, a rule to learn, some noise.

    \b
    Example:
      python scripts/prepare_demo.py -o datasets_info/demo
    """
    output.mkdir(parents=True, exist_ok=True)
    for split, count in ROWS.items():
        rows = make_rows(split, count, seed=seed)
        write_split(output, split, rows)
        no = sum(row["output"] == "No" for row in rows) / count
        click.echo(f"{output / split}.json: {count:,} rows, {no:.3f} of them No")


if __name__ == "__main__":
    main()
