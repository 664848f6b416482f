"""One registry entry for both engines: the block it renders to, and what a recipe's block differs in."""

import json

import pytest

from tunebook.data.registry import load_registry
from tunebook.engines.axolotl.datasets import alpaca_columns, block_faults, entry_of_block, render_block
from tunebook.errors import TunebookError

OURS = "tunebook.hooks.axolotl_alpaca"

ENTRIES = {
    "plain": ({"file_name": "a/b.json"}, {"path": "data/a/b.json", "type": OURS}),
    "columns": (
        {"file_name": "x.csv", "columns": {"system": "prompt", "prompt": "question", "response": "reply"}},
        {
            "path": "data/x.csv",
            "type": OURS,
            "message_property_mappings": {"system": "prompt", "prompt": "question", "response": "reply"},
        },
    ),
    "hub": (
        {
            "hf_hub_url": "openai/gsm8k",
            "subset": "main",
            "split": "test",
            "columns": {"prompt": "question", "response": "answer"},
        },
        {
            "path": "openai/gsm8k",
            "name": "main",
            "split": "test",
            "type": OURS,
            "message_property_mappings": {"prompt": "question", "response": "answer"},
        },
    ),
    "sample": (
        {"file_name": "x.jsonl", "num_samples": 1000},
        {"path": "data/x.jsonl", "split": "train[:1000]", "type": OURS},
    ),
    "parquet": ({"file_name": "x.parquet"}, {"path": "data/x.parquet", "type": OURS}),
    "csv_in_the_name": (
        {"file_name": "from.csv.json"},
        {"path": "data/from.csv.json", "ds_type": "json", "type": OURS},
    ),
    "folder": ({"file_name": "many"}, {"path": "data/many", "split": "train", "type": OURS}),
    "sharegpt": (
        {"file_name": "x.json", "formatting": "sharegpt"},
        {
            "path": "data/x.json",
            "type": "chat_template",
            "field_messages": "conversations",
            "message_property_mappings": {"role": "from", "content": "value"},
        },
    ),
    "openai": (
        {
            "file_name": "x.json",
            "formatting": "openai",
            "columns": {"messages": "messages"},
            "tags": {
                "role_tag": "role",
                "content_tag": "content",
                "user_tag": "user",
                "assistant_tag": "assistant",
                "system_tag": "system",
            },
        },
        {"path": "data/x.json", "type": "chat_template"},
    ),
    "own_roles": (
        {
            "file_name": "x.json",
            "formatting": "sharegpt",
            "columns": {"messages": "turns"},
            "tags": {
                "role_tag": "who",
                "content_tag": "text",
                "user_tag": "customer",
                "assistant_tag": "agent",
            },
        },
        {
            "path": "data/x.json",
            "type": "chat_template",
            "field_messages": "turns",
            "message_property_mappings": {"role": "who", "content": "text"},
            "roles": {"user": ["customer"], "assistant": ["agent"]},
        },
    ),
}


@pytest.fixture
def registry(tmp_path):
    (tmp_path / "dataset_info.json").write_text(
        json.dumps({name: values for name, (values, _) in ENTRIES.items()})
    )
    return load_registry(tmp_path)


@pytest.mark.parametrize("name", ENTRIES)
def test_an_entry_renders_to_the_block_that_reads_its_rows(registry, name):
    assert render_block(registry.entry(name), "data") == ENTRIES[name][1]


@pytest.mark.parametrize("name", ENTRIES)
def test_a_rendered_block_has_no_faults_and_leads_back_to_its_entry(registry, name):
    block = render_block(registry.entry(name), "data")
    assert block_faults(block, registry.entry(name), "data") == []
    found = entry_of_block(block, registry, "data")
    assert ENTRIES[found][0].get("file_name") == ENTRIES[name][0].get("file_name")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"path": "data/other.json"}, "write path: data/a/b.json"),
        ({"message_property_mappings": {"prompt": "question"}}, "remove message_property_mappings"),
        ({"split": "test"}, "remove split"),
    ],
)
def test_a_block_that_differs_is_told_what_to_write(registry, change, said):
    block = {**render_block(registry.entry("plain"), "data"), **change}
    faults = block_faults(block, registry.entry("plain"), "data")
    assert [fault.fix for fault in faults] == [said]


@pytest.mark.parametrize(
    "change",
    [
        {"type": "alpaca"},
        {"type": {"field_instruction": "q", "field_output": "a", "format": "{instruction}"}},
        {"ds_type": "json"},
        {"shards": 2},
    ],
)
def test_how_a_block_makes_its_rows_is_no_difference(registry, change):
    block = {**render_block(registry.entry("plain"), "data"), **change}
    assert block_faults(block, registry.entry("plain"), "data") == []
    assert block_faults({**block, "path": "data/other.json"}, registry.entry("plain"), "data")


def test_an_engines_own_defaults_written_out_are_no_difference(registry):
    name = next(name for name, (_, block) in ENTRIES.items() if block.get("type") == "chat_template")
    written = {"roles_to_train": ["assistant"], "train_on_eos": "turn", "chat_template": "tokenizer_default"}
    block = {**render_block(registry.entry(name), "data"), **written}
    assert block_faults(block, registry.entry(name), "data") == []
    assert block_faults({**block, "field_messages": "other"}, registry.entry(name), "data")


def test_a_slice_of_the_rows_is_no_difference(registry):
    block = {**render_block(registry.entry("plain"), "data"), "split": "train[:64]"}
    assert block_faults(block, registry.entry("plain"), "data") == []


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"file_name": "x.json", "ranking": True}, "pairs, not answers"),
        (
            {"file_name": "x.json", "columns": {"prompt": "p", "response": "r", "history": "h"}},
            "the column 'history'",
        ),
        ({"file_name": "x.json", "columns": {"prompt": "p"}}, "name no response"),
        ({"ms_hub_url": "a/b"}, "it names none"),
        ({"hf_hub_url": "a/b", "folder": "part"}, 'one "folder"'),
        (
            {
                "file_name": "x.json",
                "formatting": "sharegpt",
                "columns": {"messages": "messages", "system": "system"},
            },
            "not from a column",
        ),
    ],
)
def test_what_axolotl_cannot_read_is_refused(tmp_path, values, said):
    (tmp_path / "dataset_info.json").write_text(json.dumps({"entry": values}))
    with pytest.raises(TunebookError, match=said):
        render_block(load_registry(tmp_path).entry("entry"), "data")


def test_columns_that_are_not_named_are_not_there():
    assert alpaca_columns({}) == {"prompt": "instruction", "query": "input", "response": "output"}
    # `role` and `content` are filled in by Axolotl itself.
    assert alpaca_columns({"prompt": "q", "response": "a", "role": "role", "content": "content"}) == {
        "prompt": "q",
        "response": "a",
    }
