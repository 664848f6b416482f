import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from run_scripts import SCRIPTS, load_script, run_script
from tunebook.data.registry import data_files, load_registry
from tunebook.data.sources import reference_of

ROOT = Path(__file__).parents[1]
HARD = [
    ("Be brief.", 'She said "no", twice.', "NA"),
    ("", "null", "None\nand nan"),
    ("Réponds en français.", "Où est\r\nla gare ?", "À gauche, puis à droite.\n\n— voilà"),
    ("你是助手", "1,234 × 5?", "6,170"),
    ("  spaces are kept  ", "\ttabs too\t", "007"),
    ("=SUM(A1)", "a\u2028b", "<|im_end|>"),
]


def write_csv(
    path: Path, rows: list[tuple], header=("prompt", "question", "response"), encoding="utf-8"
) -> Path:
    with path.open("w", newline="", encoding=encoding) as stream:
        csv.writer(stream).writerows([header, *rows])
    return path


def prepare(path: Path, output: Path, *options: str) -> subprocess.CompletedProcess:
    return run_script("prepare_csv", "--input", path, "-o", output, *options)


def rows_of(output: Path) -> dict[str, list[dict]]:
    return {
        split: [json.loads(line) for line in (output / f"{split}.jsonl").read_bytes().split(b"\n")[:-1]]
        for split in ("train", "eval")
    }


def many(count: int) -> list[tuple]:
    return HARD + [("Be brief.", f"Question {number}?", f"Answer {number}.") for number in range(count)]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_every_field_is_kept_as_it_stands(tmp_path, encoding):
    path = write_csv(tmp_path / "in.csv", many(40), encoding=encoding)
    done = prepare(path, tmp_path / "out", "--eval-share", "0.3")
    assert done.returncode == 0, done.stderr
    splits = rows_of(tmp_path / "out")
    found = splits["train"] + splits["eval"]
    assert {tuple(row) for row in found} == {("system", "instruction", "input", "output")}
    texts = [(row["system"], row["instruction"], row["output"]) for row in found]
    assert sorted(texts) == sorted(many(40))
    assert {row["input"] for row in found} == {""}
    assert f"{tmp_path / 'out' / 'eval.jsonl'}: {len(splits['eval'])} rows" in done.stdout


def test_the_registry_reads_what_is_written(tmp_path):
    registry = tmp_path / "dataset_info.json"
    registry.write_bytes((ROOT / "datasets_info" / "dataset_info.json").read_bytes())
    assert prepare(write_csv(tmp_path / "in.csv", many(60)), tmp_path / "csv_chat").returncode == 0
    rows = rows_of(tmp_path / "csv_chat")
    for name, split in {"csv_chat": "train", "csv_chat_eval": "eval"}.items():
        entry = load_registry(registry).entry(name)
        assert data_files(entry) == [tmp_path / "csv_chat" / f"{split}.jsonl"]
        assert entry.values["columns"]["system"] == "system"
        assert [reference_of(row, entry) for row in rows[split]] == [row["output"] for row in rows[split]]


def test_a_seed_gives_one_split_whatever_the_order_and_answers_to_one_question_stay_together(tmp_path):
    rows = many(60) + [("Be brief.", f"Question {number}?", "Another answer.") for number in range(60)]
    assert prepare(write_csv(tmp_path / "a.csv", rows), tmp_path / "a", "--eval-share", "0.2").returncode == 0
    assert (
        prepare(write_csv(tmp_path / "b.csv", rows[::-1]), tmp_path / "b", "--eval-share", "0.2").returncode
        == 0
    )
    first, second = rows_of(tmp_path / "a"), rows_of(tmp_path / "b")
    assert second == {split: found[::-1] for split, found in first.items()}
    asked = {split: {row["instruction"] for row in found} for split, found in first.items()}
    assert not asked["train"] & asked["eval"]
    assert 10 <= len(asked["eval"]) <= 25
    options = ("--eval-share", "0.2", "--seed", "1")
    assert prepare(tmp_path / "a.csv", tmp_path / "c", *options).returncode == 0
    assert rows_of(tmp_path / "c")["eval"] != first["eval"]


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (("prompt", "question", "answer"), "no column 'response'; it has 'prompt', 'question', 'answer'"),
        (("Prompt", "question", "reply"), "no column 'prompt' and no column 'response'"),
        (("prompt;question;response", "a", "b"), "it has 'prompt;question;response', 'a', 'b'"),
    ],
)
def test_a_missing_column_is_named(tmp_path, header, message):
    done = prepare(write_csv(tmp_path / "in.csv", many(9), header=header), tmp_path / "out")
    assert done.returncode == 2
    assert message in done.stderr
    assert "fix: " in done.stderr
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("p,q\n", "row 13: has fewer fields than the header"),
        ("p,q,r,and more\n", ": a row of 4 fields under a header of 3"),
        ("p,q,\n", "1 of 13 rows have no response, the first is row 13"),
        ('p," \n",\n', "1 of 13 rows have no question, the first is row 13; 1 of 13 rows have no response"),
    ],
)
def test_a_bad_row_is_named_and_an_older_set_stays(tmp_path, line, message):
    path = write_csv(tmp_path / "in.csv", many(6))
    assert prepare(path, tmp_path / "out", "--eval-share", "0.4").returncode == 0
    before = rows_of(tmp_path / "out")
    with path.open("a") as stream:
        stream.write(line)
    done = prepare(path, tmp_path / "out", "--eval-share", "0.4")
    assert done.returncode == 2
    assert message in done.stderr
    assert rows_of(tmp_path / "out") == before
    assert sorted(found.name for found in (tmp_path / "out").iterdir()) == ["eval.jsonl", "train.jsonl"]


def test_rows_with_an_empty_text_can_be_left_out_and_are_counted(tmp_path):
    path = write_csv(tmp_path / "in.csv", [*many(30), ("p", "q", ""), ("p", "", "r")])
    done = prepare(path, tmp_path / "out", "--skip-empty", "--eval-share", "0.3")
    assert done.returncode == 0
    assert "left out: 2 rows with an empty text" in done.stderr
    assert sum(map(len, rows_of(tmp_path / "out").values())) == len(many(30))


def test_files_of_another_kind_are_refused(tmp_path):
    (tmp_path / "in.csv").write_bytes("prompt,question,response\né,b,c\n".encode("latin-1"))
    cases = {"in.csv": "is not UTF-8 text", "in.xlsx": "is no .csv file", "none.csv": "cannot be read"}
    for name, message in cases.items():
        done = prepare(tmp_path / name, tmp_path / "out")
        assert (done.returncode, message in done.stderr) == (2, True), done.stderr
    write_csv(tmp_path / "in.csv", [])
    done = prepare(tmp_path / "in.csv", tmp_path / "out")
    assert (done.returncode, "the train split has no rows" in done.stderr) == (2, True)


def test_the_hold_out_never_changes():
    # Somebody compares a run of this year with one of last year: this list is a promise, not a snapshot.
    split_of = load_script("split_files").split_of
    drawn = [split_of(str(number), eval_share=0.3, seed=0) for number in range(8)]
    assert [number for number, split in enumerate(drawn) if split == "eval"] == [4, 7]


FIELD = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=12)


@given(st.lists(st.tuples(FIELD, FIELD, FIELD), min_size=1, max_size=8))
@settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
def test_any_text_survives(tmp_path, rows):
    path = write_csv(tmp_path / "in.csv", rows)
    found = [
        (row["system"], row["instruction"], row["output"])
        for row in load_script("prepare_csv").alpaca_rows(path)
    ]
    assert found == rows


def test_the_script_starts_on_its_own():
    command = [sys.executable, SCRIPTS / "prepare_csv.py", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "--input" in done.stdout
    assert "Example:\n    python scripts/prepare_csv.py" in done.stdout
