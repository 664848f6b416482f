"""Our lengths are those of the rows that LLaMA-Factory itself builds, whole and cut."""

import copy
import itertools
import json
import os
import random
import sys
from pathlib import Path

import pytest

from lengths_cases import answer_here
from tunebook.data import registry as datasets
from tunebook.data import sources
from tunebook.lengths import batches
from tunebook.lengths.sets import plan_source

pytestmark = pytest.mark.engine

ROOT = Path(__file__).resolve().parents[2]
ROWS = 40
WORDS = [
    *[
        "plum",
        "brick",
        "river",
        "Film",
        "naïve",
        "日本語",
        "текст",
        "emoji🎬",
        "x=1;",
        "3.14",
        "don't",
        "####",
        "<b>",
        "\t",
        "\n",
    ],
    "a" * 60,
]

TEMPLATES = ["qwen3_nothink", "qwen3", "gemma", "gemma2", "chatml", "llama3", "alpaca", "default"]
OTHERS = ["empty", "fewshot", "llama2", "mistral", "deepseekr1", "aeva", "glm4_moe", "phi4", "qwen", "vicuna"]
CUTOFFS = [100_000, 257, 64, 17, 5]
OPTIONS = [
    {},
    {"mask_history": True},
    {"enable_thinking": False},
    {"enable_thinking": False, "mask_history": True},
    {"preserve_thinking": True, "mask_history": True},
    {"default_system": "Be brief, and say why."},
    {"packing": True},
]


def text(rng: random.Random, most: int) -> str:
    return " ".join(rng.choice(WORDS) for _ in range(rng.randint(1, most)))


def answer(rng: random.Random, most: int) -> str:
    thought = f"<think>\n{text(rng, 20)}\n</think>\n\n" if rng.random() < 0.3 else ""
    return thought + text(rng, most)


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """A registry with a set of each form that is measured."""
    folder = tmp_path_factory.mktemp("lengths")
    rng = random.Random(7)
    alpaca = [
        {
            "instruction": text(rng, 40),
            "input": rng.choice(["", text(rng, 60)]),
            "output": answer(rng, rng.choice([1, 80])),
            "system": rng.choice(["", text(rng, 12)]),
            "history": [[text(rng, 9), answer(rng, 30)] for _ in range(rng.choice([0, 0, 1, 3]))],
        }
        for _ in range(ROWS)
    ]
    sharegpt, openai = [], []
    for _ in range(ROWS):
        turns = []
        for turn in range(rng.randint(1, 4)):
            role = "observation" if turn and rng.random() < 0.3 else "human"
            turns += [{"from": role, "value": text(rng, 50)}, {"from": "gpt", "value": answer(rng, 50)}]
        system = [{"from": "system", "value": text(rng, 10)}] if rng.random() < 0.5 else []
        sharegpt.append({"conversations": system + turns})
        names = {"human": "user", "gpt": "assistant", "observation": "tool", "system": "system"}
        said = [{"role": names[one["from"]], "content": one["value"]} for one in system + turns]
        openai.append({"messages": said})
    # Rows that the engine leaves out.
    sharegpt[3]["conversations"].pop()
    sharegpt[5]["conversations"].insert(0, {"from": "gpt", "value": "I begin."})
    alpaca[4]["output"] = None
    columns = {"prompt": "instruction", "query": "input", "response": "output"}
    tags = {"role_tag": "role", "content_tag": "content", "user_tag": "user", "assistant_tag": "assistant"}
    info = {
        "alpaca": {"columns": {**columns, "system": "system", "history": "history"}},
        "plain": {},
        "sharegpt": {"formatting": "sharegpt"},
        "openai": {
            "formatting": "openai",
            "columns": {"messages": "messages"},
            "tags": {**tags, "observation_tag": "tool", "system_tag": "system"},
        },
    }
    for name, rows in (("alpaca", alpaca), ("plain", alpaca), ("sharegpt", sharegpt), ("openai", openai)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        info[name]["file_name"] = f"{name}.jsonl"
    (folder / "dataset_info.json").write_text(json.dumps(info))
    return folder


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> dict[str, str]:
    """Folders with a tokenizer alone: byte-level, and in the manner of SentencePiece with a BOS."""
    sys.path.insert(0, str(ROOT / "scripts"))
    from tiny_tokenizers import gemma_tokenizer, qwen_tokenizer

    folder = tmp_path_factory.mktemp("tokenizers")
    qwen_tokenizer().save_pretrained(folder / "qwen")
    gemma_tokenizer().save_pretrained(folder / "gemma")
    return {"qwen": str(folder / "qwen"), "gemma": str(folder / "gemma")}


def engine_rows(values: dict) -> list[tuple[int, int]]:
    """Tokens and labels that carry loss, of each row that LLaMA-Factory's own loader builds."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    from llamafactory.data import get_dataset, get_template_and_fix_tokenizer
    from llamafactory.data.template import TEMPLATES as REGISTERED
    from llamafactory.hparams import get_train_args
    from llamafactory.model import load_tokenizer

    packs = values.pop("packing", False)
    arguments = {"stage": "sft", "finetuning_type": "lora", "do_train": True, "report_to": "none"}
    model, data, training = get_train_args(
        {**arguments, "output_dir": "unused", "overwrite_cache": True, **values}
    )[:3]
    # Packing puts several rows into one; its limit is what is looked at here.
    data.cutoff_len -= packs
    tokenizer = load_tokenizer(model)
    before = copy.deepcopy(REGISTERED[values["template"]])
    try:
        template = get_template_and_fix_tokenizer(tokenizer["tokenizer"], data)
        rows = get_dataset(template, model, data, training, stage="sft", **tokenizer)["train_dataset"]
    finally:
        REGISTERED[values["template"]] = before
    return [(len(row["input_ids"]), sum(label != -100 for label in row["labels"])) for row in rows]


@pytest.fixture
def engine_here(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    answer_here(monkeypatch, tmp_path / "cache")


def our_rows(values: dict) -> list[tuple[int, int]]:
    registry = datasets.load_registry(Path(values["dataset_dir"]))
    source = sources.of_entry(registry.entry(values["dataset"]))
    plan = plan_source(source, values)
    plan.ask()
    (rows,) = plan.sets
    found = []
    for batch in rows.counted.batches():
        kept = batches.sizes(rows.rule.keep(batch, rows.limit), rows.form)
        assert (kept.prompt + kept.answer == kept.total).all()
        found += zip(kept.total.tolist(), kept.answer.tolist(), strict=True)
    return found


def cases():
    every = itertools.product(TEMPLATES, ["alpaca", "sharegpt"], CUTOFFS)
    yield from ((template, name, cutoff, {}) for template, name, cutoff in every)
    yield from ((template, "plain", 64, {}) for template in OTHERS)
    yield from ((template, "sharegpt", cutoff, {}) for template in OTHERS for cutoff in (100_000, 64))
    yield from (("qwen3", name, 64, some) for name in ("alpaca", "sharegpt") for some in OPTIONS)
    yield from (("gemma2", name, 64, some) for name in ("alpaca", "sharegpt") for some in OPTIONS)
    yield from (("qwen3_nothink", "openai", cutoff, {}) for cutoff in CUTOFFS)


@pytest.mark.usefixtures("engine_here")
def test_prompts_answers_and_totals_are_those_of_the_engine_s_own_rows(data, models):
    differing, compared = [], 0
    for template, name, cutoff, options in cases():
        for kind, model in models.items():
            if kind == "gemma" and (cutoff not in (100_000, 64) or template in OTHERS):
                continue
            values = {
                "model_name_or_path": model,
                "template": template,
                "dataset_dir": str(data),
                "dataset": name,
                "cutoff_len": cutoff,
                **options,
            }
            theirs, ours = engine_rows(dict(values)), our_rows(values)
            compared += len(theirs)
            if theirs != ours:
                row = next(
                    at for at, pair in enumerate(zip(theirs, ours, strict=False)) if pair[0] != pair[1]
                )
                differing.append((kind, template, name, cutoff, options, row, theirs[row], ours[row]))
    assert not differing
    assert compared > 5000
