"""The folder of tokenised rows is named after everything that decides the rows, and nothing else."""

import json
import os

import pytest

from test_paths import make_environment
from test_train_command import Workplace
from tunebook import paths
from tunebook.engines.llamafactory import cache
from tunebook.engines.llamafactory.engine import LlamaFactory
from tunebook.errors import TunebookError
from tunebook.runs import folder as run_folder
from tunebook.runs import token_cache


@pytest.fixture
def prepare(tmp_path, monkeypatch):
    """Prepares a recipe with the keys one names changed; returns the folder, with the notes behind it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TUNEBOOK_HOOK", raising=False)
    environment = make_environment(tmp_path / "env", "llamafactory==0.9.5", "transformers==5.5.4")
    (environment / "lib/python3.11/site-packages" / paths.HOOK_FILE).touch()
    (tmp_path / "data").mkdir()
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "tokenizer.json").write_text("{}")
    (tmp_path / "data" / "a.json").write_text('[{"instruction": "?", "output": "Yes"}]')
    entries = {"a": {"file_name": "a.json", "metric": "yes_no"}, "hub": {"hf_hub_url": "some/where"}}
    (tmp_path / "data" / "dataset_info.json").write_text(json.dumps(entries))

    def run(**changes):
        values = {
            "model_name_or_path": "model",
            "dataset_dir": "data",
            "dataset": "a",
            "template": "qwen3",
            "cutoff_len": 128,
            "tokenized_path": "kept",
        } | changes
        values = {key: value for key, value in values.items() if value is not None}
        prepared, notes = LlamaFactory().prepare(values, environment=environment, folders=(tmp_path,))
        return prepared.get("tokenized_path"), notes

    run.environment = environment
    return run


def test_the_folder_is_below_the_one_asked_for(prepare):
    folder, notes = prepare()
    assert folder.startswith("kept/tunebook-")
    assert notes == [f"tokenised rows: will be kept in {folder}"]
    # The resolved recipe of a run names the folder itself.
    assert prepare(tokenized_path=folder)[0] == folder


def test_without_the_key_nothing_happens(prepare):
    assert prepare(tokenized_path=None) == (None, [])


@pytest.mark.parametrize(
    "change",
    [
        {"template": "qwen3_nothink"},
        {"cutoff_len": 129},
        {"cutoff_len": None},
        {"packing": True},
        {"neat_packing": True},
        {"stage": "pt"},
        {"enable_thinking": False},
        {"train_on_prompt": True},
        {"mask_history": True},
        {"max_samples": 5},
        {"eval_dataset": "a"},
        {"val_size": 0.1},
        {"default_system": "Be brief."},
        {"add_tokens": "<a>"},
        {"predict_with_generate": True},
    ],
    ids=str,
)
def test_what_decides_the_rows_changes_the_name(prepare, change):
    assert prepare(**change)[0] != prepare()[0]


@pytest.mark.parametrize(
    "change",
    [
        {"learning_rate": 1e-3},
        {"seed": 9},
        {"output_dir": "elsewhere"},
        {"lora_rank": 4},
        {"preprocessing_num_workers": 4},
        {"enable_thinking": True},
        {"stage": "sft"},
        {"val_size": 0},
        {"dataset": ["a"]},
        {"dataset": " a "},
        {"dataset_dir": "./data"},
    ],
    ids=str,
)
def test_what_does_not_decide_the_rows_does_not(prepare, change):
    assert prepare(**change)[0] == prepare()[0]


def test_a_seed_counts_where_rows_are_drawn(prepare):
    assert prepare(val_size=0.1)[0] != prepare(val_size=0.1, seed=9)[0]
    assert prepare(packing=True)[0] != prepare(packing=True, preprocessing_num_workers=4)[0]


def test_other_data_another_tokenizer_or_another_engine_change_the_name(prepare, tmp_path):
    names = [prepare()[0]]
    (tmp_path / "data" / "a.json").write_text('[{"instruction": "?", "output": "No"}]')
    names.append(prepare()[0])
    (tmp_path / "model" / "tokenizer.json").write_text("{ }")
    names.append(prepare()[0])
    entries = {"a": {"file_name": "a.json", "columns": {"prompt": "instruction", "response": "output"}}}
    (tmp_path / "data" / "dataset_info.json").write_text(json.dumps(entries))
    names.append(prepare()[0])
    (metadata,) = prepare.environment.rglob("transformers-*/METADATA")
    metadata.write_text(metadata.read_text().replace("5.5.4", "5.6.0"))
    names.append(prepare()[0])
    assert len(set(names)) == 5


def test_a_metric_and_the_models_folder_do_not_change_it(prepare, tmp_path):
    name = prepare()[0]
    (tmp_path / "data" / "dataset_info.json").write_text(json.dumps({"a": {"file_name": "a.json"}}))
    (tmp_path / "model").rename(tmp_path / "same")
    assert prepare(model_name_or_path="same")[0] == name


def test_a_large_file_is_known_by_its_time_of_change(tmp_path, monkeypatch):
    monkeypatch.setattr(token_cache, "_HASHED_WHOLE", 3)
    file = tmp_path / "x"
    file.write_text("abcd")
    before = token_cache.content(file)
    os.utime(file, ns=(1, 1))
    assert token_cache.content(file) != before


def test_what_cannot_be_seen_is_said(prepare):
    notes = prepare(dataset="hub", model_name_or_path="Some/Model")[1]
    assert "hub is on a hub: if it changes there, delete the folder of tokenised rows" in notes
    assert prepare(model_name_or_path="Some/Model")[0] != prepare(model_name_or_path="Other/Model")[0]


def test_rows_that_somebody_has_tokenised_himself_are_left_alone(prepare, tmp_path):
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "dataset_dict.json").write_text("{}")
    folder, notes = prepare()
    assert folder == "kept"
    assert "used as they are" in notes[0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"streaming": True}, "streamed rows are not kept"),
        ({"dataset_dir": "ONLINE"}, "is not on this machine"),
        ({"new_special_tokens_config": "x.yaml"}, "cannot be told apart"),
    ],
)
def test_rows_that_cannot_be_named_are_refused(prepare, change, message):
    with pytest.raises(TunebookError, match=message):
        prepare(**change)


def test_without_the_hook_nothing_is_kept(prepare, monkeypatch):
    monkeypatch.setenv("TUNEBOOK_HOOK", "0")
    with pytest.raises(TunebookError, match="the start-up hook, which writes the rows whole, is off"):
        prepare()


def test_differences_are_named_by_their_keys():
    old = {"settings": {"cutoff_len": 64, "template": "a"}, "tokenizer": {"x": "1"}}
    new = {"settings": {"cutoff_len": 128, "template": "a"}, "tokenizer": {"y": "1"}}
    assert cache.differences(old, new) == [
        "settings.cutoff_len 64 -> 128",
        "tokenizer.x 1 -> None",
        "tokenizer.y None -> 1",
    ]


def test_a_run_is_the_same_with_and_without_kept_rows():
    values = {"learning_rate": 1e-4, "output_dir": "x"}
    with_rows = values | {"tokenized_path": ".cache/tokenized/tunebook-0123456789abcdef"}
    assert run_folder.recipe_sha256(values) == run_folder.recipe_sha256(with_rows)
    assert run_folder.differing_keys(values, with_rows) == []
    moved = [{"dataset_prepared_path": f"{base}/tunebook-0123456789abcdef"} for base in ("a", "b")]
    assert run_folder.differing_keys(*moved) == []
    # Rows of the user's own decide what is computed.
    assert run_folder.differing_keys(values, values | {"tokenized_path": "own"}) == ["tokenized_path"]


@pytest.fixture
def place(tmp_path):
    return Workplace(tmp_path)


@pytest.mark.parametrize(
    ("options", "base"),
    [(["--cache"], ".cache/tokenized"), (["--cache=rows"], "rows"), (["--cache", "rows"], "rows")],
)
def test_one_option_keeps_the_rows(place, options, base):
    done = place.run(*options)
    assert done.returncode == 0, done.stderr
    folder = place.ran()["tokenized_path"]
    assert folder.startswith(f"{base}/tunebook-")
    assert f"tunebook: tokenised rows: will be kept in {folder}" in done.stderr
    # The same experiment, which is finished, with the option and without.
    assert "already holds this run, finished" in place.run().stderr


def test_a_recipe_may_ask_for_it_itself(place):
    place.write_recipe(tokenized_path="rows")
    assert place.run().returncode == 0
    assert place.ran()["tokenized_path"].startswith("rows/tunebook-")


def test_an_override_is_not_taken_for_the_folder(place):
    done = place.run("--cache", "learning_rate=1e-3")
    assert done.returncode == 2
    assert "write --cache last, or --cache=DIR" in done.stderr
    assert not place.started
