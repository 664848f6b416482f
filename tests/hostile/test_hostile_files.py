"""Files that mean harm, or are broken: one clear error, in no time, and nothing written elsewhere."""

import json
import re

import pytest
from click.testing import CliRunner

from token_files import byte_level
from tunebook import paths
from tunebook.checks.run import check_recipe
from tunebook.cli.data_check import check
from tunebook.cli.data_chunk import chunk
from tunebook.cli.data_filter import filter_rows
from tunebook.cli.data_split import split
from tunebook.data.registry import load_registry
from tunebook.data.rows import iter_table
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


ROW = '{"instruction": "q", "input": "", "output": "a"}'
NESTED = "[" * 200_000 + "]" * 200_000
HEADER = "instruction,input,output\n"
BROKEN_ROWS = {
    "nested.jsonl": (
        f'{ROW}\n{{"instruction": "x", "input": "", "output": {NESTED}}}\n',
        "nested too deeply",
    ),
    "nested.json": (
        f'[{ROW},\n{{"instruction": "x", "input": "", "output": {NESTED}}}]',
        "nested too deeply",
    ),
    "objects.jsonl": (ROW + "\n" + '{"a":' * 5000 + "1" + "}" * 5000 + "\n", "nested too deeply"),
    "nul.jsonl": (f"{ROW}\n{ROW[:19]}\0\0{ROW[19:]}\n", "Invalid control character|Expecting"),
    "half.jsonl": (f"{ROW}\n{ROW.replace('q', chr(92) + 'ud800')}\n", "half a character"),
    "half.json": (f"[{ROW},\n{ROW.replace('q', chr(92) + 'uDFFF x')}]", "half a character"),
    "open.csv": (HEADER + 'a,,Yes\n"b,,No\nc,,Yes\n', "a quote is opened and never closed"),
    "open_at_end.csv": (HEADER + 'a,,Yes\nb,,"No', "a quote is opened and never closed"),
    "ragged.csv": (HEADER + "a,,Yes\nb,,No,d\n", "1 more than the header|4 fields under a header of 3"),
    "twice.csv": ("instruction,output,output\na,Yes,x\n", "'output' stands twice"),
}


@pytest.mark.parametrize("command", ["check", "split", "filter", "chunk"])
@pytest.mark.parametrize("name", BROKEN_ROWS)
def test_a_broken_row_is_named_by_every_data_command(tmp_path, monkeypatch, name, command):
    monkeypatch.chdir(tmp_path)
    text, problem = BROKEN_ROWS[name]
    (tmp_path / name).write_text(text)
    (tmp_path / "dataset_info.json").write_text(json.dumps({"x": {"file_name": name}}))
    byte_level(tmp_path / "tokenizer.json")
    before = sorted(tmp_path.rglob("*"))
    run, more = {
        "check": (check, []),
        "split": (split, ["--nodes", "2", "-o", "out"]),
        "filter": (filter_rows, ["--max-chars", "100", "-o", "out"]),
        "chunk": (chunk, ["--max-tokens", "64", "--tokenizer", "tokenizer.json", "-o", "out"]),
    }[command]
    done = CliRunner().invoke(run, ["x", "--dataset-dir", ".", *more])
    if command == "check":
        assert done.exit_code == 1
        assert re.search(problem, done.output), done.output
    else:
        assert isinstance(done.exception, TunebookError), done.exception
        assert re.search(problem, str(done.exception))
        assert name in str(done.exception)
        assert sorted(tmp_path.rglob("*")) == before


def test_rows_that_are_only_odd_are_read(tmp_path):
    (tmp_path / "x.jsonl").write_text(ROW.replace("q", chr(92) + "ud83d" + chr(92) + "ude00") + "\n")
    (tmp_path / "x.json").write_text("[" + ROW.replace('"q"', "[" * 50 + "1" + "]" * 50) + "]")
    (tmp_path / "x.csv").write_text(HEADER + '"b" x,,No\na "b" c,,Yes\n\nshort\n"two\nlines",,"a ""b"""')
    assert [row["instruction"] for row in iter_table(tmp_path / "x.jsonl")] == ["😀"]
    assert len(list(iter_table(tmp_path / "x.json"))) == 1
    assert [list(row.values()) for row in iter_table(tmp_path / "x.csv")] == [
        ["b x", "", "No"],
        ['a "b" c', "", "Yes"],
        ["short", None, None],
        ["two\nlines", "", 'a "b"'],
    ]
