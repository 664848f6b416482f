"""The entry that the data tools guess for a file loses nothing that LLaMA-Factory's own loader reads from it."""

import json
from types import SimpleNamespace

import pytest

from tunebook.data.sources import find_source
from tunebook.errors import TunebookError
from tunebook.splits.entries import find_dataset

pytestmark = pytest.mark.engine

TOOLS = '[{"name": "clock", "description": "the time", "parameters": {}}]'
HUMAN, GPT = {"from": "human", "value": "a?"}, {"from": "gpt", "value": "b"}
USER, SAID = {"role": "user", "content": "a?"}, {"role": "assistant", "content": "b"}
CALL = {
    "role": "assistant",
    "content": "",
    "tool_calls": [{"function": {"name": "clock", "arguments": "{}"}}],
}

# A row, and what LLaMA-Factory's converter must make of it beside one question and one answer.
FORMS = {
    "alpaca": ({"instruction": "a", "input": "?", "output": "b"}, {}),
    "alpaca, all columns": (
        {"instruction": "a", "input": "?", "output": "b", "system": "s", "history": [["x", "y"]]},
        {"system": "s", "turns": 3},
    ),
    "alpaca, tools and images": (
        {"instruction": "<image>a?", "output": "b", "tools": TOOLS, "images": ["1.png"]},
        {"tools": TOOLS, "images": ["1.png"]},
    ),
    "Dolly": ({"instruction": "a", "context": "c", "response": "b", "category": "q"}, {"asked": "a\nc"}),
    "prompt and response": ({"prompt": "a?", "response": "b"}, {}),
    "prompt and completion": ({"prompt": "a?", "completion": "b"}, {}),
    "prompt, question, response": ({"prompt": "s", "question": "a?", "response": "b"}, {"system": "s"}),
    "question and answer": ({"question": "a?", "answer": "b", "id": 3}, {}),
    "sharegpt": ({"conversations": [HUMAN, GPT]}, {}),
    "sharegpt, system and tools": (
        {"conversations": [HUMAN, GPT], "system": "s", "tools": TOOLS},
        {"system": "s", "tools": TOOLS},
    ),
    "sharegpt, a system turn": (
        {"conversations": [{"from": "system", "value": "s"}, HUMAN, GPT]},
        {"system": "s"},
    ),
    "sharegpt, calls": (
        {
            "conversations": [
                HUMAN,
                {"from": "function_call", "value": "{}"},
                {"from": "observation", "value": "12"},
                GPT,
            ],
            "tools": TOOLS,
        },
        {"turns": 3, "tools": TOOLS},
    ),
    "sharegpt, pictures": ({"conversations": [HUMAN, GPT], "images": ["1.png"]}, {"images": ["1.png"]}),
    "user and assistant in sharegpt's keys": (
        {"conversations": [{"from": "user", "value": "a?"}, {"from": "assistant", "value": "b"}]},
        {},
    ),
    "messages": ({"messages": [USER, SAID]}, {}),
    "messages, a system turn": (
        {"messages": [{"role": "system", "content": "s"}, USER, SAID], "source": "x"},
        {"system": "s"},
    ),
    "messages, tool calls": (
        {"messages": [USER, CALL, {"role": "tool", "content": "12"}, SAID], "tools": TOOLS},
        {"turns": 3, "tools": TOOLS},
    ),
    "preferences": ({"instruction": "a", "input": "?", "chosen": "b", "rejected": "c"}, {"answers": 2}),
    "preferences of conversations": (
        {"conversations": [HUMAN], "chosen": GPT, "rejected": {"from": "gpt", "value": "c"}},
        {"answers": 2},
    ),
    "KTO": ({"prompt": "a?", "completion": "b", "label": False}, {"answers": 2, "last": "b"}),
    "KTO of conversations": ({"messages": [USER, SAID], "kto_tag": True}, {"answers": 2, "last": ""}),
    "plain text": ({"text": "a?"}, {"answers": 0}),
}


def converted(folder, entry, row):
    """What LLaMA-Factory makes of the row under the entry, read from files as it reads them."""
    from datasets import load_dataset
    from llamafactory.data.converter import get_dataset_converter
    from llamafactory.data.parser import get_dataset_list

    (folder / "dataset_info.json").write_text(json.dumps({"guessed": entry}))
    (attributes,) = get_dataset_list(["guessed"], str(folder))
    rows = load_dataset(
        "json", data_files=str(folder / "rows.jsonl"), split="train", cache_dir=folder / "cache"
    )
    convert = get_dataset_converter(attributes.formatting, attributes, SimpleNamespace(media_dir=str(folder)))
    return [convert(one) for one in rows]


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize("tool", ["split", "the others"])
def test_every_form_reaches_the_engine_whole(tmp_path, name, tool):
    row, wanted = FORMS[name]
    file = tmp_path / "rows.jsonl"
    file.write_text((json.dumps(row) + "\n") * 2)
    values = (
        find_dataset(str(file), tmp_path).values
        if tool == "split"
        else find_source(str(file), tmp_path).entry.values
    )
    found = converted(tmp_path, dict(values), row)
    assert len(found) == 2
    for one in found:
        assert len(one["_prompt"]) == wanted.get("turns", 1)
        assert one["_prompt"][-1]["content"] in {wanted.get("asked", "a?"), "a\n?", "<image>a?", "12"}
        assert len(one["_response"]) == wanted.get("answers", 1)
        if one["_response"]:
            assert one["_response"][-1 if "last" in wanted else 0]["content"] == wanted.get("last", "b")
        assert one["_system"].strip() == wanted.get("system", "")
        assert one["_tools"] == wanted.get("tools", "")
        assert [image.rsplit("/", 1)[-1] for image in one["_images"] or []] == wanted.get("images", [])


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (
            {"instruction": "a", "output": "b", "messages": [USER, SAID]},
            "both messages and instruction could be",
        ),
        ({"prompt": "a", "response": "b", "completion": "c"}, "unclear"),
        ({"text": "a", "label": 1}, "unclear"),
        ({"prompt": "a", "completion": "b", "label": 1}, "would train on bad answers as on good ones"),
        ({"prompt": "a", "completion": "b", "kto_tag": "true"}, "would train on bad answers"),
        ({"chosen": [USER, SAID], "rejected": [USER, SAID]}, "chosen and rejected have to be texts"),
        ({"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}]}, SAID]}, "in parts"),
        ({"messages": [{"role": "human", "content": "a"}, USER, SAID]}, "roles human, user"),
        ({"messages": [{"role": "customer", "content": "a"}, SAID]}, "roles customer"),
    ],
)
def test_a_form_that_cannot_be_told_is_asked_for(tmp_path, row, said):
    file = tmp_path / "rows.jsonl"
    file.write_text(json.dumps(row) + "\n")
    with pytest.raises(TunebookError, match=said) as error:
        find_source(str(file), tmp_path)
    assert error.value.fix
    # Splitting changes no row: it says so, and goes on.
    (note,) = find_dataset(str(file), tmp_path).notes
    assert said in note


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("rows.csv", "question;answer\na;b\n", "separated by ';'"),
        ("rows.csv", "question\tanswer\na\tb\n", "separated by '.t'"),
        ("rows.json", '{"data": [{"question": "a", "answer": "b"}]}', "one object that holds rows"),
        ("rows.json", '{"train": {"question": ["a"], "answer": ["b"]}}', "one object that holds rows"),
    ],
)
def test_a_table_that_engines_read_as_another_is_refused_by_all_tools(tmp_path, name, text, said):
    (tmp_path / name).write_text(text)
    for find in (find_source, find_dataset):
        with pytest.raises(TunebookError, match=said):
            find(str(tmp_path / name), tmp_path)
