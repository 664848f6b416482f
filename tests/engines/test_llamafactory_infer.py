"""`tunebook infer` and `tunebook verify` of LLaMA-Factory's runs."""

import json
import shutil

import pytest
import yaml
from engine_cases import Run
from infer_cases import differing, kill_after_some_rows, rows_of, tunebook, verify

pytestmark = pytest.mark.engine

ADDED = {
    f"{name}{suffix}"
    for name in ("prediction", "finish_reason", "prompt_tokens", "completion_tokens")
    for suffix in ("", "_base")
}
CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@pytest.fixture(scope="session")
def runs(recipe, train_many) -> dict[str, Run]:
    """An adapter that was evaluated by generation, and a whole model with a template that does not think."""
    adapter = recipe(
        dataset="sums_train",
        eval_dataset="sums_eval",
        finetuning_type="lora",
        lora_rank=16,
        lora_target="all",
        max_steps=40,
        eval_steps=40,
        save_steps=40,
    )
    whole = recipe(
        template="qwen3_nothink",
        enable_thinking=None,
        max_steps=2,
        eval_dataset=None,
        eval_strategy=None,
        eval_steps=None,
        save_strategy="no",
        save_steps=None,
    )
    found = dict(zip(("adapter", "whole"), train_many([adapter, whole]), strict=True))
    assert [run.code for run in found.values()] == [0, 0], [run.log[-2000:] for run in found.values()]
    return found


@pytest.fixture(scope="session")
def answered(runs, registry, tmp_path_factory):
    """The adapter's answers to its evaluation rows, eight at a time, with the base's beside them."""
    out = tmp_path_factory.mktemp("answers") / "both.jsonl"
    file = registry / "sums_eval.json"
    tunebook("infer", runs["adapter"].output, file, "-o", out, "--max-new-tokens", "40", "--base")
    return out


def test_answers_are_those_of_the_evaluation_row_by_row(runs, answered, registry):
    rows = rows_of(answered)
    records = runs["adapter"].records("sums_eval", 40)
    assert [row["prediction"] for row in rows] == [record["prediction"] for record in records]
    given = json.loads((registry / "sums_eval.json").read_text())
    assert [{key: row[key] for key in row.keys() - ADDED} for row in rows] == given
    assert all(row.keys() >= ADDED for row in rows)
    assert {row["finish_reason"] for row in rows} <= {"stop", "length"}
    base = runs["adapter"]
    assert [row["prediction_base"] for row in rows] != [row["prediction"] for row in rows]
    assert base.output.joinpath("adapter_model.safetensors").is_file()


def test_base_and_trained_answers_of_one_file_can_be_compared(answered):
    columns = ["--prediction-column", "prediction_base", "--prediction-column", "prediction"]
    found = json.loads(tunebook("compare", answered, answered, *columns, "--metric", "gsm8k", "--json"))
    assert found["sets"][0]["n"] == 48


def test_killed_and_resumed_with_one_row_at_a_time_gives_the_same(runs, answered, registry, tmp_path):
    out = tmp_path / "one.jsonl"
    command = ["infer", runs["adapter"].output, registry / "sums_eval.json", "-o", out]
    command += ["--max-new-tokens", "40", "--batch-size", "1"]
    part = out.with_name("one.jsonl.part")
    left = kill_after_some_rows(*command, part=part)
    assert 0 < left < 48
    assert not out.exists(), "the file appears whole"
    with part.open("ab") as stream:
        stream.write(b'{"instruction": "torn')
    tunebook(*command)
    wanted = [
        {key: value for key, value in row.items() if not key.endswith("_base")} for row in rows_of(answered)
    ]
    assert rows_of(out) == wanted
    assert "answered already" in tunebook(*command)
    changed = tunebook(*command, "--system", "Be brief.", code=2)
    assert changed == ""
    assert rows_of(out) == wanted, "nothing is lost"


def test_a_single_prompt_is_answered_on_stdout(runs, answered):
    row = rows_of(answered)[0]
    command = ["infer", runs["adapter"].output, "--prompt", row["instruction"], "--max-new-tokens", "40"]
    assert tunebook(*command) == row["prediction"] + "\n"


def test_a_model_that_is_served_as_it_was_trained_is_clean(runs):
    found = verify(runs["whole"].output, code=0)
    assert found["equal"]
    assert {one["level"] for one in found["findings"].values()} == {"equal"}, found["findings"]
    assert len(found["rendered"]["samples"]) == 4


def test_an_empty_think_block_that_a_server_leaves_out_is_found(runs, registry, tmp_path):
    found = verify(runs["adapter"].output, code=1)
    one = found["findings"]["prompt: one turn"]
    assert "'<think>'" in one["message"]
    assert one["fix"].startswith('serve with chat_template_kwargs={"enable_thinking": false}')
    # The training's own rows, asked as the fix says.
    rows = tmp_path / "rows.json"
    rows.write_text(json.dumps(json.loads((registry / "sums_eval.json").read_text())[:3]))
    served = ["--chat-template-kwargs", '{"enable_thinking": false}', "--conversation", rows]
    assert verify(runs["adapter"].output, *served, code=0)["equal"]


def test_a_changed_template_and_a_wrong_stop_token_are_found(runs, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(runs["whole"].output, folder)
    (folder / "chat_template.jinja").write_text(CHATML.replace("assistant\n{% endif", "assistant: {% endif"))
    settings = json.loads((folder / "generation_config.json").read_text())
    (folder / "generation_config.json").write_text(json.dumps({**settings, "eos_token_id": 0}))
    found = verify(folder, code=1)
    assert {"prompt: one turn", "chat template", "stop tokens"} <= differing(found)
    assert "put the one back" in found["findings"]["prompt: one turn"]["fix"]
    assert "rope" not in differing(found)


def test_a_think_block_in_the_labels_that_the_template_does_not_know_is_found(runs, tiny, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(runs["whole"].output, folder)
    (folder / "tunebook_contract.json").unlink()
    (folder / "chat_template.jinja").write_text(CHATML)
    file = tmp_path / "recipe.yaml"
    recipe = {"model_name_or_path": str(tiny), "template": "qwen3", "enable_thinking": True, "stage": "sft"}
    file.write_text(yaml.safe_dump({**recipe, "finetuning_type": "full"}))
    found = verify(folder, "--recipe", file, code=1)
    assert found["findings"]["prompt: one turn"]["level"] == "equal", "a single prompt is the same"
    assert "answer" in differing(found)
    assert "<think>" in found["findings"]["answer"]["message"]
    assert found["findings"]["contract"]["level"] == "unknown"
