import json
import subprocess
import sys
from pathlib import Path

import pyarrow
import pytest
from pyarrow import parquet

from run_scripts import SCRIPTS, run_script
from tunebook.data.registry import data_files, load_registry
from tunebook.data.sources import reference_of

ROOT = Path(__file__).parents[1]
ROWS = 40


def document(number: int) -> str:
    return f'Case {number}: "Müller v. NA",\r\n\n' + f"Paragraph of case {number}. " * (number + 1)


def summary(number: int) -> str:
    return f"The court found for Müller ({number}).\nnull"


PAIRS = [(document(number), summary(number)) for number in range(ROWS)]


def write_table(path: Path, rows: list[dict]) -> Path:
    if path.suffix == ".parquet":
        # Several row groups, as large sets have.
        parquet.write_table(pyarrow.Table.from_pylist(rows), path, row_group_size=7)
    elif path.suffix == ".csv":
        import csv

        with path.open("w", newline="", encoding="utf-8-sig") as stream:
            writer = csv.DictWriter(stream, rows[0])
            writer.writeheader()
            writer.writerows(rows)
    elif path.suffix == ".json":
        path.write_text(json.dumps(rows, indent=1))
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def write_texts(folder: Path, pairs, names=("judgement", "summary")) -> Path:
    for name, texts in zip(names, zip(*pairs, strict=True), strict=True):
        (folder / name).mkdir(parents=True)
        for number, text in enumerate(texts):
            (folder / name / f"{number}.txt").write_bytes(text.encode())
    return folder


def prepare(source: Path, output: Path, *options: str) -> subprocess.CompletedProcess:
    return run_script(
        "prepare_long_documents", "--input", source, "-o", output, "--eval-share", "0.2", *options
    )


def rows_of(output: Path) -> dict[str, list[dict]]:
    return {
        split: [json.loads(line) for line in (output / f"{split}.jsonl").read_bytes().split(b"\n")[:-1]]
        for split in ("train", "eval")
    }


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".csv", ".parquet"])
def test_a_table_gives_every_pair_as_it_stands(tmp_path, suffix):
    rows = [{"id": number, "text": pair[0], "gold": pair[1]} for number, pair in enumerate(PAIRS)]
    source = write_table(tmp_path / f"in{suffix}", rows)
    done = prepare(
        source, tmp_path / "out", "--document", "text", "--summary", "gold", "--instruction", "Sum up."
    )
    assert done.returncode == 0, done.stderr
    found = rows_of(tmp_path / "out")
    together = found["train"] + found["eval"]
    assert {tuple(row) for row in together} == {("instruction", "input", "output")}
    assert {row["instruction"] for row in together} == {"Sum up."}
    assert sorted((row["input"], row["output"]) for row in together) == sorted(PAIRS)
    assert 2 <= len(found["eval"]) <= 16


def test_every_kind_of_source_gives_the_same_split(tmp_path):
    columns = ("--document", "judgement", "--summary", "summary")
    rows = [{"judgement": text, "summary": short} for text, short in PAIRS]
    (tmp_path / "shards").mkdir()
    write_table(tmp_path / "shards" / "train-00000-of-00002.parquet", rows[:25])
    write_table(tmp_path / "shards" / "train-00001-of-00002.parquet", rows[25:])
    (tmp_path / "shards" / "README.md").write_text("not data")
    sources = [
        write_table(tmp_path / "in.jsonl", rows),
        tmp_path / "shards",
        write_texts(tmp_path / "texts", PAIRS),
    ]
    for number, source in enumerate(sources):
        done = prepare(source, tmp_path / str(number), *columns)
        assert done.returncode == 0, done.stderr
    contents = [rows_of(tmp_path / str(number)) for number in range(len(sources))]
    assert contents[0] == contents[1]
    # Text files come by name, "10" before "2".
    for split in ("train", "eval"):
        ordered = [sorted(rows[split], key=lambda row: row["input"]) for rows in contents]
        assert ordered[0] == ordered[2]


def test_another_instruction_leaves_every_document_where_it_is(tmp_path):
    source = write_table(tmp_path / "in.jsonl", [{"document": a, "summary": b} for a, b in PAIRS])
    for instruction in ("Sum up.", "In one line."):
        assert prepare(source, tmp_path / instruction, "--instruction", instruction).returncode == 0
    held_out = [
        [row["input"] for row in rows_of(tmp_path / instruction)["eval"]]
        for instruction in ("Sum up.", "In one line.")
    ]
    assert held_out[0] == held_out[1]


def test_the_lengths_are_told_in_characters(tmp_path):
    rows = [{"document": "é" * length, "summary": "s"} for length in range(1, 101)]
    done = prepare(write_table(tmp_path / "in.jsonl", rows), tmp_path / "out")
    assert "documents, in characters: shortest 1, median 50, 95 % within 95, longest 100" in done.stdout
    assert "summaries, in characters: shortest 1, median 1, 95 % within 1, longest 1" in done.stdout


def test_several_documents_of_one_row_are_joined(tmp_path):
    rows = [{"document": [f"first {n}", "second"], "summary": "s"} for n in range(ROWS)]
    for suffix in (".jsonl", ".parquet"):
        done = prepare(write_table(tmp_path / f"in{suffix}", rows), tmp_path / suffix)
        assert done.returncode == 0, done.stderr
        assert rows_of(tmp_path / suffix)["train"][0]["input"].endswith("\n\nsecond")


def test_the_same_document_is_never_on_both_sides(tmp_path):
    rows = [{"document": document(number % 20), "summary": f"Summary {number}."} for number in range(200)]
    assert prepare(write_table(tmp_path / "in.jsonl", rows), tmp_path / "out").returncode == 0
    sides = {split: {row["input"] for row in found} for split, found in rows_of(tmp_path / "out").items()}
    assert not sides["train"] & sides["eval"]


def test_the_registry_reads_what_is_written(tmp_path):
    registry = tmp_path / "dataset_info.json"
    registry.write_bytes((ROOT / "datasets_info" / "dataset_info.json").read_bytes())
    rows = [{"document": text, "summary": short} for text, short in PAIRS]
    assert prepare(write_table(tmp_path / "in.jsonl", rows), tmp_path / "legal_summaries").returncode == 0
    found = rows_of(tmp_path / "legal_summaries")
    for name, split in {"legal_summaries": "train", "legal_summaries_eval": "eval"}.items():
        entry = load_registry(registry).entry(name)
        assert data_files(entry) == [tmp_path / "legal_summaries" / f"{split}.jsonl"]
        assert [reference_of(row, entry) for row in found[split]] == [row["output"] for row in found[split]]


def test_a_row_without_a_text_is_named_or_left_out(tmp_path):
    rows = [{"document": text, "summary": short} for text, short in PAIRS]
    rows[4]["summary"], rows[6]["summary"], rows[7]["document"] = None, " \n", ""
    source = write_table(tmp_path / "in.parquet", rows)
    done = prepare(source, tmp_path / "out")
    assert done.returncode == 2
    assert "1 of 40 rows have no document, the first is row 8" in done.stderr
    assert "2 of 40 rows have no summary, the first is row 5" in done.stderr
    assert list((tmp_path / "out").iterdir()) == []
    done = prepare(source, tmp_path / "out", "--skip-empty")
    assert done.returncode == 0
    assert "left out: 3 rows" in done.stderr
    assert sum(map(len, rows_of(tmp_path / "out").values())) == ROWS - 3


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"text": "d", "summary": "s"}], "has no column 'document'; it has 'text', 'summary'"),
        ([{"document": {"a": "b"}, "summary": "s"}], "row 1: 'document' holds"),
        ([{"document": "d", "summary": 5}], "row 1: 'summary' holds 5, which is no text"),
        ([{"document": "d", "summary": "\ud83d"}] * 9, "half a character"),
        ([{"document": "d", "summary": "s"}], "split has no rows"),
    ],
)
def test_a_source_of_another_form_is_named_and_nothing_is_written(tmp_path, rows, message):
    done = prepare(write_table(tmp_path / "in.jsonl", rows), tmp_path / "out", "--seed", "1")
    assert done.returncode == 2
    assert message in done.stderr
    assert "fix: " in done.stderr
    assert list((tmp_path / "out").iterdir()) == []


def test_a_text_file_without_a_partner_is_named(tmp_path):
    folder = write_texts(tmp_path / "texts", PAIRS, ("document", "summary"))
    (folder / "summary" / "7.txt").unlink()
    done = prepare(folder, tmp_path / "out")
    assert (done.returncode, f"the first is {folder / 'document' / '7.txt'}" in done.stderr) == (2, True)
    (folder / "summary" / "7.txt").write_text("Found.")
    (folder / "document" / "3.txt").unlink()
    done = prepare(folder, tmp_path / "out")
    assert (done.returncode, f"the first is {folder / 'summary' / '3.txt'}" in done.stderr) == (2, True)
    (folder / "summary").rename(folder / "gold")
    done = prepare(folder, tmp_path / "out")
    assert (done.returncode, "no such folder" in done.stderr) == (2, True)


def test_an_empty_folder_and_a_file_of_another_kind_are_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    done = prepare(tmp_path / "empty", tmp_path / "out")
    assert (done.returncode, "holds no data files" in done.stderr) == (2, True)
    (tmp_path / "in.pdf").write_bytes(b"%PDF")
    done = prepare(tmp_path / "in.pdf", tmp_path / "out")
    assert (done.returncode, "its name ends in '.pdf'" in done.stderr) == (2, True)


def test_the_script_starts_on_its_own():
    command = [sys.executable, SCRIPTS / "prepare_long_documents.py", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "--input" in done.stdout
    assert "Example:\n    python scripts/prepare_long_documents.py" in done.stdout
