"""Gemma's rows under both engines: the same tokens, but for the one that LLaMA-Factory adds."""

import json
import os
import subprocess
import sys

import pytest
from conftest import ROOT, sums

from tunebook import paths
from tunebook.errors import TunebookError
from tunebook.overlays import resolve
from tunebook.recipes import find_recipe

pytestmark = pytest.mark.axolotl

RECIPES = ROOT / "recipes"
# The recipe's model, its smoke overlay, the tiny twin, and what LLaMA-Factory's template puts behind a turn.
CASES = {
    "gemma-2b-it": ("smoke_lora", "gemma", []),
    "gemma-2-9b-it": ("smoke", "gemma2", ["<eos>"]),
    "gemma-3-1b-it": ("smoke", "gemma3", ["<eos>"]),
}


@pytest.fixture(scope="module")
def llamafactory() -> str:
    try:
        return str(paths.engine_environment("llamafactory") / "bin" / "python")
    except TunebookError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("model", CASES)
def test_a_row_has_the_same_tokens_and_labels(llamafactory, tmp_path, model):
    from transformers import AutoTokenizer

    from tunebook.hooks.axolotl_alpaca import AlpacaStrategy

    overlay, twin, behind = CASES[model]
    tiny = tmp_path / "tiny"
    script = ROOT / "scripts" / "make_tiny_model.py"
    subprocess.run([sys.executable, script, "--architecture", twin, "-o", tiny], check=True)
    rows = sums(20, 1)
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    (tmp_path / "dataset_info.json").write_text('{"rows": {"file_name": "rows.json"}}')
    recipe = find_recipe(f"llamafactory/{model}/lora_sft_gsm8k", RECIPES)
    values = {
        **resolve(recipe, RECIPES, [overlay]).recipe.values,
        "model_name_or_path": str(tiny),
        "dataset_dir": str(tmp_path),
        "dataset": "rows",
        "eval_dataset": "rows",
        "output_dir": str(tmp_path / "out"),
    }
    (tmp_path / "recipe.json").write_text(json.dumps(values))
    done = subprocess.run(
        [llamafactory, ROOT / "tests" / "engines" / "llamafactory_rows.py", tmp_path / "recipe.json"],
        env={**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    theirs = json.loads(next(line[5:] for line in done.stdout.splitlines() if line.startswith("ROWS ")))[
        "eval"
    ]

    tokenizer = AutoTokenizer.from_pretrained(tiny)
    columns = {"prompt": "instruction", "query": "input", "response": "output"}
    strategy = AlpacaStrategy(tokenizer, tokenizer.chat_template, {}, columns, values["cutoff_len"])
    ours = [strategy.tokenize_prompt(row) for row in rows]
    added = tokenizer.convert_tokens_to_ids(behind)
    assert theirs["input_ids"] == [row["input_ids"] + added for row in ours]
    assert theirs["labels"] == [row["labels"] + added for row in ours]
