"""What Axolotl passes over in silence, found before it is started."""

import json
import sys
from pathlib import Path

import pytest

from tunebook.engines.axolotl.cache import prepared_path
from tunebook.engines.axolotl.datasets import label_fault
from tunebook.engines.axolotl.engine import Axolotl, plugin_faults
from tunebook.engines.axolotl.rules import PLUGIN, evaluation_faults

ENVIRONMENT = Path(sys.prefix)
OURS = "tunebook.hooks.axolotl_alpaca"
ROWS = [{"instruction": "Is it liked?", "input": "", "output": "Yes"}]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with data, a registry, and an environment whose packages are ours to choose."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    for name in ("train", "eval"):
        (tmp_path / "data" / f"{name}.json").write_text(json.dumps(ROWS))
    entries = {
        "some_train": {"file_name": "train.json"},
        "some_eval": {"file_name": "eval.json", "metric": "yes_no"},
    }
    (tmp_path / "data" / "dataset_info.json").write_text(json.dumps(entries))
    return tmp_path


@pytest.fixture
def values(folder):
    return {
        "base_model": "some/model",
        "learning_rate": 1e-4,
        "datasets": [{"path": "data/train.json", "type": OURS}],
        "test_datasets": [{"path": "data/eval.json", "type": OURS}],
        "plugins": [PLUGIN],
        "tunebook_dataset_dir": "data",
        "tunebook_eval_datasets": ["some_eval"],
        "eval_steps": 10,
        "output_dir": "output",
    }


def test_a_sound_recipe_is_prepared(values, folder):
    prepared, notes = Axolotl().prepare(values, environment=ENVIRONMENT, folders=(folder,))
    assert {**prepared, "dataset_prepared_path": None} == {**values, "dataset_prepared_path": None}
    assert prepared["dataset_prepared_path"].startswith("last_run_prepared/tunebook-")
    assert notes == []
    assert Axolotl().dataset_names(values) == ("some_train", "some_eval")


def test_data_that_is_not_here_is_searched_for_at_home(values, folder, monkeypatch, tmp_path_factory):
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    values["tunebook_dataset_dir"] = str(folder / "data")  # as `tunebook train` has found it
    prepared, notes = Axolotl().prepare(values, environment=ENVIRONMENT, folders=(folder,))
    assert prepared["datasets"][0]["path"] == str(folder / "data" / "train.json")
    assert Axolotl().dataset_names(values) == ("some_train", "some_eval")
    assert notes == [f"datasets: {folder}/data/train.json", f"test_datasets: {folder}/data/eval.json"]


@pytest.mark.parametrize(
    ("change", "fix"),
    [
        ({"dataloader_drop_last": True}, "dataloader_drop_last"),
        ({"train_on_inputs": True}, "train_on_inputs"),
        ({"streaming": True}, "streaming"),
        ({"eval_steps": None}, "eval_steps"),
        ({"eval_steps": None, "eval_strategy": "no"}, "eval_steps"),
        ({"metric_for_best_model": "f1"}, "load_best_model_at_end"),
        ({"load_best_model_at_end": True}, "save_steps"),
        ({"load_best_model_at_end": True, "save_steps": 15}, "multiple of `eval_steps`"),
        ({"early_stopping_patience": 3}, "save_steps"),
        ({"load_best_model_at_end": True, "eval_steps": None, "eval_strategy": "epoch"}, "eval_steps"),
        ({"tunebook_eval_datasets": None}, "tunebook_eval_datasets"),
        ({"tunebook_eval_datasets": ["some_eval", "some_train"]}, "tunebook_eval_datasets"),
        ({"tunebook_eval_datasets": ["some_evall"]}, "some_eval"),
        ({"tunebook_dataset_dir": None}, "tunebook_dataset_dir"),
        ({"tunebook_dataset_dir": "nowhere"}, "tunebook_dataset_dir"),
        ({"tunebook_datasets": "data"}, "tunebook_eval_datasets"),
        ({"test_datasets": None}, "test_datasets"),
    ],
)
def test_each_setting_that_voids_the_evaluation_names_the_key_to_change(values, folder, change, fix):
    faults = evaluation_faults({**values, **change}, folder)
    assert len(faults) == 1, faults
    assert fix in faults[0].fix


@pytest.mark.parametrize(
    "change",
    [
        {"sample_packing": True},
        {"load_best_model_at_end": True, "save_steps": 20},
        {"eval_steps": None, "evals_per_epoch": 4, "saves_per_epoch": 2, "load_best_model_at_end": True},
        {"eval_steps": None, "eval_strategy": "epoch"},
    ],
)
def test_settings_that_work_are_not_changed(values, folder, change):
    assert evaluation_faults({**values, **change}, folder) == []


def test_a_plugin_that_cannot_be_found_is_an_error():
    plugins = ["json.decoder.JSONDecoder", "json.decodr.JSONDecoder", "no_such.Plugin", "bare"]
    faults = plugin_faults({"plugins": plugins}, ENVIRONMENT)
    assert [fault.fix.split(",")[0] for fault in faults] == [
        "correct json.decodr.JSONDecoder",
        "correct no_such.Plugin",
        "write package.module.Class",
    ]


def test_the_cache_is_named_after_the_rows(values, folder):
    first = prepared_path(values, folder)
    assert prepared_path({**values, "learning_rate": 2e-4}, folder) == first
    assert prepared_path({**values, "dataset_prepared_path": first}, folder) == first
    assert prepared_path({**values, "sequence_len": 64}, folder) != first
    (folder / "data" / "eval.json").write_text(json.dumps([*ROWS, *ROWS]))
    second = prepared_path({**values, "dataset_prepared_path": first}, folder)
    assert second != first
    assert Path(second).parent == Path(first).parent


def test_the_cache_knows_the_tokenizer(values, folder):
    (folder / "model").mkdir()
    values["base_model"] = "model"
    before = prepared_path(values, folder)
    (folder / "model" / "tokenizer.json").write_text("{}")
    assert prepared_path(values, folder) != before


@pytest.mark.parametrize(
    ("rows", "block", "said"),
    [
        ([{"prompt": "a", "answer": "b"}], {"type": OURS}, "has no column input, instruction, output"),
        ([{"instruction": "a", "input": "", "output": ""}], {"type": OURS}, "'output' is empty"),
        ([{"messages": []}], {"type": "chat_template"}, "no message"),
        ([{"conversations": []}], {"type": "chat_template"}, "has no column 'messages'"),
        (
            [{"messages": [{"role": "assistant", "content": "a"}]}],
            {"type": "chat_template", "roles_to_train": ["asistant"]},
            "to learn asistant",
        ),
        (
            [{"messages": [{"from": "gpt", "value": "a"}]}],
            {"type": "chat_template"},
            "('role') are None",
        ),
        ([], {"type": OURS}, "no rows"),
    ],
)
def test_rows_with_nothing_to_learn_are_found(folder, rows, block, said):
    (folder / "rows.json").write_text(json.dumps(rows))
    fault = label_fault({"path": "rows.json", **block}, folder)
    assert fault is not None
    assert said in fault.problem


def test_rows_with_an_answer_are_no_fault(folder):
    rows = [{"messages": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]}]
    (folder / "rows.json").write_text(json.dumps(rows))
    mapping = {"role": "from", "content": "value"}
    block = {"path": "rows.json", "type": "chat_template", "message_property_mappings": mapping}
    assert label_fault(block, folder) is None
    assert label_fault({"path": "data/eval.json", "type": OURS}, folder) is None


def test_one_process_is_started_directly_and_several_by_torchrun(values):
    def argv(gpus, **changes):
        command = Axolotl().train(
            Path("r.yaml"), {**values, **changes}, environment=Path("/env"), gpus=gpus, environ={}
        )
        assert command.env["AXOLOTL_DO_NOT_TRACK"] == "1"
        return " ".join(command.argv)

    assert argv(0) == argv(1) == "/env/bin/axolotl train r.yaml --launcher python"
    assert argv(4) == "/env/bin/axolotl train r.yaml --launcher torchrun -- --nproc_per_node=4"
    assert argv(1, deepspeed="z.json").endswith("--launcher torchrun -- --nproc_per_node=1")
