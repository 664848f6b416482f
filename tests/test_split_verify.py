"""`tunebook data verify` finds what was changed, whatever it is."""

import json

import pytest
from click.testing import CliRunner

from split_cases import csv_text, split_file
from tunebook.cli.data_registry import verify
from tunebook.errors import TunebookError


@pytest.fixture
def made(tmp_path):
    rows = [(f'say "{number}"', "q\nq", "r") for number in range(40)]
    (tmp_path / "data.csv").write_text(csv_text(rows))
    split_file(tmp_path / "data.csv", tmp_path / "out", nodes=3, eval_rows=4)
    return tmp_path


def run(folder, *options):
    return CliRunner().invoke(verify, [str(folder / "out"), *options])


def test_a_split_that_nobody_touched_is_proved(made):
    done = run(made)
    assert done.exit_code == 0
    assert "36 rows in 3 parts and 4 in the hold-out, each row of the source once" in done.output
    assert json.loads(run(made, "--json").output)["faults"] == []


@pytest.mark.parametrize(
    ("file", "change", "fault"),
    [
        ("out/node_1/data.csv", lambda text: text.replace("say", "SAY", 1), "another content"),
        ("out/node_1/data.csv", lambda text: text[:-4], "bytes, not"),
        ("out/node_2/data_eval.csv", lambda text: text.replace("r\n", "s\n", 1), "another content"),
        ("data.csv", lambda text: text.replace("say", "SAY", 1), "another content"),
        (
            "out/node_1/dataset_info.json",
            lambda text: text.replace('"response": "response"', '"response": "question"', 1),
            "columns of 'data' is not what the split wrote",
        ),
        (
            "out/node_0/dataset_info.json",
            lambda text: text.replace("data.csv", "else.csv"),
            "not the node's own",
        ),
        ("out/node_0/dataset_info.json", lambda text: text.replace("data_eval", "d_e"), "has no entry"),
        ("out/node_0/dataset_info.json", lambda text: "", "cannot be read"),
    ],
)
def test_every_change_is_found(made, file, change, fault):
    path = made / file
    text = path.read_text()
    path.unlink()  # the hold-outs of the nodes are one file under several names
    path.write_text(change(text))
    done = run(made)
    assert done.exit_code == 1
    assert fault in done.output.replace("\n", " ")


def test_a_part_that_is_missing_is_named(made):
    (made / "out" / "node_2" / "data.csv").unlink()
    done = run(made)
    assert done.exit_code == 1
    assert "node_2/data.csv is missing" in done.output.replace("\n", "")


def test_rows_that_are_twice_or_nowhere_are_found_although_the_hashes_agree(made):
    # As a fault in the split itself would leave it: the manifest agrees with the parts, not with the source.
    manifest = json.loads((made / "out" / "manifest.json").read_text())
    other = made / "other.csv"
    rows = [(f'say "{number}"', "q\nq", "r") for number in [*range(39), 38]]
    other.write_text(csv_text(rows))
    twice = split_file(other, made / "twice", nodes=3, eval_rows=4)
    for key in ("sources", "request"):
        twice[key] = manifest[key]
    (made / "twice" / "manifest.json").write_text(json.dumps({**twice, "name": "other"}))
    done = CliRunner().invoke(verify, [str(made / "twice")])
    assert done.exit_code == 1
    assert "which are not the 40 of the source" in done.output


def test_without_the_source_only_the_parts_can_be_proved(made):
    (made / "data.csv").unlink()
    assert isinstance(run(made).exception, TunebookError)
    done = run(made, "--parts-only")
    assert done.exit_code == 0
    assert "the source was not read" in done.output


def test_a_folder_without_a_manifest_is_no_split(tmp_path):
    (tmp_path / "out").mkdir()
    assert "manifest.json" in str(run(tmp_path).exception)
