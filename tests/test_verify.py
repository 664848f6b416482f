"""What `tunebook verify` makes of both sides' tokens and of a model's files; real templates are in tests/engines."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from test_contract import whole_contract, write_safetensors
from tunebook.models import contract
from tunebook.models.source import find_model
from tunebook.verification.prompts import (
    align,
    answer_findings,
    first_difference,
    prompt_findings,
    read_samples,
    stop_findings,
)
from tunebook.verification.saved_files import file_findings, generation_eos

IDS = st.lists(st.integers(0, 3), max_size=12)


@given(IDS, IDS)
def test_an_alignment_holds_both_sides_whole_and_in_order(trained, served):
    pairs = align(trained, served)
    assert [pair.trained for pair in pairs if pair.trained is not None] == trained
    assert [pair.served for pair in pairs if pair.served is not None] == served
    assert all(pair.equal for pair in pairs) == (trained == served)


@given(IDS, IDS)
def test_the_first_difference_is_where_equal_beginnings_end(trained, served):
    place = first_difference(trained, served)
    if place is None:
        assert trained == served
    else:
        assert trained[:place] == served[:place]
        assert trained[place : place + 1] != served[place : place + 1]


TEXTS = {
    str(n): text for n, text in enumerate(["<user>", "Hi", "<end>", "<bot>", "<think>", "</think>", "Yes"])
}


def rendered(trained=(0, 1, 2, 3, 4, 5), prompts=None, *, prefix="", whole="", closing=(2,), eos=2):
    """One conversation as both sides wrote it."""
    return {
        "samples": [
            {
                "name": "one turn",
                "messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yes"}],
                "trained": {
                    "ids": [*trained, 6, 2],
                    "answer_start": len(trained),
                    "answer_prefix": prefix,
                    "closing": list(closing),
                },
                "served": {"prompts": prompts or {"as served": list(trained)}, "whole": whole},
            }
        ],
        "texts": {"trained": TEXTS, "served": TEXTS},
        "has_template": True,
        "saved_eos": eos,
    }


def test_equal_prompts_are_equal():
    (found,) = prompt_findings(rendered(), changed=False, default_system=None)
    assert (found.level, found.fix) == ("equal", None)


def test_an_empty_think_block_is_asked_for_by_name():
    ways = {
        "as served": [0, 1, 2, 3],
        "enable_thinking=false": [0, 1, 2, 3, 4, 5],
        "enable_thinking=true": [0],
    }
    (found,) = prompt_findings(rendered(prompts=ways), changed=False, default_system=None)
    assert found.level == "differs"
    assert "token 4" in found.message
    assert "'<think>'" in found.message
    assert found.fix == 'serve with chat_template_kwargs={"enable_thinking": false}'


def test_a_default_system_prompt_is_to_be_sent():
    ways = {"as served": [0], "as served with the system prompt": [0, 1, 2, 3, 4, 5]}
    (found,) = prompt_findings(rendered(prompts=ways), changed=False, default_system="Be brief.")
    assert found.fix == 'send the system prompt "Be brief." with each request'


def test_what_no_way_of_asking_fixes_needs_another_template():
    ways = {"as served": [3], "enable_thinking=false": [3]}
    (found,) = prompt_findings(rendered(prompts=ways), changed=False, default_system=None)
    assert "--chat-template" in found.fix
    (found,) = prompt_findings(rendered(prompts=ways), changed=True, default_system=None)
    assert "put the one back" in found.fix


def test_a_tokenizer_without_a_template_cannot_be_served():
    (found,) = prompt_findings({"has_template": False}, changed=False, default_system=None)
    assert found.level == "differs"


def test_a_refused_system_prompt_is_a_note_and_not_a_difference():
    found = prompt_findings(rendered(prompts={"as served": "no system"}), changed=False, default_system=None)
    assert [one.level for one in found] == ["note"]


@pytest.mark.parametrize(("whole", "level"), [("<bot><think>Yes", "note"), ("<bot>Yes", "differs")])
def test_a_think_block_in_the_labels_must_be_known_to_the_template(whole, level):
    (found,) = answer_findings(rendered(prefix="<think>", whole=whole))
    assert found.level == level


@pytest.mark.parametrize(
    ("closing", "generation", "saved", "level", "fix"),
    [
        ([2], [2, 5], 2, "equal", None),
        ([2], None, 2, "equal", None),
        ([2], [5], 5, "differs", '"eos_token_id": 2'),
        ([2], [5], 2, "differs", '"eos_token_id": [2, 5]'),
        ([2], None, None, "differs", '"eos_token_id": 2'),
        ([], [2], 2, "differs", "closes a turn"),
    ],
)
def test_generation_must_end_at_what_training_put_after_answers(closing, generation, saved, level, fix):
    (found,) = stop_findings(rendered(closing=closing, eos=saved), generation, "generation_config.json")
    assert found.level == level
    assert fix is None or fix in found.fix


ROPE = {
    "parameters": {"rope_type": "yarn", "factor": 4.0, "rope_theta": 1e6},
    "theta": 1e6,
    "max_position_embeddings": 131072,
}


@pytest.fixture
def model(tmp_path) -> Path:
    """A whole model whose files agree with its contract."""
    base = tmp_path / "base"
    base.mkdir()
    (base / "config.json").write_text("{}")
    write_safetensors(base / "model.safetensors", {"model.embed_tokens.weight": [8, 2]})
    folder = tmp_path / "model"
    folder.mkdir()
    write_safetensors(folder / "model.safetensors", {"model.embed_tokens.weight": [8, 2]})
    (folder / "tokenizer.json").write_text('{"model": {}}')
    (folder / "chat_template.jinja").write_text("{{ messages }}")
    config = {
        "rope_scaling": {"type": "yarn", "factor": 4.0},  # as transformers 4 writes it
        "rope_theta": 1e6,
        "max_position_embeddings": 131072,
        "dtype": "bfloat16",
    }
    (folder / "config.json").write_text(json.dumps(config))
    made = whole_contract(
        base={"name_or_path": str(base), "fingerprint": contract.fingerprint(base)},
        template={"chat_template_sha256": contract.text_sha256("{{ messages }}")},
        rope=ROPE,
        dtype={"weights": "bfloat16", "compute": "bfloat16"},
        tokens={"tokenizer_sha256": contract.tokenizer_sha256({"model": {}})},
    )
    (folder / contract.FILE).write_text(json.dumps(made))
    return folder


def levels(folder, vocabulary=8):
    return {one.check: one.level for one in file_findings(find_model(str(folder)), folder, vocabulary)}


def test_files_that_agree_with_the_contract_are_equal(model):
    found = levels(model)
    assert set(found.values()) == {"equal"}, found
    assert set(found) == {"chat template", "tokenizer", "rope", "base model", "precision", "vocabulary"}


def edit(path, **changes):
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.mark.parametrize(
    ("check", "change"),
    [
        ("rope", lambda f: edit(f / "config.json", rope_scaling=None)),
        ("rope", lambda f: edit(f / "config.json", max_position_embeddings=40960)),
        ("rope", lambda f: edit(f / "config.json", rope_theta=1e4)),
        ("precision", lambda f: edit(f / "config.json", dtype="float16")),
        ("tokenizer", lambda f: edit(f / "tokenizer.json", model={"vocab": {}})),
        ("chat template", lambda f: (f / "chat_template.jinja").write_text("{{ messages[0] }}")),
        ("base model", lambda f: edit(f.parent / "base" / "config.json", vocab_size=9)),
    ],
)
def test_each_planted_difference_is_found_and_no_other(model, check, change):
    change(model)
    found = levels(model)
    assert [name for name, level in found.items() if level == "differs"] == [check]
    finding = next(one for one in file_findings(find_model(str(model)), model, 8) if one.check == check)
    assert finding.fix


def test_a_tokenizer_beyond_the_embedding_is_found(model):
    assert levels(model, vocabulary=9)["vocabulary"] == "differs"


def test_an_adapter_of_another_base_is_found(model):
    (model / "model.safetensors").rename(model / "adapter_model.safetensors")
    (model / "adapter_config.json").write_text('{"base_model_name_or_path": "/models/another"}')
    findings = [one for one in file_findings(find_model(str(model)), model, 8) if one.level == "differs"]
    named = [one for one in findings if "adapter_config.json names" in one.message]
    assert len(named) == 1
    # Its base has no rope scaling in its config.json: a server would not scale.
    assert "rope" in {one.check for one in findings}


def test_without_a_contract_the_files_are_not_called_equal(model):
    (model / contract.FILE).unlink()
    assert levels(model) == {"contract": "unknown", "vocabulary": "equal"}


def test_generation_ends_where_the_first_file_with_end_tokens_says(model):
    source = find_model(str(model))
    assert generation_eos(source)[0] is None
    edit(model / "config.json", eos_token_id=5)
    assert generation_eos(source) == ([5], str(model / "config.json"))
    (model / "generation_config.json").write_text('{"eos_token_id": [2, 5]}')
    assert generation_eos(source) == ([2, 5], str(model / "generation_config.json"))


def test_ones_own_conversations_are_read_in_any_shape(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text(
        '{"prompt": "Hi"}\n{"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}]}\n'
    )
    assert [sample["messages"][-1]["content"] for sample in read_samples(path)] == ["Yes", "Ho"]
