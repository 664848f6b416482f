"""`tunebook bench` with the real LLaMA-Factory."""

import json
import os
import subprocess
import sys

import pytest
import yaml

pytestmark = pytest.mark.engine


def bench(recipe, *arguments, tmp_path):
    return subprocess.run(
        [sys.executable, "-m", "tunebook.cli.main", "bench", recipe, *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, "TMPDIR": str(tmp_path / "tmp")},
        timeout=300,
    )


def test_a_recipe_is_timed_and_nothing_is_left(recipe, tmp_path):
    (tmp_path / "tmp").mkdir()
    file = tmp_path / "recipe.yaml"
    file.write_text(yaml.safe_dump(recipe(output_dir=str(tmp_path / "output"), eval_on_start=True)))
    done = bench(file, "--steps", "6", "--warmup", "2", "--json", "--synthetic", tmp_path=tmp_path)
    assert done.returncode == 0, done.stderr
    (found,) = json.loads(done.stdout)
    assert (found["steps"], found["attention"], found["device"]) == (6, "sdpa", "cpu")
    # Batches of 8 rows, each of more than 20 tokens.
    assert found["tokens_per_second"] > 20 * found["rows_per_second"] > 0
    assert 0 <= found["loading_share"] < 1
    assert found["mfu"] is None
    assert found["flops_per_token"] > 0
    assert not (tmp_path / "output").exists()
    assert not list((tmp_path / "tmp").glob("tunebook-bench-*"))


def test_an_engine_that_fails_is_told_in_its_own_words(recipe, tmp_path):
    (tmp_path / "tmp").mkdir()
    file = tmp_path / "recipe.yaml"
    file.write_text(yaml.safe_dump(recipe(output_dir=str(tmp_path / "output"))))
    done = bench(file, "--attention", "fa9", tmp_path=tmp_path)
    assert done.returncode == 2
    assert "before its steps were made; it said last:" in done.stderr
    assert "fa9" in done.stderr
