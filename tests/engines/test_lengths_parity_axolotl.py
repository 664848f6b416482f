"""Our lengths are those of the rows that Axolotl itself builds, kept, dropped and truncated."""

import json
import random
import sys
from pathlib import Path

import pytest
import yaml

from lengths_cases import answer_here
from tunebook.errors import TunebookError
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
OWN_FORMAT = {
    "field_instruction": "instruction",
    "field_input": "input",
    "field_output": "output",
    "format": "Ask: {instruction} ({input})\nSay: ",
    "no_input_format": "Ask: {instruction}\nSay: ",
}


def text(rng: random.Random, most: int) -> str:
    return " ".join(rng.choice(WORDS) for _ in range(rng.randint(1, most)))


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("lengths")
    rng = random.Random(3)
    alpaca, chats, openai, segments, texts, qa, tools = [], [], [], [], [], [], []
    for _ in range(ROWS):
        answer = rng.choice(["Yes", text(rng, 60), text(rng, 60).strip() + "\n"])
        alpaca.append(
            {
                "instruction": text(rng, 40),
                "input": rng.choice(["", text(rng, 30)]),
                "output": answer,
                "system": text(rng, 9),
            }
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
        texts.append({"text": text(rng, 200)})
        qa.append({"context": text(rng, 60), "question": text(rng, 20), "answer": answer})
        tool = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}
        tools.append({"messages": said, "tools": [tool]})
    for row in chats:
        row["conversations"][-1]["learn"] = False
    sets = {"alpaca": alpaca, "chats": chats, "openai": openai, "segments": segments}
    sets |= {"texts": texts, "qa": qa, "tools": tools}
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
        "parts": {**chat, "split": "train[3:5]+train[20:22]"},
        "texts": {"path": str(data / "texts.jsonl"), "type": "completion"},
        "own": {"path": str(data / "alpaca.jsonl"), "type": OWN_FORMAT},
        "questions": {"path": str(data / "qa.jsonl"), "type": "context_qa.load_v2"},
        "system": {"path": str(data / "alpaca.jsonl"), "type": "alpaca_w_system.load"},
        "tools": {"path": str(data / "tools.jsonl"), "type": "chat_template"},
        "some": {**chat, "message_field_training": "learn"},
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


def pair_rows(data: Path, rl: str) -> Path:
    """Rows of preference training, in Axolotl's own names of columns."""
    rng = random.Random(5)
    path = data / f"{rl}.jsonl"
    lines = []
    for number in range(ROWS):
        asked = [{"role": "user", "content": text(rng, 30)}]
        said, other = ({"role": "assistant", "content": text(rng, 40)} for _ in range(2))
        if rl == "kto":
            row = {"instruction": asked[0]["content"], "completion": said["content"], "label": number % 2 > 0}
        else:
            row = {"messages": asked, "chosen": said, "rejected": other}
        lines.append(json.dumps(row) + "\n")
    path.write_text("".join(lines))
    return path


@pytest.mark.parametrize(("rl", "kind"), [("dpo", "chat_template.default"), ("kto", "chatml.argilla")])
def test_pairs_and_marks_count_as_axolotl_s_own_rule_counts_them(data, models, tmp_path, rl, kind):
    from axolotl.loaders import load_tokenizer
    from axolotl.utils.data import rl as engine
    from axolotl.utils.dict import DictDefault
    from axolotl.utils.schemas.enums import RLType

    block = {"path": str(pair_rows(data, rl)), "type": kind, "split": "train"}
    for limit in (100_000, 200):
        recipe = {
            "base_model": str(models["qwen"]),
            "sequence_len": limit,
            "rl": rl,
            "chat_template": "chatml",
        }
        recipe["remove_unused_columns"] = False  # which Axolotl wants for kto
        whole = {**recipe, "sequence_len": 100_000, "tokenizer_config": str(models["qwen"])}
        cfg = DictDefault({**whole, "datasets": [block], "rl": RLType(rl), "is_preprocess": True})
        tokenizer = load_tokenizer(cfg)
        cfg.dataset_prepared_path = str(tmp_path / "prepared")
        theirs = []
        for row in engine._load_split(cfg, "train"):
            prompt, *answers = (
                len(tokenizer(row[name], add_special_tokens=False)["input_ids"])
                for name in ("prompt", "chosen", "rejected", "completion")
                if row.get(name)
            )
            if prompt + max(answers) <= limit:
                theirs.append((prompt + max(answers), max(answers)))
        assert our_rows(recipe, block, tmp_path) == theirs
        assert (len(theirs) == ROWS) == (limit > 200)


def test_a_part_of_a_file_is_filtered_as_the_whole_file(data, models, tmp_path):
    block = {**blocks(data)["chats"], "split": "train[:7]"}
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump({"base_model": str(models["qwen"]), "datasets": [block]}))
    plan = plan_recipe(catalog.read_recipe(path, tmp_path), tmp_path, characters=False)
    plan.ask()
    assert plan.sets[0].counted.rows == 7
    plan.ask(whole=True)
    assert plan.sets[0].counted.rows == ROWS


def test_rows_whose_answers_are_made_in_training_have_no_length(data, models, tmp_path):
    recipe = {"base_model": str(models["qwen"]), "sequence_len": 999, "rl": "grpo", "chat_template": "chatml"}
    with pytest.raises(TunebookError, match=r"grpo|answers are made in training"):
        our_rows(recipe, {"path": str(pair_rows(data, "grpo")), "type": "chat_template.default"}, tmp_path)
