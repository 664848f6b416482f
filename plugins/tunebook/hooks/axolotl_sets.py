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
            name: _build(name, block, cfg, trainer.processing_class)
            for name, block in zip(names, cfg.test_datasets, strict=True)
        }


def _build(name: str, block: Mapping[str, Any], cfg: Any, tokenizer: Any) -> Any:
    limit = cfg.eval_sequence_len or cfg.sequence_len
    block = DictDefault(block)
    dataset, _ = getattr(sft, _LOAD_ONE)(
        dataset_config=block, cfg=cfg, tokenizer=tokenizer, split="test", seed=cfg.seed
    )
    whole = len(dataset)
    source = _rows_of_source(block, cfg)
    kept = handle_long_seq_in_dataset(dataset, limit, cfg)
    if source is not None and source != len(kept):
        said = f"{name}: {len(kept)} of {source} rows are evaluated"
        because = (
            f"Axolotl drops rows above sequence_len = {limit}"
            if len(kept) < whole
            else "the rest was filtered"
        )
        say(f"warning: {said}: {because}")
    if len(kept) == 0:
        raise TunebookError(
            f"evaluation set {name!r} has no rows: {whole} were read, and none is within sequence_len = {limit}",
            fix="raise `sequence_len`, or mend the block of `test_datasets`",
        )
    return kept


def _rows_of_source(block: Any, cfg: Any) -> int | None:
    """Rows before tokenising; a type may filter while it tokenises. None for a set of several splits."""
    source = load_dataset_with_config(block, cfg.hf_use_auth_token)
    return None if isinstance(source, dict) else len(source)


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
