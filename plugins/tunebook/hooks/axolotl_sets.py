"""Builds each named evaluation set through Axolotl's own loader, whole, fresh and in the file's order.

Axolotl merges `test_datasets` into one set, shuffles it, keeps it in a cache whose key does not cover the
files' content, and drops rows above its length limit with one line among hundreds. We ask the same loader
for one block at a time, before merging and caching.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from axolotl.utils.data import sft
from axolotl.utils.data.shared import load_dataset_with_config
from axolotl.utils.data.utils import handle_long_seq_in_dataset
from axolotl.utils.dict import DictDefault

from tunebook import __version__
from tunebook.errors import TunebookError
from tunebook.hooks.leavings import say
from tunebook.types import IGNORED

_LOAD_ONE = "_load_and_process_single_dataset"
_ROWS_LOOKED_AT = 1000
_ROWS_WORTH_A_POOL = 10_000
"""Evaluation rows from which on `dataset_num_proc` is used. Each worker imports the engine anew."""


def build_sets(cfg: Any, trainer: Any) -> dict[str, Any]:
    """Load and tokenise the evaluation sets, by registry name, in the recipe's order.

    Args:
        cfg: Axolotl's configuration, validated.
        trainer: Its trainer, for the tokenizer and so that one process works before the others.

    Raises:
        TunebookError: A set is empty, or this Axolotl lacks the loader we call.
    """
    if not hasattr(sft, _LOAD_ONE):
        raise TunebookError(
            f"this Axolotl has no {_LOAD_ONE} in {sft.__name__}: tunebook {__version__} cannot load its sets",
            fix="install the Axolotl that tunebook's constraints name",
        )
    names = list(cfg.tunebook_eval_datasets)
    with trainer.args.main_process_first(local=True, desc="evaluation sets"):
        return {
            name: build_set(name, block, cfg, trainer.processing_class)
            for name, block in zip(names, cfg.test_datasets, strict=True)
        }


def build_set(name: str, block: Mapping[str, Any], cfg: Any, tokenizer: Any) -> Any:
    """Load and tokenise one block; says so where rows are missing.

    Raises:
        TunebookError: No row is left.
    """
    limit = cfg.eval_sequence_len or cfg.sequence_len
    block = DictDefault(block)
    source = load_dataset_with_config(block, cfg.hf_use_auth_token)
    rows = None if isinstance(source, dict) else len(source)  # a mapping: several splits, one is taken
    if rows is not None and rows < _ROWS_WORTH_A_POOL:
        cfg = DictDefault({**cfg, "dataset_num_proc": None})
    dataset, _ = getattr(sft, _LOAD_ONE)(
        dataset_config=block, cfg=cfg, tokenizer=tokenizer, split="test", seed=cfg.seed
    )
    kept = handle_long_seq_in_dataset(dataset, limit, cfg)
    if len(kept) == 0:
        raise TunebookError(
            f"{name}: none of the {len(dataset)} rows of the evaluation set is within sequence_len = {limit}",
            fix="raise `sequence_len`, or mend the block of `test_datasets`",
        )
    if rows is not None and rows != len(kept):
        because = f"Axolotl drops rows above sequence_len = {limit}"
        if len(kept) == len(dataset):
            because = f"the type {block['type']!r} leaves the others out"
        say(f"warning: {name}: {len(kept)} of {rows} rows are evaluated: {because}")
    return kept


def refuse_unlabelled(train_dataset: Any) -> None:
    """Stop where the first training rows carry no loss at all, which would train on nothing in silence.

    Raises:
        TunebookError: None of the first rows has a supervised token.
    """
    if not hasattr(train_dataset, "__len__") or "labels" not in train_dataset.column_names:
        return
    rows = min(len(train_dataset), _ROWS_LOOKED_AT)
    for start in range(0, rows, 100):
        labels = train_dataset[start : min(start + 100, rows)]["labels"]
        if any(label != IGNORED for row in labels for label in row):
            return
    raise TunebookError(
        f"none of the first {rows} training rows has a label: the loss would be 0 and nothing learned",
        fix="mend the columns or `roles_to_train` of the blocks of `datasets`",
    )
