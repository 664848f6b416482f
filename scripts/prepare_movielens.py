"""Turn MovieLens ratings into Yes/No questions: given a user's last films, will the user like this one?

Reads a MovieLens folder as GroupLens publishes it: `ratings.csv` and `movies.csv` (ml-latest, ml-20m and
later) or `ratings.dat` and `movies.dat` (ml-1m, ml-10m). Nothing is downloaded.

Memory does not grow with the ratings: the films, one user's ratings and the ids of the users seen are held.
This needs a file in which each user's lines stand together, as they do in every published set.

Example:
  python scripts/prepare_movielens.py --input ml-1m
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import IO, NamedTuple

import click
from rich.console import Console
from rich.progress import Progress

from movie_prompts import ANSWERS, Film, alpaca_row
from movielens_files import Rating, find_layout, read_movies, read_ratings
from tunebook.errors import TunebookError

HISTORY = 15
"""Films watched before the candidate that the model is shown."""
LIKED_FROM = 4.0
"""A rating of this many stars or more counts as Yes."""
SPLITS = {"train": 0.90, "eval": 0.05, "test": 0.05}
"""Share of the users in each split. A user's rows never stand in two of them."""
RAW = "test_raw.jsonl"


class Question(NamedTuple):
    """One candidate film with what the user watched before it."""

    user: int
    history: tuple[Film, ...]
    candidate: Film
    liked: bool


def ratings_by_user(ratings: Iterator[Rating], path: Path) -> Iterator[list[Rating]]:
    """Each user's ratings in the order of time, one user after the other.

    Raises:
        TunebookError: A user's lines do not stand together.
    """
    seen: set[int] = set()
    for user, theirs in itertools.groupby(ratings, key=lambda rating: rating.user):
        if user in seen:
            raise TunebookError(
                f"{path}: the lines of user {user} do not stand together",
                fix="sort the file by its first column, numerically, keeping the header first",
            )
        seen.add(user)
        yield sorted(theirs)


def questions(ratings: list[Rating], films: dict[int, Film], most: int) -> list[Question]:
    """Questions about one user, spread evenly over the films that have a whole history before them.

    Args:
        ratings: All of one user's, in the order of time.
        films: By id.
        most: At most so many questions; a user with a long history must not fill the data.

    Raises:
        TunebookError: A rated film is not among `films`.
    """
    askable = len(ratings) - HISTORY
    if askable <= 0:
        return []
    asked = min(most, askable)
    made = []
    for number in range(asked):
        position = HISTORY + number * askable // asked
        *watched, candidate = ratings[position - HISTORY : position + 1]
        try:
            history = tuple(films[rating.movie] for rating in watched)
            film = films[candidate.movie]
        except KeyError as err:
            raise TunebookError(
                f"user {candidate.user} rated movie {err}, which the movies file does not have",
                fix="take both files from the same download",
            ) from err
        made.append(Question(candidate.user, history, film, candidate.stars >= LIKED_FROM))
    return made


def split_of(user: int, seed: int) -> str:
    """The split that all rows of a user belong to: a pure function of user and seed."""
    digest = hashlib.sha256(f"{seed}:{user}".encode()).digest()
    drawn = int.from_bytes(digest[:8], "big") / 2**64
    for split, share in SPLITS.items():
        if drawn < share:
            return split
        drawn -= share
    # Sums of shares may end a rounding error below 1.
    return split


class SplitWriter:
    """Writes a JSON list to a file row by row, counting the rows by answer."""

    def __init__(self, stream: IO[str]) -> None:
        self.answers: Counter[str] = Counter()
        self._stream = stream

    def write(self, row: dict[str, str]) -> None:
        """Append one row."""
        self._stream.write(",\n" if self.answers else "[\n")
        self._stream.write(json.dumps(row, ensure_ascii=False))
        self.answers[row["output"]] += 1

    def close(self) -> None:
        """End the list. The stream stays open: its owner closes it."""
        self._stream.write("\n]\n" if self.answers else "[]\n")


def raw_row(question: Question) -> dict[str, object]:
    """A test question without any wording, for whoever words it anew."""
    return {
        "user_id": question.user,
        "history_titles": [film.title for film in question.history],
        "history_genres": [film.genres for film in question.history],
        "candidate_title": question.candidate.title,
        "candidate_genres": question.candidate.genres,
        "label": ANSWERS[0] if question.liked else ANSWERS[1],
    }


def prepare(
    folder: Path, output: Path, *, per_user: int, seed: int, progress: Progress
) -> dict[str, Counter[str]]:
    """Write the splits of a MovieLens folder, all of them or none.

    Returns:
        The rows of each split by answer.

    Raises:
        TunebookError: The folder or a line in it is not as it should be, or a split would be empty.
    """
    layout = find_layout(folder)
    films = read_movies(folder / layout.movies, layout)
    ratings_path = folder / layout.ratings
    bar = progress.add_task(layout.ratings, total=ratings_path.stat().st_size)
    ratings = read_ratings(ratings_path, layout, lambda done: progress.update(bar, completed=done))
    output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".part-", dir=output) as scratch, contextlib.ExitStack() as files:
        names = {split: Path(scratch) / f"{split}.json" for split in SPLITS}
        writers = {
            split: SplitWriter(files.enter_context(path.open("w", encoding="utf-8")))
            for split, path in names.items()
        }
        raw = files.enter_context((Path(scratch) / RAW).open("w", encoding="utf-8"))
        for theirs in ratings_by_user(ratings, ratings_path):
            split = split_of(theirs[0].user, seed)
            for question in questions(theirs, films, per_user):
                writers[split].write(alpaca_row(question.history, question.candidate, liked=question.liked))
                if split == "test":
                    raw.write(json.dumps(raw_row(question), ensure_ascii=False) + "\n")
        for split, writer in writers.items():
            if not writer.answers:
                raise TunebookError(
                    f"{ratings_path}: no user of the {split} split has more than {HISTORY} ratings",
                    fix="take a larger MovieLens set, or another --seed",
                )
            writer.close()
        files.close()
        for path in [*names.values(), Path(scratch) / RAW]:
            path.replace(output / path.name)
    return {split: writer.answers for split, writer in writers.items()}


@click.command()
@click.option(
    "--input",
    "folder",
    type=click.Path(path_type=Path),
    required=True,
    help="An unpacked MovieLens folder, e.g. ml-1m or ml-latest.",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("datasets_info/movielens_qwen3"),
    show_default=True,
    help=f"Folder for train.json, eval.json, test.json and {RAW}.",
)
@click.option(
    "--per-user",
    type=click.IntRange(min=1),
    default=10,
    show_default=True,
    help="At most so many questions about one user.",
)
@click.option("--seed", default=0, show_default=True, help="Decides which users go to which split.")
def main(folder: Path, output: Path, per_user: int, seed: int) -> None:
    """Turn MovieLens ratings into Yes/No questions, split by user; Yes means 4 stars or more.

    \b
    Example:
      python scripts/prepare_movielens.py --input ml-1m
    """
    try:
        with Progress(console=Console(stderr=True)) as progress:
            counts = prepare(folder, output, per_user=per_user, seed=seed, progress=progress)
    except TunebookError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(2)
    for split, answers in counts.items():
        yes = answers[ANSWERS[0]] / answers.total()
        click.echo(f"{output / split}.json: {answers.total():,} rows, {yes:.3f} of them Yes")


if __name__ == "__main__":
    main()
