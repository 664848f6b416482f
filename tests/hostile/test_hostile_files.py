"""Files that mean harm, or are broken: one clear error, in no time, and nothing written elsewhere."""

import json

import pytest
from click.testing import CliRunner

from tunebook import paths
from tunebook.checks.run import check_recipe
from tunebook.cli.data_chunk import chunk
from tunebook.cli.data_filter import filter_rows
from tunebook.data.registry import load_registry
from tunebook.errors import TunebookError
from tunebook.recipes.engine_yaml import parse_mapping

LAUGHS = "a: &a [1,1,1,1,1,1,1,1,1]\n" + "".join(
    f"{name}: &{name} [{','.join(f'*{before}' for _ in range(9))}]\n"
    for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)
RECIPE = "model_name_or_path: Qwen/Qwen3-0.6B\nstage: sft\ndo_train: true\n"


@pytest.mark.parametrize("engine", ["llamafactory", "axolotl"])
@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (LAUGHS + RECIPE, "unfolds to more than 100,000 values"),
        ("x: &x [*x]\n" + RECIPE, "an alias that holds itself"),
        ("x: &x {y: *x}\n" + RECIPE, "an alias that holds itself"),
        ("x: " + "[" * 20_000, "brackets|expected|flow|is no YAML|not YAML"),
    ],
)
def test_a_yaml_bomb_is_an_error_at_once(tmp_path, monkeypatch, engine, text, problem):
    with pytest.raises(TunebookError, match=problem):
        parse_mapping(text, engine, source="x.yaml")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.yaml").write_text(text)
    found = check_recipe("x.yaml", paths.home()).result
    assert [finding.rule for finding in found.errors] == ["yaml-syntax"]


def test_an_alias_that_is_used_a_few_times_is_fine():
    text = RECIPE + "a: &a {b: 1}\nc: *a\nd: [*a, *a]\n"
    assert parse_mapping(text, "axolotl", source="x")["d"] == [{"b": 1}, {"b": 1}]


@pytest.mark.parametrize(
    "text", ["x: [[[[", "a\0b", "a: 1\n---\nb: 2\n", "- a\n- b\n", "only words", "", "   \n", "# nothing\n"]
)
def test_what_is_no_recipe_is_an_error_of_check(tmp_path, monkeypatch, text):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.yaml").write_text(text)
    assert check_recipe("x.yaml", paths.home()).result.errors


def test_a_recipe_on_one_line_is_known_as_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.yaml").write_text(json.dumps({"model_name_or_path": "m", "stage": "sft", "cutof_len": 5}))
    assert "unknown-key" in {finding.rule for finding in check_recipe("x.yaml", paths.home()).result.findings}


NAMES = ["../../x", "/abs/x", "a/b", "a\\b", "..", "a\x1b[2J", "a\nb", "é" * 101]


@pytest.mark.parametrize("name", NAMES)
def test_a_dataset_is_not_named_as_a_path(tmp_path, monkeypatch, name):
    inside = tmp_path / "a" / "b"
    inside.mkdir(parents=True)
    monkeypatch.chdir(inside)
    (inside / "rows.json").write_text(json.dumps([{"instruction": "one two", "input": "", "output": "x"}]))
    (inside / "dataset_info.json").write_text(json.dumps({name: {"file_name": "rows.json"}}))
    with pytest.raises(TunebookError, match="files are named after it"):
        load_registry(inside).entry(name)
    before = sorted(path for path in tmp_path.rglob("*"))
    for command, more in (
        (filter_rows, ["--max-chars", "5"]),
        (chunk, ["--max-tokens", "64", "--tokenizer", "."]),
    ):
        done = CliRunner().invoke(command, [name, "--dataset-dir", ".", "-o", "out", *more])
        assert isinstance(done.exception, (TunebookError, SystemExit)), done.exception
    assert sorted(path for path in tmp_path.rglob("*")) == before
