"""How a recommendation question is put to a model: the wording that the demo and MovieLens share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

INSTRUCTION = "Will the user like the candidate movie? Answer Yes or No."
WATCHED = "Movies the user has watched, oldest first:"
CANDIDATE = "Candidate movie:"
ANSWERS = ("Yes", "No")


class Film(NamedTuple):
    """One film as it stands in a prompt."""

    title: str
    """With the year, as MovieLens writes it: `Toy Story (1995)`."""
    genres: tuple[str, ...]


def film_line(film: Film) -> str:
    """A film with its genres, on one line.

    >>> film_line(Film("Toy Story (1995)", ("Animation", "Comedy")))
    'Toy Story (1995) | Animation, Comedy'
    """
    return f"{film.title} | {', '.join(film.genres)}" if film.genres else film.title


def alpaca_row(history: Sequence[Film], candidate: Film, *, liked: bool) -> dict[str, str]:
    """One training row: instruction, input, and the output `Yes` or `No`.

    Args:
        history: The films watched, oldest first; at least one.
        candidate: The film in question.
        liked: The answer.
    """
    watched = "\n".join(film_line(film) for film in history)
    return {
        "instruction": INSTRUCTION,
        "input": f"{WATCHED}\n{watched}\n{CANDIDATE}\n{film_line(candidate)}",
        "output": ANSWERS[0] if liked else ANSWERS[1],
    }
