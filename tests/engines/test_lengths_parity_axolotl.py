"""Our lengths are those of the rows that Axolotl itself builds, kept, dropped and truncated."""

import json
import random
import sys
from pathlib import Path

import pytest
import yaml

from lengths_cases import answer_here
from tunebook.lengths import batches
from tunebook.lengths.sets import plan_recipe
from tunebook.recipes import catalog

pytestmark = pytest.mark.axolotl

ROOT = Path(__file__).resolve().parents[2]
ROWS = 30
WORDS = [
    *("plum", "brick", "naïve", "日本語", "текст", "🎬", "x=1;", "3.14", "don't", "\t", "\n", "a" * 60, "  ")
]
OURS = "tunebook.hooks.axolotl_alpaca"


def text(rng: random.Random, most: int) -> str:
    return " ".join(rng.choice(WORDS) for _ in range(rng.randint(1, most)))


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("lengths")
    rng = random.Random(3)
    alpaca, chats, openai, segments = [], [], [], []
    for _ in range(ROWS):
        answer = rng.choice(["Yes", text(rng, 60), text(rng, 60).strip() + "\n"])
        alpaca.append(
            {"instruction": text(rng, 40), "input": rng.choice(["", text(rng, 30)]), "output": answer}
        )
        turns = []
        for _ in range(rng.randint(1, 4)):
            turns += [{"from": "human", "value": text(rng, 40)}, {"from": "gpt", "value": text(rng, 40)}]
        chats.append({"conversations": turns})
        names = {"human": "user", "gpt": "assistant"}
        said = [{"role": names[one["from"]], "content": one["value"]} for one in turns]
        system = [{"role": "system", "content": text(rng, 10)}] if rng.random() < 0.5 else []
        openai.append({"messages": system + said})
        parts = [{"label": rng.random() < 0.5, "text": text(rng, 20)} for _ in range(rng.randint(1, 6))]
        segments.append({"segments": [*parts, {"label": True, "text": "end"}]})
    sets = {"alpaca": alpaca, "chats": chats, "openai": openai, "segments": segments}
    for name, rows in sets.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> dict[str, Path]:
    """Folders with a tokenizer and its chat template: byte-level without BOS, and one with."""
    sys.path.insert(0, str(ROOT / "scripts"))
    from tiny_tokenizers import gemma_tokenizer, qwen_tokenizer

    folder = tmp_path_factory.mktemp("tokenizers")
    for name, make in (("qwen", qwen_tokenizer), ("gemma", gemma_tokenizer)):
        make().save_pretrained(folder / name)
        (folder / name / "config.json").write_text('{"model_type": "llama"}')
    return {name: folder / name for name in ("qwen", "gemma")}


def blocks(data: Path) -> dict[str, dict]:
    chat = {
        "path": str(data / "chats.jsonl"),
        "type": "chat_template",
        "field_messages": "conversations",
        "message_property_mappings": {"role": "from", "content": "value"},
    }
    openai = {"path": str(data / "openai.jsonl"), "type": "chat_template"}
    return {
        "ours": {"path": str(data / "alpaca.jsonl"), "type": OURS},
        "alpaca": {"path": str(data / "alpaca.jsonl"), "type": "alpaca"},
        "segments": {"path": str(data / "segments.jsonl"), "type": "input_output"},
        "chats": chat,
        "openai": openai,
        "chatml": {**openai, "chat_template": "chatml"},
        "llama3": {**openai, "chat_template": "llama3"},
        "users": {**chat, "roles_to_train": ["user"], "train_on_eos": "all"},
        "last": {**chat, "train_on_eos": "last"},
        "none": {**chat, "train_on_eos": "none"},
        "sliced": {**chat, "split": "train[:7]"},
    }


def engine_rows(recipe: dict, tokenizer, block: dict) -> list[tuple[int, int]]:
    """Tokens and labels that carry loss, of each row that Axolotl's own loader builds and keeps."""
    from axolotl.utils.data import sft
    from axolotl.utils.data.utils import handle_long_seq_in_dataset
    from axolotl.utils.dict import DictDefault

    cfg = DictDefault(recipe)
    rows, _ = sft._load_and_process_single_dataset(
        dataset_config=DictDefault(block), cfg=cfg, tokenizer=tokenizer, split="train", seed=1
    )
    rows = handle_long_seq_in_dataset(rows, cfg.sequence_len, cfg)
    return [(len(row["input_ids"]), sum(label != -100 for label in row["labels"])) for row in rows]


@pytest.fixture(autouse=True)
def engine_here(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    answer_here(monkeypatch, tmp_path / "cache")


def our_rows(recipe: dict, block: dict, folder: Path) -> list[tuple[int, int]]:
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump({**recipe, "datasets": [block]}))
    plan = plan_recipe(catalog.read_recipe(path, folder), folder, characters=False)
    plan.ask()
    (rows,) = plan.sets
    found = []
    for batch in rows.counted.batches():
        kept = batches.sizes(rows.rule.keep(batch, rows.limit), rows.form)
        found += [pair for pair in zip(kept.total.tolist(), kept.answer.tolist(), strict=True) if pair[0]]
    return found


def test_prompts_answers_and_totals_are_those_of_the_engine_s_own_rows(data, models, tmp_path):
    from axolotl.loaders import load_tokenizer
    from axolotl.utils.dict import DictDefault

    compared, differing = 0, []
    for kind, model in models.items():
        recipe = {"base_model": str(model), "tokenizer_config": str(model), "learning_rate": 1e-4}
        if kind == "qwen":
            recipe["chat_template_kwargs"] = {"enable_thinking": False}
        tokenizer = load_tokenizer(DictDefault(recipe))
        for name, block in blocks(data).items():
            if (kind, name) in (("gemma", "openai"), ("qwen", "llama3")):
                continue  # the first has no system message, the second no BOS: the engine stops
            for limit, strategy in ((100_000, None), (120, None), (120, "truncate"), (31, "truncate")):
                values = {**recipe, "sequence_len": limit}
                if strategy:
                    values["excess_length_strategy"] = strategy
                theirs, ours = engine_rows(values, tokenizer, block), our_rows(values, block, tmp_path)
                compared += len(theirs)
                if theirs != ours:
                    differing.append((kind, name, limit, strategy, theirs[:4], ours[:4]))
    assert not differing
    assert compared > 1500


def test_the_whole_set_is_learned_with_train_on_inputs(data, models, tmp_path):
    recipe = {"base_model": str(models["qwen"]), "sequence_len": 999, "train_on_inputs": True}
    found = our_rows(recipe, blocks(data)["segments"], tmp_path)
    assert all(total == answer for total, answer in found)
