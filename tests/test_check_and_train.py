"""What `train` refuses, `check` reports as an error, from any folder; what is found beside a recipe is used."""

import json
from pathlib import Path

import pytest
import yaml

from tunebook import paths
from tunebook.checks.run import check_recipe
from tunebook.engines.axolotl.engine import data_faults, locate_blocks
from tunebook.engines.axolotl.rules import PLUGIN, evaluation_faults
from tunebook.training.resolve import resolve_recipe

LLAMAFACTORY = {
    "model_name_or_path": "some/model", "template": "qwen", "stage": "sft", "do_train": True, "finetuning_type": "lora",
    "dataset_dir": "data", "dataset": "train", "eval_dataset": "held_out", "eval_strategy": "steps", "eval_steps": 5,
    "output_dir": "out", "report_to": "none",
}  # fmt: skip
BLOCK = {"path": "data/train.json", "type": "tunebook.hooks.axolotl_alpaca"}
AXOLOTL = {
    "base_model": "some/model", "adapter": "lora", "datasets": [BLOCK], "micro_batch_size": 1, "sequence_len": 512,
    "test_datasets": [{**BLOCK, "path": "data/held_out.json"}], "gradient_accumulation_steps": 1, "eval_steps": 5,
    "learning_rate": 1.0e-4, "output_dir": "out", "plugins": [PLUGIN], "tunebook_dataset_dir": "data",
    "tunebook_eval_datasets": ["held_out"],
}  # fmt: skip
CHAT = {"path": "data/held_out.json", "type": "chat_template"}

LLAMAFACTORY_FAULTS = {
    "key": {"leraning_rate": 1.0e-4},
    "dataset": {"dataset": "zz"},
    "registry": {"dataset_dir": "elsewhere"},
    "model": {"model_name_or_path": "/no/such/model"},
    "adapter": {"adapter_name_or_path": "./no/adapter"},
    "several adapters": {"adapter_name_or_path": "a/b,/no/adapter"},
    "reference model": {"stage": "dpo", "dataset": "pairs", "ref_model": "/no/ref"},
    "deepspeed": {"deepspeed": "z9.json"},
    "checkpoint": {"resume_from_checkpoint": "out/checkpoint-5"},
    "broken checkpoint": {"resume_from_checkpoint": "broken"},
    "reference": {"eval_dataset": "unreadable"},
    "missing rows": {"eval_dataset": "gone"},
    "a file": {"output_dir": __file__},
    "secret": {"hub_token": "hf_abcdefghijklmnopqrstuvwxyzABCDEFGH"},
    "stage": {"stage": "dpo"},
    "none": {},
}
AXOLOTL_FAULTS = {
    "other file": {"test_datasets": [{**BLOCK, "path": "data/train.json"}]},
    "other split": {"test_datasets": [{**BLOCK, "path": "data/held_out.json", "split": "test"}]},
    "own type, other file": {"test_datasets": [{"path": "data/train.json", "type": "alpaca"}]},
    "unknown entry": {"tunebook_eval_datasets": ["zz"]},
    "reference": {
        "tunebook_eval_datasets": ["unreadable"],
        "test_datasets": [{**BLOCK, "path": "data/unreadable.json"}],
    },
    "model": {"base_model": "/no/such/model"},
    "never": {"eval_steps": None},
    "streamed": {"streaming": True, "max_steps": 5},
    "none": {},
}


@pytest.fixture
def place(tmp_path, monkeypatch):
    for engine in ("LLAMAFACTORY", "AXOLOTL"):
        monkeypatch.setenv(f"TUNEBOOK_{engine}_ENV", str(tmp_path / "none"))
    data = tmp_path / "project" / "data"
    data.mkdir(parents=True)
    rows = [
        {"instruction": f"Is {number} even?", "input": "", "output": "Yes" if number % 2 == 0 else "No"}
        for number in range(8)
    ]
    for name in ("train", "held_out"):
        (data / f"{name}.json").write_text(json.dumps(rows))
    (data / "unreadable.json").write_text(json.dumps([*rows, {**rows[0], "output": "perhaps"}]))
    metric = {"metric": "yes_no"}
    entries = {name: {"file_name": f"{name}.json", **metric} for name in ("held_out", "unreadable", "gone")}
    entries |= {"train": {"file_name": "train.json"}, "pairs": {"file_name": "train.json", "ranking": True}}
    (data / "dataset_info.json").write_text(json.dumps(entries))
    (tmp_path / "project" / "broken").mkdir()
    return tmp_path / "project"


def verdicts(engine, values):
    """Errors of the check, and whether a start would be refused."""
    checked = check_recipe(engine, paths.home(), command="train")
    found = resolve_recipe(engine, (), ())
    refused = bool(list(found.faults))
    if not refused and "base_model" in values:
        # As `prepare` does, without an environment.
        blocks, _ = locate_blocks(found.values, found.folders)
        refused = bool(evaluation_faults(blocks, Path.cwd()) or list(data_faults(blocks)))
    return checked.result.errors, refused


@pytest.mark.parametrize("folder", [".", ".."], ids=["here", "from above"])
@pytest.mark.parametrize(
    ("base", "change"),
    [(LLAMAFACTORY, change) for change in LLAMAFACTORY_FAULTS.values()] + [(AXOLOTL, change) for change in AXOLOTL_FAULTS.values()],
    ids=[*LLAMAFACTORY_FAULTS, *(f"axolotl {name}" for name in AXOLOTL_FAULTS)],
)  # fmt: skip
def test_what_train_refuses_is_an_error_of_check(place, monkeypatch, base, change, folder):
    values = {key: value for key, value in {**base, **change}.items() if value is not None}
    (place / "recipe.yaml").write_text(yaml.safe_dump(values, sort_keys=False))
    monkeypatch.chdir(place / folder)
    errors, refused = verdicts("recipe.yaml" if folder == "." else "project/recipe.yaml", values)
    assert bool(errors) == bool(change), errors
    assert not refused or errors


def test_own_types_of_a_block_are_taken_and_another_template_is_told(place, monkeypatch):
    own = {"field_instruction": "instruction", "field_output": "output", "format": "{instruction}"}
    monkeypatch.chdir(place)

    def rules(**change):
        (place / "recipe.yaml").write_text(yaml.safe_dump({**AXOLOTL, **change}))
        return {finding.rule for finding in check_recipe("recipe.yaml", paths.home()).result.findings}

    for kind in ("alpaca", "input_output", own):
        blocks = {"datasets": [{**BLOCK, "type": kind}], "test_datasets": [{**CHAT, "type": kind}]}
        assert not {"axolotl-evaluation", "missing-column", "evaluated-otherwise"} & rules(**blocks), kind
    trained = {"path": "data/train.json", "type": "alpaca", "chat_template": "chatml"}
    assert "evaluated-otherwise" in rules(datasets=[trained], test_datasets=[{**CHAT, "type": "alpaca"}])


def test_what_is_on_another_machine_may_be_left_out(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    recipe = {"model_name_or_path": "./no_model", "stage": "sft", "do_train": True, "finetuning_type": "lora",
              "dataset": "x", "dataset_dir": "nowhere", "template": "qwen3", "output_dir": "out"}  # fmt: skip
    (tmp_path / "r.yaml").write_text(yaml.safe_dump(recipe))
    rules = [
        {f.rule for f in check_recipe("r.yaml", paths.home(), without_files=without).result.errors}
        for without in (False, True)
    ]
    assert rules == [{"missing-model", "missing-registry"}, set()]
