"""Print the tokenised evaluation rows of LLaMA-Factory, by its own loader. Runs in its environment.

Usage: llamafactory_rows.py RECIPE.json..., the arguments of `llamafactory-cli train`. Prints a line of JSON each.
"""

import json
import sys
from pathlib import Path

from llamafactory.data import get_dataset, get_template_and_fix_tokenizer
from llamafactory.hparams import get_train_args
from llamafactory.model import load_tokenizer


def rows_of(recipe: Path) -> dict[str, dict[str, list]]:
    model_args, data_args, training_args, *_ = get_train_args(json.loads(recipe.read_text()))
    tokenizer = load_tokenizer(model_args)
    template = get_template_and_fix_tokenizer(tokenizer["tokenizer"], data_args)
    sets = get_dataset(template, model_args, data_args, training_args, stage="sft", **tokenizer)
    sets = sets["eval_dataset"]
    return {
        name.removeprefix("eval_"): {key: list(rows[key]) for key in ("input_ids", "labels")}
        for name, rows in (sets if isinstance(sets, dict) else {"eval": sets}).items()
    }


for file in sys.argv[1:]:
    print("ROWS " + json.dumps(rows_of(Path(file))))
