"""Pictures in evaluation rows: the model sees them, in both modes, as in LLaMA-Factory's own evaluation."""

import json
import subprocess
import sys

import pytest
from engine_cases import ROOT

pytestmark = pytest.mark.engine


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """A tiny vision model, and sets of questions about the colour of pictures of several sizes."""
    from PIL import Image

    folder = tmp_path_factory.mktemp("pictures")
    script = ROOT / "scripts" / "make_tiny_model.py"
    subprocess.run([sys.executable, script, "--architecture", "qwen3_5", "-o", folder / "model"], check=True)
    rows = []
    for number in range(9):
        red = number % 3 == 0
        file = folder / f"{number}.png"
        Image.new("RGB", (56 + 28 * (number % 4), 56), (255, 0, 0) if red else (0, 0, 255)).save(file)
        asked = "Is it red? " * (1 + number % 2)
        rows.append(
            {
                "instruction": f"<image>{asked}Answer Yes or No.",
                "input": "",
                "output": "Yes" if red else "No",
                "other": "No" if red else "Yes",
                "images": [str(file)],
            }
        )
    rows.append({"instruction": "Is it blue?", "input": "", "output": "No", "other": "Yes", "images": []})
    (folder / "rows.json").write_text(json.dumps(rows))
    columns = {"prompt": "instruction", "query": "input", "response": "output", "images": "images"}
    entry = {"file_name": "rows.json", "columns": columns}
    generated = {"name": "yes_no", "mode": "generate", "max_new_tokens": 4}
    (folder / "dataset_info.json").write_text(
        json.dumps(
            {
                "shown": entry,
                "measured": {**entry, "metric": "yes_no"},
                "generated": {**entry, "metric": generated},
                "pairs": {
                    **entry,
                    "ranking": True,
                    "columns": {**columns, "chosen": "output", "rejected": "other"},
                    "metric": "yes_no",
                },
            }
        )
    )
    return folder


@pytest.fixture(scope="module")
def runs(pictures, recipe, train_many):
    values = recipe(
        model_name_or_path=str(pictures / "model"),
        template="qwen3_5",
        dataset_dir=str(pictures),
        dataset="shown",
        max_steps=3,
        eval_steps=3,
        save_steps=3,
        per_device_train_batch_size=3,
        per_device_eval_batch_size=4,
        freeze_vision_tower=False,
    )
    learn = {"max_steps": 40, "eval_steps": 40, "save_steps": 40}
    sets = {
        # One row a batch: the engine's loss is a mean over batches.
        "stock": {"eval_dataset": "shown", "per_device_eval_batch_size": 1, "compute_accuracy": True},
        "measured": {"eval_dataset": "measured"},
        "alone": {"eval_dataset": "measured", "per_device_eval_batch_size": 1},
        "learned": {**learn, "eval_dataset": "measured,generated", "eval_on_each_dataset": True},
        "text": {"eval_dataset": "measured", "dataset_dir": str(pictures / "without")},
        "pairs": {"eval_dataset": "pairs", "dataset": "pairs", "stage": "dpo"},
    }
    (pictures / "without").mkdir()
    rows = json.loads((pictures / "rows.json").read_text())
    for row in rows:
        del row["images"]
        row["instruction"] = row["instruction"].removeprefix("<image>")
    (pictures / "without" / "rows.json").write_text(json.dumps(rows))
    entry = {"file_name": "rows.json", "metric": "yes_no"}
    (pictures / "without" / "dataset_info.json").write_text(json.dumps({"shown": entry, "measured": entry}))
    return dict(zip(sets, train_many([{**values, **one} for one in sets.values()]), strict=True))


def test_the_loss_is_the_engines_own(runs):
    stock, ours = runs["stock"], runs["alone"]
    assert stock.code == ours.code == 0, ours.log[-3000:]
    assert stock.logged("loss") == ours.logged("loss")
    assert ours.evaluations()[0]["n"] == 10
    assert ours.logged("eval_token_accuracy") == pytest.approx(stock.logged("eval_accuracy"), abs=1e-6)
    assert ours.logged("eval_loss") == pytest.approx(stock.logged("eval_loss"), abs=2e-5)
    # Without its pictures the model would be another one.
    assert abs(runs["text"].logged("eval_loss")[0] - ours.logged("eval_loss")[0]) > 1e-3


def test_padding_beside_other_pictures_changes_nothing(runs):
    for together, alone in zip(
        runs["measured"].records("measured", 3), runs["alone"].records("measured", 3), strict=True
    ):
        assert together["prediction"] == alone["prediction"]
        assert together["nll"] == pytest.approx(alone["nll"], abs=2e-5)


def test_both_modes_see_the_picture(runs):
    assert runs["learned"].code == 0, runs["learned"].log[-3000:]
    for mode in ("measured", "generated"):
        answers = [row["prediction"] for row in runs["learned"].records(mode, 40)]
        assert answers == ["Yes", "No", "No"] * 3 + ["No"]


def test_pairs_with_pictures_are_refused_before_training(runs):
    refused = runs["pairs"]
    assert refused.code != 0
    assert "pairs: its rows have images, which our evaluation would leave out" in refused.log
    assert not (refused.output / "checkpoint-3").exists()
