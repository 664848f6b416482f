"""Lengths of what is no plain question and answer: pairs, marks, texts, tools and pictures, as LLaMA-Factory
itself builds them."""

import copy
import json
import random
import sys
from pathlib import Path

import pytest

from lengths_cases import answer_here, make_registry
from tunebook.data import registry as datasets
from tunebook.data import sources
from tunebook.errors import TunebookError
from tunebook.lengths import batches, counting
from tunebook.lengths.sets import plan_source

pytestmark = pytest.mark.engine

ROOT = Path(__file__).resolve().parents[2]
ROWS = 30
NO_LIMIT = 100_000
TOOLS = json.dumps([{"name": "weather", "description": "Tell it.", "parameters": {"type": "object"}}])


def text(rng: random.Random, most: int) -> str:
    words = ["plum", "brick", "naïve", "日本語", "🎬", "x=1;", "3.14", "don't", "\n", "a" * 40]
    return " ".join(rng.choice(words) for _ in range(rng.randint(1, most)))


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    from PIL import Image

    rng = random.Random(11)
    folder = tmp_path_factory.mktemp("stages")
    pairs, marks, texts, tools, pictures = [], [], [], [], []
    for number in range(ROWS):
        asked, said, other = text(rng, 40), text(rng, 60), text(rng, 60)
        pairs.append({"instruction": asked, "input": "", "chosen": said, "rejected": other})
        marks.append({"instruction": asked, "output": said, "good": number % 3 > 0})
        texts.append({"text": f"{asked}\n{said}\n{other}"})
        call = json.dumps({"name": "weather", "arguments": {"place": asked}}, ensure_ascii=False)
        turns = [("human", asked), ("function_call", call), ("observation", said), ("gpt", other)]
        tools.append(
            {"conversations": [{"from": role, "value": value} for role, value in turns], "tools": TOOLS}
        )
        Image.new("RGB", (56 + 28 * (number % 5), 84)).save(folder / f"{number}.png")
        pictures.append({"instruction": f"<image>{asked}", "output": said, "images": [f"{number}.png"]})
    pairs[3]["rejected"] = None
    answer = {"prompt": "instruction", "response": "output"}
    make_registry(folder)
    entries = {
        "pairs": (
            pairs,
            {
                "ranking": True,
                "columns": {"prompt": "instruction", "chosen": "chosen", "rejected": "rejected"},
            },
        ),
        "marks": (marks, {"columns": {**answer, "kto_tag": "good"}}),
        "texts": (texts, {"columns": {"prompt": "text"}}),
        "tools": (
            tools,
            {"formatting": "sharegpt", "columns": {"messages": "conversations", "tools": "tools"}},
        ),
        "pictures": (pictures, {"columns": {**answer, "images": "images"}}),
    }
    for name, (rows, _) in entries.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    info = {name: {"file_name": f"{name}.jsonl", **entry} for name, (_, entry) in entries.items()}
    (folder / "dataset_info.json").write_text(json.dumps(info))
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> str:
    """A folder with a tokenizer, and a processor that makes tokens of pictures."""
    sys.path.insert(0, str(ROOT / "scripts"))
    from transformers import Qwen2VLImageProcessor, Qwen2VLProcessor
    from transformers.models.qwen2_vl.video_processing_qwen2_vl import Qwen2VLVideoProcessor

    from tiny_tokenizers import qwen_tokenizer

    tokenizer = qwen_tokenizer()
    marks = ["<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"]
    tokenizer.add_special_tokens({"additional_special_tokens": marks})
    processor = Qwen2VLProcessor(
        image_processor=Qwen2VLImageProcessor(), tokenizer=tokenizer, video_processor=Qwen2VLVideoProcessor()
    )
    folder = tmp_path_factory.mktemp("model")
    processor.save_pretrained(folder)
    return str(folder)


@pytest.fixture(autouse=True)
def engine_here(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    answer_here(monkeypatch, tmp_path / "cache")


def engine_rows(values: dict) -> list[tuple[int, int]]:
    """Tokens and labels that carry loss of each row that LLaMA-Factory's own loader builds; of pairs, the most."""
    from llamafactory.data import get_dataset, get_template_and_fix_tokenizer
    from llamafactory.data.template import TEMPLATES
    from llamafactory.hparams import get_train_args
    from llamafactory.model import load_tokenizer

    arguments = {"finetuning_type": "lora", "do_train": True, "report_to": "none", "overwrite_cache": True}
    model, data, training = get_train_args({**arguments, "output_dir": "unused", **values})[:3]
    tokenizer = load_tokenizer(model)
    stage = {"dpo": "rm"}.get(values["stage"], values["stage"])
    before = copy.deepcopy(TEMPLATES[values["template"]])
    try:
        template = get_template_and_fix_tokenizer(tokenizer["tokenizer"], data)
        rows = get_dataset(template, model, data, training, stage=stage, **tokenizer)["train_dataset"]
    finally:
        TEMPLATES[values["template"]] = before
    found = []
    for row in rows:
        sizes = []
        for kind in ("", "chosen_", "rejected_"):
            if f"{kind}input_ids" in row:
                ids = row[f"{kind}input_ids"]
                labels = row.get(f"{kind}labels", ids)
                sizes.append((len(ids), sum(label != -100 for label in labels)))
        found.append(max(sizes))
    return found


def plan_of(values: dict):
    registry = datasets.load_registry(Path(values["dataset_dir"]))
    plan = plan_source(sources.of_entry(registry.entry(values["dataset"])), values)
    plan.ask()
    return plan.sets[0]


def our_rows(values: dict) -> list[tuple[int, int]]:
    rows = plan_of(values)
    found = []
    for batch in rows.counted.batches():
        kept = batches.sizes(rows.rule.keep(batch, rows.limit), rows.form)
        found += zip(kept.total.tolist(), kept.answer.tolist(), strict=True)
    return found


def values_of(data: Path, model: str, name: str, **more) -> dict:
    values = {"model_name_or_path": model, "template": "qwen3", "dataset_dir": str(data), "dataset": name}
    return values | {"cutoff_len": NO_LIMIT} | more


@pytest.mark.parametrize("limit", [NO_LIMIT, 120, 40])
@pytest.mark.parametrize(
    ("name", "more"),
    [
        ("pairs", {"stage": "dpo"}),
        ("pairs", {"stage": "rm"}),
        ("pairs", {"stage": "dpo", "template": "fewshot"}),
        ("marks", {"stage": "kto"}),
        ("texts", {"stage": "pt", "packing": False}),
        ("tools", {"stage": "sft"}),
        ("tools", {"stage": "sft", "template": "llama3"}),
        ("pictures", {"stage": "sft", "template": "qwen2_vl"}),
        ("pictures", {"stage": "sft", "template": "qwen2_vl", "image_max_pixels": 3136}),
    ],
)
def test_every_stage_and_medium_is_as_long_as_in_the_engine_s_own_rows(data, model, name, more, limit):
    values = values_of(data, model, name, **more, cutoff_len=limit)
    theirs = engine_rows(dict(values))
    assert len(theirs) == ROWS - (name == "pairs")
    assert our_rows(values) == theirs


def test_texts_that_are_packed_are_counted_whole_and_lose_nothing(data, model):
    values = values_of(data, model, "texts", stage="pt", cutoff_len=64)
    alone = engine_rows({**values, "packing": False, "cutoff_len": NO_LIMIT})
    assert our_rows(values) == alone


def test_rows_are_counted_again_where_fastokens_makes_other_tokens(data, model, tmp_path, monkeypatch):
    pytest.importorskip("fastokens")
    values = values_of(data, model, "tools", stage="sft")
    whole = our_rows(values)
    encode, seen = counting.CheckedEncoder.__call__, []

    def wrong(self, text: str) -> list[int]:
        seen.append(text)
        if len(seen) == 60:  # after some rows
            raise counting.FastDiffers(text)
        return [*encode(self, text), 0]

    monkeypatch.setattr(counting.CheckedEncoder, "__call__", wrong)
    monkeypatch.setenv("TUNEBOOK_CACHE", str(tmp_path / "other"))
    assert our_rows(values) == whole
    assert len(seen) == 60


def test_a_large_set_is_divided_between_processes_and_is_the_same(data, model, tmp_path, monkeypatch):
    from tunebook.hooks import measured_rows, row_probe

    values = values_of(data, model, "tools", stage="sft")
    whole = our_rows(values)
    monkeypatch.setattr(row_probe, "_ROWS_PER_WORKER", 10)
    for module in (row_probe, measured_rows):
        monkeypatch.setattr(module, "BATCH_ROWS", 4)
    monkeypatch.setenv("TUNEBOOK_CACHE", str(tmp_path / "other"))
    assert our_rows(values) == whole
    with pytest.raises(TunebookError, match="row 1: LLaMA-Factory stops"):
        our_rows(values_of(data, model, "pictures", stage="sft", template="qwen3"))


def test_a_row_without_two_answers_is_named(data, model):
    rows = plan_of(values_of(data, model, "pairs", stage="dpo"))
    assert [tuple(one) for one in rows.counted.skipped] == [(4, "it has no two answers to compare")]


def test_another_picture_of_the_same_name_is_counted_anew(data, model, tmp_path):
    from PIL import Image

    values = values_of(data, model, "pictures", stage="sft", template="qwen2_vl")
    before = our_rows(values)
    assert our_rows(values) == before
    picture = data / "0.png"
    kept = picture.read_bytes()
    try:
        Image.new("RGB", (280, 280)).save(picture)
        after = our_rows(values)
    finally:
        picture.write_bytes(kept)
    assert after[0] > before[0]
    assert after[1:] == before[1:]


@pytest.mark.parametrize(
    ("name", "more", "problem"),
    [
        ("pairs", {"stage": "sft"}, "not applicable in the current training stage"),
        ("pictures", {"stage": "sft", "template": "qwen3"}, "row 1: LLaMA-Factory stops"),
        ("texts", {"stage": "pt", "template": "qwen33"}, "Template qwen33 does not exist"),
        ("texts", {"stage": "pt", "cutof_len": 5}, "cutof_len"),
    ],
)
def test_what_stops_the_engine_is_an_error_and_no_number(data, model, name, more, problem):
    with pytest.raises(TunebookError, match=problem):
        our_rows(values_of(data, model, name, **more))
