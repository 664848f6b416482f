"""`tunebook schema`: every recipe of ours is valid, and what an engine refuses is not."""

import json

import pytest
import yaml
from click.testing import CliRunner

from recipe_cases import shipped
from tunebook.cli.schema import json_schema, schema

jsonschema = pytest.importorskip("jsonschema")


@pytest.mark.parametrize("engine", ["llamafactory", "axolotl"])
def test_every_shipped_recipe_is_valid(engine):
    validator = jsonschema.Draft202012Validator(json_schema(engine))
    validator.check_schema(validator.schema)
    for recipe in shipped(engine):
        values = yaml.safe_load(recipe.path.read_text("utf-8"))
        assert [error.message for error in validator.iter_errors(values)] == [], recipe.name


@pytest.mark.parametrize(
    ("engine", "values"),
    [
        ("llamafactory", {"learning_rat": 1e-4}),
        ("llamafactory", {"max_steps": "many"}),
        ("llamafactory", {"finetuning_type": "loora"}),
        ("axolotl", {"micro_batch_size": "two"}),
    ],
)
def test_a_slip_is_marked(engine, values):
    assert list(jsonschema.Draft202012Validator(json_schema(engine)).iter_errors(values))


def test_a_key_without_a_value_is_no_slip():
    assert not list(
        jsonschema.Draft202012Validator(json_schema("llamafactory")).iter_errors({"max_steps": None})
    )


def test_the_command_prints_json():
    done = CliRunner().invoke(schema, ["lf"])
    assert json.loads(done.output)["properties"]["template"]["description"]
