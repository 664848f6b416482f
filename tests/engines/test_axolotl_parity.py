"""One registry entry under both engines: the same tokens, the same labels, the same figures."""

import csv
import json
import subprocess
from pathlib import Path

import pytest
import yaml
from axolotl_cases import run_many
from engine_cases import liking, sums

from tunebook import paths
from tunebook.data.registry import load_registry
from tunebook.engines.axolotl.datasets import render_block
from tunebook.errors import TunebookError

pytestmark = pytest.mark.axolotl

HERE = Path(__file__).parent
ROWS = 50

CHATML = {
    "formatting": "sharegpt",
    "columns": {"messages": "messages"},
    "tags": {
        "role_tag": "role",
        "content_tag": "content",
        "user_tag": "user",
        "assistant_tag": "assistant",
        "system_tag": "system",
    },
}
SAME = ("alpaca", "with_input", "csv_system", "sums")
"""Entries whose rows are equal, token for token."""
CONVERSATIONS = ("sharegpt", "openai_system")
"""Entries of one question and answer that Axolotl's own chat_template type reads."""


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("parity")
    like, numbers = liking(ROWS, 1), sums(ROWS, 2)
    rows = {
        "alpaca": like,
        "with_input": [{**row, "input": "They have money.\nAnd time."} for row in like],
        "sums": [{"question": row["instruction"], "answer": row["output"]} for row in numbers],
        "sharegpt": [
            {
                "conversations": [
                    {"from": "human", "value": row["instruction"]},
                    {"from": "gpt", "value": row["output"]},
                ]
            }
            for row in numbers
        ],
        "openai_system": [
            {
                "messages": [
                    {"role": "system", "content": "Be brief."},
                    {"role": "user", "content": row["instruction"]},
                    {"role": "assistant", "content": row["output"]},
                ]
            }
            for row in like
        ],
        "two_turns": [
            {
                "messages": [
                    {"role": "user", "content": row["instruction"]},
                    {"role": "assistant", "content": "Let me think."},
                    {"role": "user", "content": "Well?"},
                    {"role": "assistant", "content": row["output"]},
                ]
            }
            for row in like
        ],
    }
    for name, content in rows.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    with (folder / "x.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["prompt", "question", "response"])
        writer.writerows(["Answer, in one word.", row["instruction"], row["output"]] for row in like)
    columns = {"prompt": "question", "response": "answer"}
    system = {"system": "prompt", "prompt": "question", "response": "response"}
    info = {
        "alpaca": {"file_name": "alpaca.json", "metric": "yes_no"},
        "with_input": {"file_name": "with_input.json"},
        "csv_system": {"file_name": "x.csv", "columns": system},
        "sums": {
            "file_name": "sums.json",
            "columns": columns,
            "metric": {"name": "gsm8k", "max_new_tokens": 16},
        },
        "sharegpt": {"file_name": "sharegpt.json", "formatting": "sharegpt"},
        "openai_system": {"file_name": "openai_system.json", **CHATML},
        "two_turns": {"file_name": "two_turns.json", **CHATML},
    }
    (folder / "dataset_info.json").write_text(json.dumps(info))
    return folder


@pytest.fixture(scope="module")
def llamafactory() -> Path:
    try:
        return paths.engine_environment("llamafactory")
    except TunebookError:
        pytest.skip("LLaMA-Factory is not installed beside Axolotl: nothing to compare with")


def llamafactory_recipe(tiny: Path, data: Path, names: tuple[str, ...], output: Path) -> dict:
    return {
        "model_name_or_path": str(tiny),
        "template": "qwen3",
        "enable_thinking": False,
        "stage": "sft",
        "do_eval": True,
        "finetuning_type": "full",
        "dataset_dir": str(data),
        "eval_dataset": ",".join(names),
        "eval_on_each_dataset": True,
        "cutoff_len": 256,
        "per_device_eval_batch_size": 16,
        "output_dir": str(output),
        "report_to": "none",
    }


@pytest.fixture(scope="module")
def rows(tiny, data, llamafactory, axolotl_recipe, tmp_path_factory) -> dict[str, dict[str, dict]]:
    """Engine -> entry -> columns of ids, each by the engine's own loader."""
    names = (*SAME, *CONVERSATIONS, "two_turns")
    folder = tmp_path_factory.mktemp("rows")
    recipe = folder / "recipe.json"
    recipe.write_text(json.dumps(llamafactory_recipe(tiny, data, names, folder / "output")))
    done = subprocess.run(
        [llamafactory / "bin" / "python", HERE / "llamafactory_rows.py", recipe],
        capture_output=True,
        text=True,
        check=False,
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith("ROWS ")]
    assert lines, done.stderr[-4000:]
    return {"llamafactory": json.loads(lines[0][5:]), "axolotl": axolotl_rows(axolotl_recipe, data, names)}


def axolotl_rows(axolotl_recipe, data: Path, names: tuple[str, ...]) -> dict[str, dict]:
    from axolotl.loaders import load_tokenizer
    from axolotl.utils.dict import DictDefault

    from tunebook.hooks.axolotl import build_set

    registry = load_registry(data)
    cfg = DictDefault(yaml.safe_load(axolotl_recipe("like_train", "like_eval").read_text()))
    cfg.tokenizer_config = cfg.base_model
    tokenizer = load_tokenizer(cfg)
    found = {}
    for name in names:
        block = {"chat_template": "tokenizer_default", **render_block(registry.entry(name), str(data))}
        dataset = build_set(name, block, cfg, tokenizer)
        found[name] = {key: list(dataset[key]) for key in ("input_ids", "labels")}
    return found


@pytest.mark.parametrize("name", SAME)
def test_both_engines_give_the_model_the_same_tokens_and_labels(rows, name):
    ours, theirs = rows["axolotl"][name], rows["llamafactory"][name]
    assert len(ours["input_ids"]) == ROWS
    assert ours["input_ids"] == theirs["input_ids"]
    assert ours["labels"] == theirs["labels"]


@pytest.mark.parametrize("name", CONVERSATIONS)
def test_axolotl_s_conversations_differ_in_the_last_line_end_alone(rows, name):
    ours, theirs = rows["axolotl"][name], rows["llamafactory"][name]
    assert len(ours["input_ids"]) == ROWS
    assert ours["input_ids"] == theirs["input_ids"]
    # LLaMA-Factory learns the line end after the turn, Axolotl's chat_template type does not.
    assert ours["labels"] == [[*labels[:-1], -100] for labels in theirs["labels"]]


def test_the_empty_think_block_of_an_earlier_turn_is_llamafactory_s_alone(rows, tiny):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny)
    block = tokenizer.encode("<think>\n\n</think>\n\n", add_special_tokens=False)
    ours, theirs = rows["axolotl"]["two_turns"], rows["llamafactory"]["two_turns"]
    for our_ids, our_labels, ids, labels in zip(
        ours["input_ids"], ours["labels"], theirs["input_ids"], theirs["labels"], strict=True
    ):
        first = next(at for at in range(len(ids)) if ids[at : at + len(block)] == block)
        assert our_ids == ids[:first] + ids[first + len(block) :]
        line_end = tokenizer.encode("\n", add_special_tokens=False)
        learned = [label for label in labels if label not in (-100, *line_end)]
        assert [label for label in our_labels if label != -100] == learned


def test_an_untrained_checkpoint_has_the_same_figures_under_both_engines(
    tiny, data, llamafactory, axolotl_recipe, tmp_path_factory
):
    folder = tmp_path_factory.mktemp("figures")
    names = ("alpaca", "sums")
    recipe = folder / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(llamafactory_recipe(tiny, data, names, folder / "llamafactory")))
    done = subprocess.run(
        [llamafactory / "bin" / "llamafactory-cli", "train", recipe],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    path = axolotl_recipe("like_train", "like_eval", output_dir=str(folder / "axolotl"))
    values = yaml.safe_load(path.read_text())
    registry = load_registry(data)
    values["tunebook_dataset_dir"] = str(data)
    values["tunebook_eval_datasets"] = list(names)
    values["test_datasets"] = [render_block(registry.entry(name), str(data)) for name in names]
    path.write_text(yaml.safe_dump(values))
    run = run_many(folder, [{"verb": "evaluate", "recipe": path}])[0]
    assert run.code == 0, run.log[-4000:]
    for name in names:
        lines = [
            next(line for line in map(json.loads, file.open()) if line["dataset"] == name)
            for file in (
                folder / "llamafactory" / "tunebook" / "eval_metrics.jsonl",
                run.output / "tunebook" / "eval_metrics.jsonl",
            )
        ]
        figures = [
            {key: value for key, value in line["values"].items() if key != "generation_seconds"}
            for line in lines
        ]
        assert figures[0] == figures[1]
        records = [
            [json.loads(line) for line in (output / "tunebook" / f"eval_records-{name}-0.jsonl").open()]
            for output in (folder / "llamafactory", run.output)
        ]
        assert records[0] == records[1]
