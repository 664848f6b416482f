"""`tunebook infer` and `tunebook verify` of Axolotl's runs."""

import json

import pytest
from axolotl_cases import LORA, run_many, state_of
from engine_cases import Run, sums
from infer_cases import differing, rows_of, tunebook, verify

pytestmark = pytest.mark.axolotl


def chat(row) -> dict:
    turns = [("user", row["instruction"]), ("assistant", row["output"])]
    return {"messages": [{"role": role, "content": content} for role, content in turns]}


@pytest.fixture(scope="session")
def adapter(axolotl_recipe, registry, tmp_path_factory) -> Run:
    """An adapter trained on `type: chat_template` and evaluated by generation."""
    info = json.loads((registry / "dataset_info.json").read_text())
    tags = {"role_tag": "role", "content_tag": "content", "user_tag": "user", "assistant_tag": "assistant"}
    for name, rows in (("chat_train", sums(500, 10)), ("chat_eval", sums(20, 11))):
        (registry / f"{name}.jsonl").write_text("".join(json.dumps(chat(row)) + "\n" for row in rows))
        info[name] = {
            "file_name": f"{name}.jsonl",
            "formatting": "sharegpt",
            "columns": {"messages": "messages"},
            "tags": tags,
            "metric": {"name": "gsm8k", "max_new_tokens": 40},
        }
    (registry / "dataset_info.json").write_text(json.dumps(info))
    block = lambda name: {"path": str(registry / f"{name}.jsonl"), "type": "chat_template", "split": "train"}  # noqa: E731
    recipe = axolotl_recipe(
        "chat_train",
        "chat_eval",
        datasets=[block("chat_train")],
        test_datasets=[block("chat_eval")],
        chat_template_kwargs=None,
        max_steps=20,
        eval_steps=20,
        save_steps=20,
        **LORA,
    )
    (run,) = run_many(tmp_path_factory.mktemp("adapter"), [{"verb": "train", "recipe": recipe}])
    assert run.code == 0, run.log[-3000:]
    return run


def test_answers_of_an_adapter_are_those_of_the_evaluation(adapter, registry, tmp_path):
    out = tmp_path / "out.jsonl"
    words = ["infer", adapter.output, registry / "chat_eval.jsonl", "-o", out]
    tunebook(*words, "--max-new-tokens", "40", "--base")
    rows = rows_of(out)
    records = adapter.records("chat_eval", 20)
    assert [row["prediction"] for row in rows] == [record["prediction"] for record in records]
    assert any(row["prediction_base"] != row["prediction"] for row in rows)
    assert all(row["messages"][-1]["role"] == "assistant" for row in rows), "the row is handed on whole"


def test_answers_of_a_whole_model_are_those_of_the_evaluation(axolotl_learned, registry, tmp_path):
    out = tmp_path / "out.jsonl"
    words = ["infer", axolotl_learned.output, registry / "like_eval.json", "-o", out, "--max-new-tokens", "8"]
    tunebook(*words, "--checkpoint", "best")
    records = axolotl_learned.records("like_eval", state_of(axolotl_learned, 80)["best_global_step"])
    assert [row["prediction"] for row in rows_of(out)] == [record["prediction"] for record in records]


def test_the_think_block_that_training_always_saw_is_found(adapter, registry, tmp_path):
    found = verify(adapter.output, code=1)
    assert "prompt: one turn" in differing(found)
    assert found["findings"]["prompt: one turn"]["fix"].startswith(
        'serve with chat_template_kwargs={"enable_thinking": false}'
    )
    assert not differing(found) - {name for name in found["findings"] if name.startswith("prompt: ")}


def test_asked_as_the_recipe_says_the_rows_of_the_training_are_clean(axolotl_learned, registry, tmp_path):
    rows = tmp_path / "rows.json"
    rows.write_text(json.dumps(json.loads((registry / "like_eval.json").read_text())[:3]))
    served = ["--chat-template-kwargs", '{"enable_thinking": false}', "--conversation", rows]
    assert verify(axolotl_learned.output, *served, code=0)["equal"]
