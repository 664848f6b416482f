"""Pictures in evaluation rows: figures of the text alone would be wrong, so the run is refused before it trains."""

import json
import subprocess
import sys

import pytest
from engine_cases import ROOT

pytestmark = pytest.mark.engine


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """A tiny vision model, and sets of questions about the colour of a picture."""
    from PIL import Image

    folder = tmp_path_factory.mktemp("pictures")
    script = ROOT / "scripts" / "make_tiny_model.py"
    subprocess.run([sys.executable, script, "--architecture", "qwen3_5", "-o", folder / "model"], check=True)
    rows = []
    for number in range(8):
        red = number % 2 == 0
        file = folder / f"{number}.png"
        Image.new("RGB", (56, 56), (255, 0, 0) if red else (0, 0, 255)).save(file)
        rows.append(
            {
                "instruction": "<image>Is it red? Answer Yes or No.",
                "input": "",
                "output": "Yes" if red else "No",
                "images": [str(file)],
            }
        )
    (folder / "rows.json").write_text(json.dumps(rows))
    columns = {"prompt": "instruction", "query": "input", "response": "output", "images": "images"}
    entry = {"file_name": "rows.json", "columns": columns}
    (folder / "dataset_info.json").write_text(
        json.dumps({"shown": entry, "measured": {**entry, "metric": "yes_no"}})
    )
    return folder


def test_a_metric_on_pictures_is_refused_before_training(pictures, recipe, train):
    values = recipe(
        model_name_or_path=str(pictures / "model"),
        template="qwen3_5",
        dataset_dir=str(pictures),
        dataset="shown",
        max_steps=2,
        eval_steps=1,
        save_steps=2,
        per_device_train_batch_size=2,
    )
    refused = train({**values, "eval_dataset": "measured"})
    assert refused.code != 0
    assert "measured: its rows have images, which our evaluation would leave out" in refused.log
    assert not (refused.output / "checkpoint-2").exists()
    # Without a metric the engine evaluates them itself.
    stock = train({**values, "eval_dataset": "shown"})
    assert stock.code == 0, stock.log[-3000:]
    assert len(stock.logged("eval_loss")) == 2
