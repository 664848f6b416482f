import json
import subprocess
import sys
from pathlib import Path

import pyarrow
import pytest
from pyarrow import parquet

from run_scripts import SCRIPTS, run_script
from tunebook.data.registry import data_files, load_registry

ROOT = Path(__file__).parents[1]
# Rows of GSM8K's form: calculator notes, a thousands comma, an accent, line ends that only Unicode has.
MAIN = {
    "train": [
        ("Natalia sold 48 clips. How many in all?", "48/2 = <<48/2=24>>24\n48+24 = <<48+24=72>>72\n#### 72"),
        ("What does Zoë pay?", "She pays 5 * $2,000 = $<<5*2000=10000>>10,000.\n#### 10,000"),
        ("A\u2028B 'quoted' \"twice\"?", "It falls to -3.\n#### -3"),
    ],
    "test": [("Janet has 16 eggs?", "16 - 3 = <<16-3=13>>13\n#### 13")],
}
SOCRATIC = {
    split: [(question, f"How many are there? ** {answer}") for question, answer in rows]
    for split, rows in MAIN.items()
}


def as_rows(pairs: list[tuple[str, str]]) -> list[dict[str, str]]:
    return [{"question": question, "answer": answer} for question, answer in pairs]


def hub_layout(folder: Path) -> Path:
    for variant, splits in {"main": MAIN, "socratic": SOCRATIC}.items():
        (folder / variant).mkdir(parents=True)
        for split, pairs in splits.items():
            path = folder / variant / f"{split}-00000-of-00001.parquet"
            parquet.write_table(pyarrow.Table.from_pylist(as_rows(pairs)), path)
    (folder / "README.md").write_text("license: mit\n")
    return folder


def checkout_layout(folder: Path) -> Path:
    data = folder / "grade_school_math" / "data"
    data.mkdir(parents=True)
    for ending, splits in {"": MAIN, "_socratic": SOCRATIC}.items():
        for split, pairs in splits.items():
            lines = [json.dumps(row) + "\n" for row in as_rows(pairs)]
            (data / f"{split}{ending}.jsonl").write_text("".join(lines))
    (data / "example_model_solutions.jsonl").write_text('{"question": "Not a row of the data"}\n')
    return folder


LAYOUTS = {"hub": hub_layout, "checkout": checkout_layout}


def prepare(folder: Path, output: Path) -> subprocess.CompletedProcess:
    return run_script("prepare_gsm8k", "--input", folder, "-o", output)


def lines_of(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n")[:-1]]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_both_publishers_layouts_give_the_rows_as_they_are(tmp_path, layout):
    done = prepare(LAYOUTS[layout](tmp_path / "in"), tmp_path / "out")
    assert done.returncode == 0, done.stderr
    for name, splits in {"gsm8k_main": MAIN, "gsm8k_socratic": SOCRATIC}.items():
        assert sorted(path.name for path in (tmp_path / "out" / name).iterdir()) == [
            "test.jsonl",
            "train.jsonl",
        ]
        for split, pairs in splits.items():
            assert lines_of(tmp_path / "out" / name / f"{split}.jsonl") == as_rows(pairs)
    assert "gsm8k_main/train.jsonl: 3 rows; as published it has 7,473" in done.stdout


def test_the_registry_finds_what_is_written(tmp_path):
    registry = tmp_path / "dataset_info.json"
    registry.write_bytes((ROOT / "datasets_info" / "dataset_info.json").read_bytes())
    assert prepare(hub_layout(tmp_path / "in"), tmp_path).returncode == 0
    entries = load_registry(registry)
    for name in ("gsm8k_main_local", "gsm8k_main_test_local", "gsm8k_socratic_local"):
        entry = entries.entry(name)
        columns = entry.values["columns"].values()
        assert all(set(columns) == set(row) for path in data_files(entry) for row in lines_of(path))


def test_the_files_are_what_the_hub_entries_name():
    entries = load_registry(ROOT / "datasets_info")
    for name in ("gsm8k_main", "gsm8k_main_test", "gsm8k_socratic"):
        hub, local = entries.entry(name).values, entries.entry(f"{name}_local").values
        assert local["file_name"] == f"gsm8k_{hub['subset']}/{hub['split']}.jsonl"
        assert {key: local.get(key) for key in ("columns", "metric")} == {
            key: hub.get(key) for key in ("columns", "metric")
        }


def test_a_variant_that_is_not_there_is_told_and_the_other_written(tmp_path):
    folder = checkout_layout(tmp_path / "in")
    (folder / "grade_school_math" / "data" / "test_socratic.jsonl").unlink()
    done = prepare(folder, tmp_path / "out")
    assert done.returncode == 0
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["gsm8k_main"]
    assert "holds no socratic variant with both splits" in done.stderr


@pytest.mark.parametrize(
    "answer",
    ["It is 5.", "It is 5.\n####", "It is 5.\n#### five or six", "#### 5\nIt is 5.", "It is 5. #### 5"],
)
def test_an_answer_without_its_number_is_named_and_nothing_is_written(tmp_path, answer):
    folder = checkout_layout(tmp_path / "in")
    with (folder / "grade_school_math" / "data" / "train.jsonl").open("a") as data:
        data.write(json.dumps({"question": "Q?", "answer": answer}) + "\n")
        data.write(json.dumps({"question": "Q?", "answer": None}) + "\n")
    done = prepare(folder, tmp_path / "out")
    assert done.returncode == 2
    assert "train.jsonl, row 4: the answer does not end in a line `#### N`" in done.stderr
    assert "train.jsonl, row 5: " in done.stderr
    assert list((tmp_path / "out" / "gsm8k_main").iterdir()) == []


def test_a_missing_column_or_folder_and_broken_files_are_named(tmp_path):
    done = prepare(tmp_path / "nowhere", tmp_path / "out")
    assert (done.returncode, "no such folder" in done.stderr) == (2, True)
    (tmp_path / "empty").mkdir()
    done = prepare(tmp_path / "empty", tmp_path / "out")
    assert (done.returncode, "holds no GSM8K with both splits" in done.stderr) == (2, True)
    folder = hub_layout(tmp_path / "in")
    file = folder / "main" / "test-00000-of-00001.parquet"
    parquet.write_table(pyarrow.Table.from_pylist([{"question": "Q?", "solution": "#### 1"}]), file)
    done = prepare(folder, tmp_path / "out")
    assert (done.returncode, "has no column 'answer'; it has 'question', 'solution'" in done.stderr) == (
        2,
        True,
    )
    file.write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    done = prepare(folder, tmp_path / "out")
    assert (done.returncode, "is no readable Parquet" in done.stderr) == (2, True)
    assert list((tmp_path / "out" / "gsm8k_main").iterdir()) == []


def test_a_second_run_replaces_the_files_and_gives_the_same_bytes(tmp_path):
    contents = []
    for name, layout in LAYOUTS.items():
        assert prepare(layout(tmp_path / name), tmp_path / "out").returncode == 0
        contents.append({path: path.read_bytes() for path in (tmp_path / "out").rglob("*.jsonl")})
    assert len(contents[0]) == 4
    assert contents[0] == contents[1]


def test_the_script_starts_on_its_own():
    command = [sys.executable, SCRIPTS / "prepare_gsm8k.py", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "--input" in done.stdout
    assert "Example:\n    python scripts/prepare_gsm8k.py" in done.stdout
