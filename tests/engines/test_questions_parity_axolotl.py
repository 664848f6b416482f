"""What a server is asked is what Axolotl itself builds of the same rows, and examples reach it."""

import json
import random
import sys
from pathlib import Path

import pytest
import yaml

from lengths_cases import answer_here
from tunebook.data import registry as datasets
from tunebook.engines.axolotl.datasets import render_block
from tunebook.evaluation import shots_data
from tunebook.evaluation.questions import read_questions

pytestmark = pytest.mark.axolotl

ROOT = Path(__file__).resolve().parents[2]
WORDS = ["plum", "brick", "naïve", "日本語", "текст", "🎬", "x=1;", "3.14", "don't", "\n", "a" * 60]


def text(rng: random.Random, most: int) -> str:
    return " ".join(rng.choice(WORDS) for _ in range(rng.randint(1, most)))


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """A registry with both forms of rows, some of them too long."""
    folder = tmp_path_factory.mktemp("questions")
    rng = random.Random(3)
    alpaca, chats = [], []
    for _ in range(30):
        alpaca.append(
            {
                "ask": text(rng, 30),
                "more": rng.choice(["", text(rng, 20)]),
                "say": text(rng, 30).strip() or "Yes",
                "sys": rng.choice(["", text(rng, 8)]),
            }
        )
        turns = []
        for _ in range(rng.randint(1, 3)):
            turns += [{"from": "human", "value": text(rng, 20)}, {"from": "gpt", "value": text(rng, 20)}]
        chats.append({"conversations": turns})
    columns = {"prompt": "ask", "query": "more", "response": "say", "system": "sys"}
    entries = {
        "alpaca": (alpaca, {"columns": columns}),
        "chats": (chats, {"formatting": "sharegpt"}),
        "some": (alpaca, {"columns": columns, "num_samples": 9}),
    }
    info = {}
    for name, (rows, entry) in entries.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        info[name] = {"file_name": f"{name}.jsonl", "metric": "exact_match", **entry}
    (folder / "dataset_info.json").write_text(json.dumps(info))
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    sys.path.insert(0, str(ROOT / "scripts"))
    from tiny_tokenizers import qwen_tokenizer

    folder = tmp_path_factory.mktemp("tokenizer")
    qwen_tokenizer().save_pretrained(folder)
    (folder / "config.json").write_text('{"model_type": "llama"}')
    return folder


def engine_rows(values: dict, tokenizer, name: str) -> list[tuple[str, int, str]]:
    """Prompt, its tokens, and reference of each row that Axolotl's own loader builds and keeps."""
    from axolotl.utils.data import sft
    from axolotl.utils.data.utils import handle_long_seq_in_dataset
    from axolotl.utils.dict import DictDefault

    cfg = DictDefault(values)
    block = values["test_datasets"][values["tunebook_eval_datasets"].index(name)]
    rows, _ = sft._load_and_process_single_dataset(
        dataset_config=DictDefault(block), cfg=cfg, tokenizer=tokenizer, split="test", seed=1
    )
    found = []
    for row in handle_long_seq_in_dataset(rows, cfg.sequence_len, cfg):
        labels = row["labels"]
        end = len(labels) - next(at for at, label in enumerate(reversed(labels)) if label != -100)
        start = end
        while start and labels[start - 1] != -100:
            start -= 1
        said = labels[start:end]
        said = said[: said.index(tokenizer.eos_token_id)]
        shown = tokenizer.decode(row["input_ids"][:start][-1024:])
        if start > 1024:
            shown = f"[{start - 1024} tokens before] {shown}"
        found.append((shown, start, tokenizer.decode(said, skip_special_tokens=True)))
    return found


def our_rows(values: dict, name: str) -> list[tuple[str, int, str]]:
    found = read_questions(values, "axolotl", [name], home=ROOT)[0].questions
    return [(question.shown, question.prompt_tokens, question.reference) for question in found]


def test_prompts_and_references_are_those_of_the_engine_s_own_rows(data, model, tmp_path, monkeypatch):
    answer_here(monkeypatch, tmp_path / "cache")
    from axolotl.loaders import load_tokenizer
    from axolotl.utils.dict import DictDefault

    registry = datasets.load_registry(data)
    names = ["alpaca", "chats", "some"]
    values = {
        "base_model": str(model),
        "tokenizer_config": str(model),
        "learning_rate": 1e-4,
        "chat_template_kwargs": {"enable_thinking": False},
        "test_datasets": [render_block(registry.entry(name), str(data)) for name in names],
        "tunebook_dataset_dir": str(data),
        "tunebook_eval_datasets": names,
    }
    tokenizer = load_tokenizer(DictDefault(values))
    shots = "Is water wet?\nYes\n\n"
    shots_data.write_registry(registry, names, shots, tmp_path / "shots")
    compared = 0
    for limit in (100_000, 700):
        plain = {**values, "sequence_len": limit}
        shown = shots_data.on_registry(plain, "axolotl", tmp_path / "shots")
        yaml.safe_dump(shown)  # a recipe that can be written
        for case in (plain, shown):
            for name in names:
                theirs = engine_rows(case, tokenizer, name)
                assert our_rows(case, name) == theirs, (limit, name)
                assert all((shots in prompt) == (case is shown) for prompt, _, _ in theirs)
                compared += len(theirs)
    assert compared > 200
    assert len(our_rows({**values, "sequence_len": 700}, "alpaca")) < 30
