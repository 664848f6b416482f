"""`tunebook data chunk` from outside: files in, a data file and its registry entry out."""

import csv
import json
import subprocess
import sys

import pytest
from click.testing import CliRunner

from token_files import byte_level
from tunebook.cli.main import data
from tunebook.errors import TunebookError
from tunebook.lengths.chunks import documents

LONG = "The court finds that the plaintiff did not pay.\n\n" * 40


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    byte_level(tmp_path / "tokenizer.json")
    (tmp_path / "data").mkdir()
    rows = [
        {"question": "Summarise.", "document": LONG, "answer": "No rent.", "id": 7, "tags": ["a"]},
        {"question": "Summarise.", "document": "Short, with \"quotes\" and\nlines. 漢字", "answer": "Short.", "id": 8},
        {"question": "Summarise.", "document": "", "answer": "Nothing.", "id": 9},
    ]  # fmt: skip
    (tmp_path / "data" / "cases.jsonl").write_text("\n".join(json.dumps(row) for row in rows) + "\n\n")
    columns = {"prompt": "question", "query": "document", "response": "answer"}
    entry = {"file_name": "cases.jsonl", "columns": columns, "metric": "rouge", "num_samples": 9}
    (tmp_path / "data" / "dataset_info.json").write_text(json.dumps({"cases": entry}))
    return tmp_path


def run(*arguments):
    fixed = ["--tokenizer", "tokenizer.json", "--dataset-dir", "data", "--max-tokens", "60"]
    result = CliRunner().invoke(data, ["chunk", *arguments, *fixed])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def rows_of(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_each_row_keeps_its_other_columns_and_says_where_it_is_from(place):
    done = json.loads(run("cases", "-o", "out", "--overlap", "20", "--json").stdout)
    rows = rows_of(place / "out" / "cases_chunks.jsonl")
    first = [row for row in rows if row["source_row"] == 1]
    assert done["rows"] == 3
    assert done["cut"] == 1
    assert done["pieces"] == len(rows) == len(first) + 2
    assert done["longest"] <= 60
    assert done["column"] == "document"
    assert {(row["question"], row["answer"], row["id"], *row["tags"]) for row in first} == {
        ("Summarise.", "No rent.", 7, "a")
    }
    assert "".join(row["document"][row["source_overlap"] :] for row in first) == LONG
    assert all(row["document"] == LONG[row["source_start"] : row["source_end"]] for row in first)
    assert any(row["source_overlap"] for row in first)


def test_the_new_entry_has_the_same_columns_and_metric(place):
    run("cases", "-o", "out", "--name", "pieces")
    assert json.loads((place / "out" / "dataset_info.json").read_text()) == {
        "pieces": {
            "file_name": "pieces.jsonl",
            "columns": {"prompt": "question", "query": "document", "response": "answer"},
            "metric": "rouge",
        }
    }
    assert sorted(path.name for path in (place / "out").iterdir()) == ["dataset_info.json", "pieces.jsonl"]


def test_a_registry_that_is_there_keeps_its_entries(place):
    run("cases", "-o", "data")
    assert list(json.loads((place / "data" / "dataset_info.json").read_text())) == ["cases", "cases_chunks"]


def test_pretraining_gets_text_and_no_answer(place):
    run("cases", "-o", "out", "--as", "pretrain")
    rows = rows_of(place / "out" / "cases_chunks.jsonl")
    assert set(rows[0]) == {"text", "source_row", "source_start", "source_end", "source_overlap"}
    assert {row["source_row"] for row in rows} == {1, 2}
    entry = json.loads((place / "out" / "dataset_info.json").read_text())["cases_chunks"]
    assert entry == {"file_name": "cases_chunks.jsonl", "columns": {"prompt": "text"}}


def test_csv_and_parquet_are_cut_as_well(place):
    import pyarrow
    from pyarrow import parquet

    rows = [{"instruction": "Say.", "input": LONG, "output": 'a "b",\nc'}] * 2
    with (place / "rows.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    parquet.write_table(pyarrow.Table.from_pylist(rows), place / "rows.parquet")
    run("rows.csv", "-o", "a", "--name", "x")
    run("rows.parquet", "-o", "b", "--name", "x")
    assert (place / "a" / "x.jsonl").read_bytes() == (place / "b" / "x.jsonl").read_bytes()
    assert rows_of(place / "a" / "x.jsonl")[0]["output"] == 'a "b",\nc'


def test_nothing_is_left_when_a_row_in_the_middle_is_broken(place):
    with (place / "data" / "cases.jsonl").open("a") as stream:
        stream.write('{"question": 1, "document": ')
    with pytest.raises(TunebookError, match="line 5: is no JSON"):
        run("cases", "-o", "out")
    assert not (place / "out").exists()


def test_nothing_is_left_when_the_disk_is_full(place, monkeypatch):
    def full(row):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(documents, "_line", full)
    with pytest.raises(TunebookError, match="No space left on device"):
        run("cases", "-o", "out")
    assert not (place / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["cases", "-o", "data", "--name", "cases"], "already has cases.jsonl"),
        (["case", "-o", "out"], "no dataset 'case'"),
        (["cases", "-o", "out", "--column", "documents"], "row 1 has no column 'documents'"),
        (["cases", "-o", "out", "--column", "id"], "row 1: 'id' is a int, not text"),
        (["cases", "-o", "tokenizer.json"], "is a file"),
        (["tokenizer.json", "-o", "out"], "unclear which of its columns"),
    ],
)
def test_wrong_use_is_refused(place, arguments, message):
    with pytest.raises(TunebookError, match=message):
        run(*arguments)


def test_pieces_are_not_cut_again(place):
    run("cases", "-o", "out")
    with pytest.raises(TunebookError, match="is a piece of a document"):
        run("out/cases_chunks.jsonl", "-o", "out2")


def test_half_a_character_is_reported_with_its_row(place):
    (place / "x.jsonl").write_text('{"text": "fine"}\n{"text": "\\ud83d half"}\n')
    with pytest.raises(TunebookError, match="line 2: is no JSON: it holds half a character"):
        run("x.jsonl", "-o", "out")


def test_an_overlap_of_more_than_half_is_refused(place):
    assert run("cases", "-o", "out", "--overlap", "31").exit_code == 2
    assert not (place / "out").exists()


def test_the_tokenizer_of_a_recipe_is_its_models(place):
    (place / "recipe.yaml").write_text(f"model_name_or_path: {place}\n")
    arguments = ["chunk", "cases", "-o", "out", "--max-tokens", "60", "--dataset-dir", "data"]
    result = CliRunner().invoke(data, [*arguments, "--recipe", "recipe.yaml"])
    assert result.exit_code == 0, result.output
    run("cases", "-o", "out2")
    same = [(place / folder / "cases_chunks.jsonl").read_bytes() for folder in ("out", "out2")]
    assert same[0] == same[1]


def test_a_killed_command_leaves_nothing_that_looks_finished(place):
    """An entry in the registry means that its data is whole."""
    row = {"question": "Summarise.", "document": LONG * 10, "answer": "No rent."}
    (place / "data" / "cases.jsonl").write_text((json.dumps(row) + "\n") * 80)
    whole = None
    for number, seconds in enumerate((0.35, 0.55, 60)):
        out = place / f"out{number}"
        command = ["-m", "tunebook.cli.main", "data", "chunk", "cases", "--dataset-dir", "data"]
        options = ["--tokenizer", "tokenizer.json", "--max-tokens", "60", "-o", str(out)]
        process = subprocess.Popen(
            [sys.executable, *command, *options], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if (out / "cases_chunks.jsonl").exists():
            content = (out / "cases_chunks.jsonl").read_bytes()
            assert whole in (None, content)
            whole = content
        else:
            assert not (out / "dataset_info.json").exists()
    assert whole is not None
