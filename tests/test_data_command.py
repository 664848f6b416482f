import json

import yaml
from click.testing import CliRunner

from tunebook.cli.main import data
from tunebook.errors import TunebookError


def run(folder, *arguments):
    (folder / "dataset_info.json").write_text(
        json.dumps(
            {"cards": {"file_name": "cards.json", "metric": "yes_no"}, "plain": {"file_name": "plain.json"}}
        )
    )
    return CliRunner().invoke(data, [*arguments, "--dataset-dir", str(folder)])


def test_datasets_are_listed_with_what_is_measured_on_them(tmp_path):
    assert run(tmp_path, "ls").output.splitlines() == ["cards  yes_no", "plain"]


def test_an_entry_is_shown_as_both_engines_read_it(tmp_path):
    shown = run(tmp_path, "show", "cards").output
    entry, block = shown.split("\n\n")
    assert json.loads(entry.split("\n", 1)[1])["cards"]["metric"] == "yes_no"
    path = str(tmp_path / "cards.json")
    assert yaml.safe_load(block) == [{"path": path, "type": "tunebook.hooks.axolotl_alpaca"}]


def test_an_unknown_dataset_is_answered_with_its_neighbour(tmp_path):
    error = run(tmp_path, "show", "card").exception
    assert isinstance(error, TunebookError)
    assert error.fix == "did you mean cards?"
