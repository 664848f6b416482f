import json
import random
import re
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "scripts" / "prepare_movielens.py"
USERS = range(1, 81)
FILMS_PER_USER = 20
HISTORY = 15
OUTPUTS = ("eval.json", "test.json", "test_raw.jsonl", "train.json")


def title(user: int, film: int) -> str:
    """Every film is one user's own, so that a row tells whose it is. An accent and a comma are hard cases."""
    return f"Léon {user}, the {film}th (1994)"


def stars(user: int, film: int) -> float:
    return (1, 2, 3, 3.5, 4, 4.5, 5)[(user + film) % 7]


def write_sample(folder: Path, layout: str) -> Path:
    """The same ratings in either layout: lines by user and film, times in another order than films."""
    folder.mkdir()
    movies, ratings = [], []
    for user in USERS:
        watched = list(range(FILMS_PER_USER))
        random.Random(user).shuffle(watched)
        for film in range(FILMS_PER_USER):
            movie = user * 100 + film
            genres = "Crime|Drama" if film else "(no genres listed)"
            movies.append((movie, title(user, film), genres))
            ratings.append((user, movie, stars(user, film), 10_000 + watched.index(film)))
    if layout == "csv":
        lines = [f'{movie},"{name}",{genres}' for movie, name, genres in movies]
        (folder / "movies.csv").write_text("\r\n".join(["movieId,title,genres", *lines, ""]), "utf-8")
        lines = [",".join(map(str, rating)) for rating in ratings]
        (folder / "ratings.csv").write_text("\n".join(["userId,movieId,rating,timestamp", *lines, ""]))
    else:
        lines = ["::".join(map(str, movie)) for movie in movies]
        (folder / "movies.dat").write_text("\n".join([*lines, ""]), "latin-1")
        lines = ["::".join(map(str, rating)) for rating in ratings]
        (folder / "ratings.dat").write_text("\n".join([*lines, ""]))
    return folder


def prepare(folder: Path, output: Path, *options: str) -> subprocess.CompletedProcess:
    command = [sys.executable, SCRIPT, "--input", folder, "-o", output, *options]
    return subprocess.run(command, capture_output=True, text=True)


def whose(row: dict) -> int:
    return int(re.search(r"Léon (\d+),", row["input"])[1])


@pytest.fixture(scope="module")
def prepared(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("movielens")
    done = prepare(write_sample(root / "ml", "csv"), root / "out")
    assert done.returncode == 0, done.stderr
    return root / "out"


@pytest.fixture
def sample(tmp_path) -> Path:
    return write_sample(tmp_path / "ml", "csv")


def rows_of(folder: Path) -> dict[str, list[dict]]:
    return {split: json.loads((folder / f"{split}.json").read_text()) for split in ("train", "eval", "test")}


def test_both_layouts_and_a_second_run_give_the_same_bytes(prepared, tmp_path):
    assert sorted(path.name for path in prepared.iterdir()) == list(OUTPUTS)
    for layout in ("csv", "dat"):
        folder = write_sample(tmp_path / layout, layout)
        assert prepare(folder, tmp_path / f"out_{layout}").returncode == 0
        for name in OUTPUTS:
            assert (tmp_path / f"out_{layout}" / name).read_bytes() == (prepared / name).read_bytes()


def test_no_user_is_in_two_splits_and_each_gives_all_the_rows_it_can(prepared):
    users = {split: [whose(row) for row in rows] for split, rows in rows_of(prepared).items()}
    apart = [set(found) for found in users.values()]
    assert set.union(*apart) == set(USERS)
    assert sum(map(len, apart)) == len(USERS)
    assert sum(map(len, users.values())) == len(USERS) * (FILMS_PER_USER - HISTORY)


def test_the_history_is_the_fifteen_films_before_the_candidate_in_time(prepared):
    rows = [row for rows in rows_of(prepared).values() for row in rows if whose(row) == 7]
    order = list(range(FILMS_PER_USER))
    random.Random(7).shuffle(order)
    for position, row in enumerate(rows, HISTORY):
        films = [int(film) for film in re.findall(r"the (\d+)th", row["input"])]
        assert films == order[position - HISTORY : position + 1]
        assert row["output"] == ("Yes" if stars(7, films[-1]) >= 4 else "No")


def test_genres_are_written_out_and_none_are_invented(prepared):
    text = rows_of(prepared)["train"][0]["input"]
    assert re.search(r"\d, the [1-9]\d*th \(1994\) \| Crime, Drama\n", text)
    assert re.search(r"the 0th \(1994\)(\n|$)", text)


def test_the_raw_test_file_asks_the_same_questions_as_the_test_file(prepared):
    lines = [json.loads(line) for line in (prepared / "test_raw.jsonl").read_text().splitlines()]
    rows = rows_of(prepared)["test"]
    assert [line["label"] for line in lines] == [row["output"] for row in rows]
    assert [line["user_id"] for line in lines] == [whose(row) for row in rows]
    for line, row in zip(lines, rows, strict=True):
        titles = [*line["history_titles"], line["candidate_title"]]
        assert titles == re.findall(r"Léon .*? \(1994\)", row["input"])


def test_one_users_share_can_be_limited_and_stays_spread_over_time(sample, tmp_path):
    assert prepare(sample, tmp_path / "out", "--per-user", "2").returncode == 0
    rows = [row for rows in rows_of(tmp_path / "out").values() for row in rows if whose(row) == 7]
    order = list(range(FILMS_PER_USER))
    random.Random(7).shuffle(order)
    candidates = [int(re.findall(r"the (\d+)th", row["input"])[-1]) for row in rows]
    assert candidates == [order[15], order[17]]


def break_ratings(folder: Path, number: int, line: str) -> None:
    lines = (folder / "ratings.csv").read_text().splitlines()
    lines[number - 1] = line
    (folder / "ratings.csv").write_text("\n".join(lines) + "\n")


@pytest.mark.parametrize(
    ("number", "line", "message"),
    [
        (5, "1,104,4.0", "ratings.csv:5: not of the form"),
        (6, "1,105,four,1", "ratings.csv:6: not of the form"),
        (7, "1,106,nan,1", "ratings.csv:7: not of the form"),
        (8, "1,107,50,1", "ratings.csv:8: not of the form"),
        (9, "1,9999999,4.0,99999", "user 1 rated movie 9999999, which the movies file does not have"),
        (900, "1,101,4.0,1", "the lines of user 1 do not stand together"),
    ],
)
def test_a_bad_line_is_named_and_nothing_is_written(sample, tmp_path, number, line, message):
    break_ratings(sample, number, line)
    done = prepare(sample, tmp_path / "out")
    assert done.returncode == 2
    assert message in done.stderr
    assert "fix: " in done.stderr
    assert list((tmp_path / "out").iterdir()) == []


def test_a_bad_film_is_named_by_its_line(sample, tmp_path):
    with (sample / "movies.csv").open("a") as movies:
        movies.write("77,No genres column\n")
    done = prepare(sample, tmp_path / "out")
    assert done.returncode == 2
    assert f"movies.csv:{len(USERS) * FILMS_PER_USER + 2}: not of the form" in done.stderr


def test_a_missing_file_or_folder_is_named(sample, tmp_path):
    (sample / "movies.csv").unlink()
    done = prepare(sample, tmp_path / "out")
    assert (done.returncode, "lacks movies.csv" in done.stderr) == (2, True)
    done = prepare(tmp_path / "nowhere", tmp_path / "out")
    assert (done.returncode, "no such folder" in done.stderr) == (2, True)
    (tmp_path / "empty").mkdir()
    done = prepare(tmp_path / "empty", tmp_path / "out")
    assert (done.returncode, "is no MovieLens folder" in done.stderr) == (2, True)


def test_a_set_too_small_for_three_splits_is_refused_not_half_written(sample, tmp_path):
    lines = (sample / "ratings.csv").read_text().splitlines()
    (sample / "ratings.csv").write_text("\n".join(lines[: 1 + FILMS_PER_USER]) + "\n")
    done = prepare(sample, tmp_path / "out")
    assert (done.returncode, "no user of the" in done.stderr) == (2, True)
    assert list((tmp_path / "out").iterdir()) == []
