import json

import pytest
from click.testing import CliRunner

from tunebook.cli.main import cli
from tunebook.errors import TunebookError
from tunebook.recipes import engine_yaml
from tunebook.recipes.catalog import read_recipe
from tunebook.recipes.nested import flatten, is_recipe, parse

# The form of a published guide for full fine-tuning of a 32 B model, as it stands there.
PUBLISHED = """
{
  "model_args": {
    "model_name_or_path": "Qwen/Qwen3-32B"
  },
  "data_args": {
    "dataset_path": "./data/training_data.csv",
    "max_seq_length": 8192
  },
  "training_args": {
    "num_train_epochs": 5,
    "learning_rate": 5e-5,
    "lr_scheduler_type": "cosine",
    "warmup_ratio": 0.1
  }
}
"""
FLAT = {
    "model_name_or_path": "Qwen/Qwen3-32B",
    "dataset_dir": "data",
    "dataset": "training_data",
    "cutoff_len": 8192,
    "num_train_epochs": 5,
    "learning_rate": 5e-5,
    "lr_scheduler_type": "cosine",
    "warmup_ratio": 0.1,
    "stage": "sft",
    "do_train": True,
    "finetuning_type": "full",
    "output_dir": "output/config",
}


@pytest.fixture
def config(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "config.json"
    path.write_text(PUBLISHED)
    return path


def test_the_published_form_becomes_a_flat_recipe(config):
    recipe = read_recipe(config, config.parent / "recipes")
    assert recipe.engine == "llamafactory"
    assert recipe.values == FLAT


def test_what_the_file_says_wins_over_what_the_scripts_imply():
    nested = {
        "model_args": {"model_name_or_path": "a/b"},
        "training_args": {"finetuning_type": "lora", "output_dir": "x"},
    }
    values = flatten(nested, name="config").values
    assert (values["finetuning_type"], values["output_dir"]) == ("lora", "x")


def test_each_key_is_known_by_its_place_in_the_file():
    sources = flatten(parse(PUBLISHED, source=""), name="config").sources
    assert sources["cutoff_len"] == "data_args.max_seq_length"
    assert sources["dataset_dir"] == sources["dataset"] == "data_args.dataset_path"
    assert "stage" not in sources


def test_a_flat_json_recipe_stays_as_it_is():
    values = {"model_name_or_path": "a/b", "max_seq_length": 8}
    assert flatten(values, name="config").values == values


def test_a_key_in_two_groups_is_an_error():
    nested = {"model_args": {"seed": 1}, "training_args": {"seed": 2}}
    with pytest.raises(TunebookError, match=r"training_args\.seed and model_args\.seed both set seed"):
        flatten(nested, name="config")


@pytest.mark.parametrize(
    ("values", "recipe"),
    [
        ({"model_args": {}}, True),
        ({"base_model": "a/b"}, True),
        ({"zero_optimization": {"stage": 2}}, False),
        ({"model_args": "a string"}, False),
    ],
)
def test_a_deepspeed_configuration_is_no_recipe(values, recipe):
    assert is_recipe(values) is recipe


@pytest.mark.parametrize(("text", "message"), [("{", "line 1: is not JSON"), ("[]", "holds a list")])
def test_what_cannot_be_read_is_told(text, message):
    with pytest.raises(TunebookError, match=message):
        parse(text, source="config.json")


def test_cp_makes_yaml_of_it(config):
    done = CliRunner().invoke(cli, ["cp", "config.json", "mine.yaml"], standalone_mode=False)
    assert done.exception is None
    text = (config.parent / "mine.yaml").read_text()
    assert engine_yaml.parse_mapping(text, "llamafactory", source="") == FLAT
    assert engine_yaml.parse_mapping(text, "axolotl", source="") == FLAT


def test_check_finds_nothing_but_the_missing_data(config):
    done = CliRunner().invoke(cli, ["check", "config.json", "--json"])
    (result,) = json.loads(done.stdout)
    graver = {finding["rule"] for finding in result["findings"] if finding["severity"] != "hint"}
    assert graver == {"missing-registry"}


def test_check_is_clean_once_the_data_is_there(config):
    (config.parent / "data").mkdir()
    entry = {
        "file_name": "training_data.csv",
        "columns": {"system": "prompt", "prompt": "question", "response": "response"},
    }
    (config.parent / "data" / "dataset_info.json").write_text(json.dumps({"training_data": entry}))
    (config.parent / "data" / "training_data.csv").write_text(
        "prompt,question,response\nBe brief.,Why?,So.\n"
    )
    done = CliRunner().invoke(cli, ["check", "config.json", "--json"])
    (result,) = json.loads(done.stdout)
    assert result["clean"], result["findings"]
