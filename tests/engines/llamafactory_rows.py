"""Print the tokenised evaluation rows of LLaMA-Factory, by its own loader. Runs in its environment.

Usage: llamafactory_rows.py RECIPE.json, the arguments of `llamafactory-cli train`. Prints one line of JSON.
"""

import json
import sys
from pathlib import Path

from llamafactory.data import get_dataset, get_template_and_fix_tokenizer
from llamafactory.hparams import get_train_args
from llamafactory.model import load_tokenizer

arguments = get_train_args(json.loads(Path(sys.argv[1]).read_text()))
model_args, data_args, training_args = arguments[:3]
tokenizer = load_tokenizer(model_args)
template = get_template_and_fix_tokenizer(tokenizer["tokenizer"], data_args)
sets = get_dataset(template, model_args, data_args, training_args, stage="sft", **tokenizer)["eval_dataset"]
rows = {
    name.removeprefix("eval_"): {"input_ids": rows["input_ids"], "labels": rows["labels"]}
    for name, rows in (sets if isinstance(sets, dict) else {"eval": sets}).items()
}
print(
    "ROWS "
    + json.dumps({name: {key: list(column) for key, column in one.items()} for name, one in rows.items()})
)
