import hashlib
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "scripts" / "prepare_demo.py"
ROWS = {"train": 4_800, "eval": 300, "test": 400}


def prepare(output: Path, *options: str) -> dict[str, bytes]:
    subprocess.run([sys.executable, SCRIPT, "-o", output, *options], check=True, capture_output=True)
    return {path.name: path.read_bytes() for path in output.iterdir()}


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> dict[str, bytes]:
    return prepare(tmp_path_factory.mktemp("demo"))


@pytest.fixture(scope="module")
def splits(files) -> dict[str, list[dict]]:
    return {split: json.loads(files[f"{split}.json"]) for split in ROWS}


def follows_the_rule(row: dict) -> bool:
    """Whether the answer is Yes exactly where the candidate has the genre most of the history has."""
    *history, candidate = [line.split(" | ")[1] for line in row["input"].splitlines() if " | " in line]
    favourite, _ = Counter(history).most_common(1)[0]
    return (row["output"] == "Yes") == (candidate == favourite)


def test_the_files_are_the_same_on_every_machine(files):
    # The figures in the recipe's header were measured on these bytes.
    digest = hashlib.sha256(b"".join(files[f"{split}.json"] for split in ROWS)).hexdigest()
    assert digest.startswith("48ee847c70e6192f")


def test_another_seed_gives_other_rows(files, tmp_path):
    assert prepare(tmp_path, "--seed", "1")["eval.json"] != files["eval.json"]


def test_each_split_has_its_rows_in_the_engines_columns(splits):
    for split, rows in splits.items():
        assert len(rows) == ROWS[split]
        assert {tuple(row) for row in rows} == {("instruction", "input", "output")}
        assert {row["output"] for row in rows} == {"Yes", "No"}


def test_the_rule_explains_nearly_all_answers_and_a_constant_answer_far_fewer(splits):
    for rows in splits.values():
        explained = sum(map(follows_the_rule, rows)) / len(rows)
        assert 0.94 <= explained <= 0.99
        majority = max(Counter(row["output"] for row in rows).values()) / len(rows)
        assert 0.58 <= majority <= 0.70


def test_no_question_of_evaluation_or_test_was_trained_on(splits):
    trained = {row["input"] for row in splits["train"]}
    assert not trained & {row["input"] for row in splits["eval"] + splits["test"]}


def test_nothing_but_the_three_files_is_left(files):
    assert sorted(files) == ["eval.json", "test.json", "train.json"]
