"""The files of a MovieLens folder, read film by film and rating by rating."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from movie_prompts import Film
from tunebook.errors import TunebookError

NO_GENRES = "(no genres listed)"


class Layout(NamedTuple):
    """How one generation of MovieLens files is written."""

    ratings: str
    movies: str
    separator: str
    has_header: bool


LAYOUTS = (
    Layout("ratings.csv", "movies.csv", ",", has_header=True),
    Layout("ratings.dat", "movies.dat", "::", has_header=False),
)


class Rating(NamedTuple):
    """One line of the ratings file; ordered by time, then by film where times are equal."""

    timestamp: int
    """Seconds since 1970."""
    movie: int
    stars: float
    """0.5 to 5."""
    user: int


def find_layout(folder: Path) -> Layout:
    """Tell the layout of a MovieLens folder by its files.

    Raises:
        TunebookError: The folder is missing, or holds no layout whole.
    """
    if not folder.is_dir():
        raise TunebookError(f"no such folder: {folder}", fix="give --input the unpacked MovieLens folder")
    for layout in LAYOUTS:
        if (folder / layout.ratings).is_file() and (folder / layout.movies).is_file():
            return layout
    missing = [
        name
        for layout in LAYOUTS
        if (folder / layout.ratings).is_file() or (folder / layout.movies).is_file()
        for name in (layout.ratings, layout.movies)
        if not (folder / name).is_file()
    ]
    wanted = " or ".join(f"{layout.ratings} with {layout.movies}" for layout in LAYOUTS)
    raise TunebookError(
        f"{folder} lacks {' and '.join(missing)}" if missing else f"{folder} is no MovieLens folder",
        fix=f"give --input a folder that holds {wanted}",
    )


def read_movies(path: Path, layout: Layout) -> dict[int, Film]:
    """Read every film by its id.

    Raises:
        TunebookError: A line is not of the layout; it is named by its number.
    """
    content = path.read_bytes()
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        # ml-1m is Latin-1, every other set UTF-8. Latin-1's accented letters are not valid UTF-8.
        text = content.decode("latin-1")
    films = {}
    for number, fields in _movie_lines(text, layout):
        try:
            movie, title, genres = fields
            names = () if genres in ("", NO_GENRES) else tuple(genres.split("|"))
            films[int(movie)] = Film(title, names)
        except ValueError as err:
            raise _bad_line(path, number, "movie, title, genres", layout) from err
    return films


def _movie_lines(text: str, layout: Layout) -> Iterator[tuple[int, list[str]]]:
    """The fields of each line that is not empty, with the number of the line."""
    if layout.has_header:
        # Titles with a comma are quoted.
        reader = csv.reader(io.StringIO(text, newline=""))
        next(reader, None)
        yield from ((reader.line_num, fields) for fields in reader if fields)
    else:
        # Not splitlines: it also splits at characters such as \x85, which Latin-1 may hold in a title.
        lines = enumerate(text.replace("\r\n", "\n").split("\n"), 1)
        yield from ((number, line.split(layout.separator)) for number, line in lines if line)


def read_ratings(path: Path, layout: Layout, on_bytes: Callable[[int], None]) -> Iterator[Rating]:
    """Read the ratings one by one, in the file's order.

    Args:
        path: The ratings file.
        layout: Its layout.
        on_bytes: Called now and then with the bytes read so far, to show progress.

    Raises:
        TunebookError: A line is not of the layout, or its rating is not from 0.5 to 5.
    """
    separator = layout.separator.encode()
    with path.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            if number % 20_000 == 0:
                on_bytes(lines.tell())
            if number == 1 and layout.has_header:
                continue
            fields = line.strip().split(separator)
            if fields == [b""]:
                continue
            try:
                user, movie, stars, timestamp = fields
                rating = Rating(int(timestamp), int(movie), float(stars), int(user))
                if not 0.5 <= rating.stars <= 5:
                    raise ValueError(stars)
            except ValueError as err:
                raise _bad_line(path, number, "user, movie, rating from 0.5 to 5, timestamp", layout) from err
            yield rating
        on_bytes(lines.tell())


def _bad_line(path: Path, number: int, wanted: str, layout: Layout) -> TunebookError:
    return TunebookError(
        f"{path}:{number}: not of the form {wanted}, separated by {layout.separator!r}",
        fix="mend or remove the line, or unpack the download again",
    )
