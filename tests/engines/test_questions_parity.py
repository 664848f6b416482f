"""What a server is asked is what LLaMA-Factory itself builds of the same rows: prompts, references, choice."""

import copy
import json
import os
import random
import sys
from pathlib import Path

import pytest

from lengths_cases import answer_here
from tunebook.evaluation.questions import read_questions

pytestmark = pytest.mark.engine

ROOT = Path(__file__).resolve().parents[2]
WORDS = [
    "plum",
    "brick",
    "naïve",
    "日本語",
    "текст",
    "🎬",
    "x=1;",
    "3.14",
    "don't",
    "####",
    "<b>",
    "\n",
    "a" * 60,
]


def text(rng: random.Random, most: int) -> str:
    return " ".join(rng.choice(WORDS) for _ in range(rng.randint(1, most)))


def answer(rng: random.Random) -> str:
    return (f"<think>\n{text(rng, 9)}\n</think>\n\n" if rng.random() < 0.3 else "") + text(rng, 20).strip()


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """Sets of every form: history, system messages, tags of one's own, rows that the engine leaves out."""
    folder = tmp_path_factory.mktemp("questions")
    rng = random.Random(5)
    alpaca, sharegpt, openai = [], [], []
    for _ in range(30):
        alpaca.append(
            {
                "ask": text(rng, 20),
                "more": rng.choice(["", text(rng, 30)]),
                "say": answer(rng),
                "sys": rng.choice(["", text(rng, 9)]),
                "old": [[text(rng, 5), answer(rng)] for _ in range(rng.choice([0, 0, 1, 3]))],
            }
        )
        turns = []
        for turn in range(rng.randint(1, 4)):
            role = "observation" if turn and rng.random() < 0.3 else "human"
            turns += [{"from": role, "value": text(rng, 20)}, {"from": "gpt", "value": answer(rng)}]
        system = [{"from": "system", "value": text(rng, 9)}] if rng.random() < 0.5 else []
        sharegpt.append({"conversations": system + turns})
        names = {"human": "user", "gpt": "bot", "observation": "tool", "system": "system"}
        openai.append({"talk": [{"who": names[t["from"]], "what": t["value"]} for t in system + turns]})
    alpaca[4]["say"] = None
    sharegpt[3]["conversations"].pop()
    columns = {"prompt": "ask", "query": "more", "response": "say", "system": "sys", "history": "old"}
    tags = {"role_tag": "who", "content_tag": "what", "user_tag": "user", "assistant_tag": "bot"}
    entries = {
        "alpaca": (alpaca, {"columns": columns}),
        "plain": (
            [{"instruction": row["ask"], "input": row["more"], "output": row["say"]} for row in alpaca],
            {},
        ),
        "sharegpt": (sharegpt, {"formatting": "sharegpt"}),
        "openai": (
            openai,
            {
                "formatting": "openai",
                "columns": {"messages": "talk"},
                "tags": {**tags, "observation_tag": "tool", "system_tag": "system"},
            },
        ),
    }
    entries["drawn_train"] = (alpaca, {"columns": columns, "num_samples": 7})
    entries["drawn"] = (alpaca, {"columns": columns, "num_samples": 12})
    entries["drawn_often"] = (alpaca, {"columns": columns, "num_samples": 50})
    info = {}
    for name, (rows, entry) in entries.items():
        (folder / f"{name}.json").write_text(json.dumps(rows))
        info[name] = {"file_name": f"{name}.json", **entry}
    (folder / "dataset_info.json").write_text(json.dumps(info))
    return folder


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> dict[str, str]:
    sys.path.insert(0, str(ROOT / "scripts"))
    from tiny_tokenizers import gemma_tokenizer, qwen_tokenizer

    folder = tmp_path_factory.mktemp("tokenizers")
    qwen_tokenizer().save_pretrained(folder / "qwen")
    gemma_tokenizer().save_pretrained(folder / "gemma")
    return {"qwen": str(folder / "qwen"), "gemma": str(folder / "gemma")}


def engine_rows(values: dict, name: str) -> list[tuple[str, int, str]]:
    """Prompt, its tokens, and reference of each evaluation row that LLaMA-Factory's own loader builds."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    from llamafactory.data import get_dataset, get_template_and_fix_tokenizer
    from llamafactory.data.template import TEMPLATES as REGISTERED
    from llamafactory.hparams import get_train_args
    from llamafactory.model import load_tokenizer

    arguments = {"stage": "sft", "finetuning_type": "lora", "do_train": True, "report_to": "none"}
    model, data, training = get_train_args(
        {**arguments, "output_dir": "unused", "overwrite_cache": True, **values}
    )[:3]
    module = load_tokenizer(model)
    tokenizer = module["tokenizer"]
    before = copy.deepcopy(REGISTERED[values["template"]])
    try:
        template = get_template_and_fix_tokenizer(tokenizer, data)
        rows = get_dataset(template, model, data, training, stage="sft", **module)["eval_dataset"]
    finally:
        REGISTERED[values["template"]] = before
    if isinstance(rows, dict):
        rows = rows[name] if name in rows else rows[f"eval_{name}"]
    stops = {tokenizer.eos_token_id, *template.get_stop_token_ids(tokenizer)}
    found = []
    for row in rows:
        labels = row["labels"]
        end = len(labels) - next(at for at, label in enumerate(reversed(labels)) if label != -100)
        start = end
        while start and labels[start - 1] != -100:
            start -= 1
        said = labels[start:end]
        said = said[: next((at for at, token in enumerate(said) if token in stops), len(said))]
        prompt = row["input_ids"][:start]
        shown = tokenizer.decode(prompt[-1024:])
        if len(prompt) > 1024:
            shown = f"[{len(prompt) - 1024} tokens before] {shown}"
        found.append((shown, len(prompt), tokenizer.decode(said, skip_special_tokens=True)))
    return found


def our_rows(values: dict, name: str) -> list[tuple[str, int, str]]:
    found = read_questions(values, "llamafactory", [name], home=ROOT)[0].questions
    assert [question.index for question in found] == list(range(len(found)))
    return [(question.shown, question.prompt_tokens, question.reference) for question in found]


CASES = [
    ("qwen", template, name, options)
    for template in ("qwen3", "qwen3_nothink", "chatml", "llama3", "qwen", "default")
    for name in ("alpaca", "plain", "sharegpt", "openai")
    for options in (
        [
            {},
            {"enable_thinking": False},
            {"enable_thinking": False, "mask_history": True},
            {"mask_history": True},
        ]
        if template == "qwen3"
        else [{}]
    )
]
CASES += [
    ("gemma", template, name, {}) for template in ("gemma", "gemma2") for name in ("alpaca", "sharegpt")
]
CASES += [
    ("qwen", "qwen3", "drawn", {"dataset": "drawn_train,plain", "seed": 3}),
    ("qwen", "qwen3", "drawn", {"dataset": "plain", "eval_dataset": "drawn_often,drawn"}),
    ("qwen", "qwen3", "drawn_often", {"dataset": "plain", "max_samples": 40}),
    ("qwen", "qwen3", "alpaca", {"max_samples": 6}),
    ("qwen", "qwen3_nothink", "plain", {"default_system": "Be brief, and say why."}),
]


def test_prompts_and_references_are_those_of_the_engine_s_own_rows(data, models, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    answer_here(monkeypatch, tmp_path / "cache")
    differing, compared = [], 0
    for kind, template, name, options in CASES:
        values = {
            "model_name_or_path": models[kind],
            "template": template,
            "dataset_dir": str(data),
            "dataset": "plain",
            "eval_dataset": name,
            "cutoff_len": 100_000,
            "eval_on_each_dataset": True,
            **options,
        }
        theirs, ours = engine_rows(dict(values), name), our_rows(values, name)
        compared += len(theirs)
        if theirs != ours:
            row = next(
                (at for at, (one, two) in enumerate(zip(theirs, ours, strict=False)) if one != two), -1
            )
            differing.append((kind, template, name, options, row, theirs[row], ours[row]))
    assert not differing, differing[:3]
    assert compared > 900
