"""What `tunebook data chunk` writes is read by the real LLaMA-Factory, as it is."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.engine

SENTENCE = "Anna saw a plum by the river, and Ben saw a brick. "


def test_pieces_train_as_answers_and_as_text(recipe, train_many, tiny, tmp_path):
    rows = [{"instruction": "Is it liked?", "input": SENTENCE * 20, "output": "Yes"}] * 4
    (tmp_path / "long.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    pieces = {}
    for form in ("same", "pretrain"):
        options = ["--max-tokens", "90", "--tokenizer", str(tiny), "--as", form, "--name", form]
        done = subprocess.run(
            [
                Path(sys.executable).parent / "tunebook",
                "data",
                "chunk",
                "long.jsonl",
                "-o",
                "out",
                "--json",
                *options,
            ],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=True,
        )
        pieces[form] = json.loads(done.stdout)["pieces"]
    common = {
        "dataset_dir": str(tmp_path / "out"),
        "eval_dataset": None,
        "eval_strategy": "no",
        "max_steps": 1,
    }
    same, text = train_many(
        [
            recipe(dataset="same", **common),
            recipe(dataset="pretrain", stage="pt", packing=False, **common),
        ]
    )
    assert same.code == 0, same.log[-3000:]
    assert text.code == 0, text.log[-3000:]
    assert f"Generating train split: {pieces['same']} examples" in same.log
    assert f"Generating train split: {pieces['pretrain']} examples" in text.log
