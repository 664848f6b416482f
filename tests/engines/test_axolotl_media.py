"""Pictures in evaluation rows under Axolotl: the model sees them in both modes, and the loss is Axolotl's own."""

import json
import sys

import pytest
import yaml
from axolotl_cases import run_many
from engine_cases import ROOT

pytestmark = pytest.mark.axolotl


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """A tiny Llava, whose processor needs no torchvision, and questions about the colour of a picture."""
    sys.path.insert(0, str(ROOT / "scripts"))
    import torch
    from PIL import Image
    from transformers import (
        CLIPVisionConfig,
        LlavaConfig,
        LlavaForConditionalGeneration,
        LlavaProcessor,
        Qwen3Config,
    )
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    from tiny_vision import seeing_qwen_tokenizer

    folder = tmp_path_factory.mktemp("pictures")
    torch.manual_seed(0)
    tokenizer = seeing_qwen_tokenizer()
    image = tokenizer.convert_tokens_to_ids("<|image_pad|>")
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16}
    text = Qwen3Config(
        vocab_size=len(tokenizer), hidden_size=64, intermediate_size=128, num_hidden_layers=2, **heads,
        initializer_range=0.1, tie_word_embeddings=True,
    )  # fmt: skip
    vision = CLIPVisionConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2, image_size=56,
        patch_size=14, projection_dim=32,
    )  # fmt: skip
    config = LlavaConfig(
        vision_config=vision, text_config=text, image_token_index=image, vision_feature_layer=-1,
        image_seq_length=16,
    )  # fmt: skip
    LlavaForConditionalGeneration(config).save_pretrained(folder / "model")
    LlavaProcessor(
        image_processor=CLIPImageProcessorPil(
            size={"shortest_edge": 56}, crop_size={"height": 56, "width": 56}
        ),
        tokenizer=tokenizer,
        patch_size=14,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        image_token="<|image_pad|>",
        chat_template=tokenizer.chat_template,
    ).save_pretrained(folder / "model")
    rows = []
    for number in range(9):
        red = number % 3 == 0
        Image.new("RGB", (56, 56), (255, 0, 0) if red else (0, 0, 255)).save(folder / f"{number}.png")
        asked = [
            {"type": "image", "path": str(folder / f"{number}.png"), "text": None},
            {"type": "text", "path": None, "text": "Is it red? " * (1 + number % 2)},
        ]
        said = [{"type": "text", "path": None, "text": "Yes" if red else "No"}]
        rows.append(
            {"messages": [{"role": "user", "content": asked}, {"role": "assistant", "content": said}]}
        )
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    generated = {"name": "yes_no", "mode": "generate", "max_new_tokens": 4}
    entries = {"seen": "yes_no", "generated": generated}
    (folder / "dataset_info.json").write_text(
        json.dumps({name: {"file_name": "rows.jsonl", "metric": metric} for name, metric in entries.items()})
    )
    return folder


@pytest.fixture(scope="module")
def runs(pictures, tmp_path_factory):
    block = {"path": str(pictures / "rows.jsonl"), "type": "chat_template", "field_messages": "messages"}
    values = {
        "base_model": str(pictures / "model"),
        "processor_type": "AutoProcessor",
        "chat_template": "qwen2_vl",
        "skip_prepare_dataset": True,
        "remove_unused_columns": False,
        "sample_packing": False,
        "datasets": [block],
        "sequence_len": 256,
        "micro_batch_size": 3,
        "eval_batch_size": 1,  # the engine's loss is a mean over batches
        "gradient_accumulation_steps": 1,
        "max_steps": 40,
        "learning_rate": 3.0e-3,
        "lr_scheduler": "constant",
        "optimizer": "adamw_torch",
        "bf16": False,
        "seed": 1,
        "eval_steps": 20,
        "save_steps": 40,
        "logging_steps": 20,
        "dataloader_num_workers": 0,
        "dataset_prepared_path": str(pictures / "prepared"),
    }
    tested = {**block, "split": "train"}
    ours = {"plugins": ["tunebook.hooks.axolotl.TunebookPlugin"], "tunebook_dataset_dir": str(pictures)}
    changes = {
        "stock": {"test_datasets": [tested]},
        "ours": {**ours, "test_datasets": [tested] * 2, "tunebook_eval_datasets": ["seen", "generated"]},
        "batched": {
            **ours, "test_datasets": [tested] * 2, "tunebook_eval_datasets": ["seen", "generated"],
            "eval_batch_size": 4,
        },
    }  # fmt: skip
    folder = tmp_path_factory.mktemp("recipes")
    plans = []
    for name, change in changes.items():
        path = folder / f"{name}.yaml"
        path.write_text(yaml.safe_dump({**values, **change, "output_dir": str(folder / name)}))
        plans.append({"verb": "train", "recipe": path})
    return dict(zip(changes, run_many(folder, plans), strict=True))


def losses(run, key):
    state = json.loads((run.output / "checkpoint-40" / "trainer_state.json").read_text())
    return [line[key] for line in state["log_history"] if key in line]


def test_the_loss_is_axolotls_own(runs):
    stock, ours = runs["stock"], runs["ours"]
    assert stock.code == ours.code == 0, ours.log[-3000:]
    assert losses(stock, "loss") == losses(ours, "loss")
    assert losses(ours, "eval_seen_loss") == pytest.approx(losses(stock, "eval_loss"), abs=2e-5)


def test_both_modes_see_the_picture(runs):
    for run in (runs["ours"], runs["batched"]):
        assert run.code == 0, run.log[-3000:]
        for mode in ("seen", "generated"):
            assert [row["prediction"] for row in run.records(mode, 40)] == ["Yes", "No", "No"] * 3


def test_padding_beside_other_pictures_changes_nothing(runs):
    alone, together = (runs[name].records("seen", 40) for name in ("ours", "batched"))
    assert [row["nll"] for row in alone] == pytest.approx([row["nll"] for row in together], abs=2e-5)
