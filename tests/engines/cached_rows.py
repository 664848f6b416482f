"""Prepare recipes with `tokenized_path` as `tunebook train` does, and let LLaMA-Factory read them twice.

Usage: cached_rows.py FILE.json, a list of recipes. Prints a JSON line per recipe: the folder, what was said at
the first and the second time, and whether the rows were those of LLaMA-Factory without a cache, both times.
"""

import contextlib
import io
import json
import sys
from pathlib import Path

from llamafactory.data import get_dataset, get_template_and_fix_tokenizer
from llamafactory.hparams import get_train_args
from llamafactory.model import load_tokenizer

from tunebook.engines.llamafactory.engine import LlamaFactory


def rows(values: dict) -> tuple[dict, str]:
    """Every set of the recipe by name, token by token, and what was printed."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        model_args, data_args, training_args, finetuning_args, _ = get_train_args(dict(values))
        tokenizer = load_tokenizer(model_args)
        template = get_template_and_fix_tokenizer(tokenizer["tokenizer"], data_args)
        # As the workflows do: preference training asks for the rows of a reward model.
        stage = {"dpo": "rm"}.get(finetuning_args.stage, finetuning_args.stage)
        module = get_dataset(template, model_args, data_args, training_args, stage=stage, **tokenizer)
    found = {}
    for name, one in module.items():
        for part, dataset in (one if isinstance(one, dict) else {"": one}).items():
            found[f"{name}/{part}"] = {column: list(dataset[column]) for column in dataset.column_names}
    return found, said.getvalue()


for values in json.loads(Path(sys.argv[1]).read_text()):
    prepared, notes = LlamaFactory().prepare(values, environment=Path(sys.prefix), folders=(Path.cwd(),))
    plain, _ = rows({key: value for key, value in values.items() if key != "tokenized_path"})
    first, made = rows(prepared)
    second, read = rows(prepared)
    result = {
        "folder": prepared["tokenized_path"],
        "notes": notes,
        "same": plain == first == second,
        "rows": sum(len(columns["input_ids"]) for columns in plain.values() if "input_ids" in columns),
        "kept": "tokenised rows: kept in" in made,
        "read": "tokenised rows: read from" in read and "Running tokenizer" not in read,
    }
    print("RESULT " + json.dumps(result), flush=True)
