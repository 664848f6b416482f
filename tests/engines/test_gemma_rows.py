"""Gemma's rows under both engines: the same tokens, but for the one that LLaMA-Factory adds."""

import json
import subprocess

import pytest
from engine_cases import ROOT, sums

from tunebook import paths
from tunebook.errors import TunebookError
from tunebook.recipes.catalog import find_recipe
from tunebook.recipes.overlays import resolve

pytestmark = pytest.mark.axolotl

RECIPES = ROOT / "recipes"
# The recipe's model, its smoke overlay, the tiny twin, and what LLaMA-Factory's template puts behind a turn.
CASES = {
    "gemma-2b-it": ("smoke_lora", "gemma", []),
    "gemma-2-9b-it": ("smoke", "gemma2", ["<eos>"]),
    "gemma-3-1b-it": ("smoke", "gemma3", ["<eos>"]),
}
ROWS = sums(20, 1)


@pytest.fixture(scope="module")
def llamafactory() -> str:
    try:
        return str(paths.engine_environment("llamafactory") / "bin" / "python")
    except TunebookError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def recipes(tmp_path_factory) -> dict[str, dict]:
    """Each model's recipe on its tiny twin."""
    found = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / "scripts")
        from make_tiny_model import build

        for model, (overlay, twin, _) in CASES.items():
            folder = tmp_path_factory.mktemp(model)
            build(twin, folder / "tiny")
            (folder / "rows.json").write_text(json.dumps(ROWS))
            (folder / "dataset_info.json").write_text('{"rows": {"file_name": "rows.json"}}')
            recipe = find_recipe(f"llamafactory/{model}/lora_sft_gsm8k", RECIPES)
            found[model] = {
                **resolve(recipe, RECIPES, [overlay]).recipe.values,
                "model_name_or_path": str(folder / "tiny"),
                "dataset_dir": str(folder),
                "dataset": "rows",
                "eval_dataset": "rows",
                "output_dir": str(folder / "out"),
            }
    return found


@pytest.fixture(scope="module")
def theirs(llamafactory, recipes, tmp_path_factory) -> dict[str, dict]:
    """LLaMA-Factory's rows."""
    folder = tmp_path_factory.mktemp("recipes")
    for model, values in recipes.items():
        (folder / f"{model}.json").write_text(json.dumps(values))
    done = subprocess.run(
        [
            llamafactory,
            ROOT / "tests" / "engines" / "llamafactory_rows.py",
            *(folder / f"{model}.json" for model in recipes),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    lines = [json.loads(line[5:])["eval"] for line in done.stdout.splitlines() if line.startswith("ROWS ")]
    return dict(zip(recipes, lines, strict=True))


@pytest.mark.parametrize("model", CASES)
def test_a_row_has_the_same_tokens_and_labels(recipes, theirs, model):
    from transformers import AutoTokenizer

    from tunebook.hooks.axolotl_alpaca import AlpacaStrategy

    values = recipes[model]
    tokenizer = AutoTokenizer.from_pretrained(values["model_name_or_path"])
    columns = {"prompt": "instruction", "query": "input", "response": "output"}
    strategy = AlpacaStrategy(tokenizer, tokenizer.chat_template, {}, columns, values["cutoff_len"])
    ours = [strategy.tokenize_prompt(row) for row in ROWS]
    added = tokenizer.convert_tokens_to_ids(CASES[model][2])
    assert theirs[model]["input_ids"] == [row["input_ids"] + added for row in ours]
    assert theirs[model]["labels"] == [row["labels"] + added for row in ours]
