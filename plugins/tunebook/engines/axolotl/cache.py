"""The folder of Axolotl's tokenised rows, named after what is in the data files.

Axolotl names the cache after the blocks and paths of a recipe. Whoever edits a data file, the tokenizer or
the length strategy trains on, and evaluates, the rows of before, with nothing said.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunebook import __version__
from tunebook.runs.token_cache import base_of, content, tokenizer_files

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_DEFAULT = "last_run_prepared"  # axolotl/common/const.py

# What decides the rows and is not in Axolotl's own name for them (axolotl/utils/data/shared.py).
_SETTINGS = (
    *("sequence_len", "eval_sequence_len", "min_sample_len", "excess_length_strategy"),
    *("seed", "shuffle_merged_datasets", "shuffle_before_merging_datasets", "dataset_exact_deduplication"),
    *("sample_packing", "eval_sample_packing", "chat_template", "chat_template_kwargs", "tokens"),
)


def prepared_path(values: Mapping[str, Any], root: Path) -> str:
    """Return `dataset_prepared_path` with a last folder that changes when the rows would.

    Applied to its own result it changes nothing, unless the data has changed meanwhile.

    Args:
        values: The recipe.
        root: The folder that relative paths start from.
    """
    base = base_of(str(values.get("dataset_prepared_path") or _DEFAULT))
    digest = hashlib.sha256(__version__.encode())
    for key in _SETTINGS:
        digest.update(json.dumps([key, values.get(key)], default=str).encode())
    for path in _files(values, root):
        digest.update(f"{path}\0{content(path)}\0".encode())
    return str(base / f"tunebook-{digest.hexdigest()[:16]}")


def _files(values: Mapping[str, Any], root: Path) -> Iterator[Path]:
    """Yield the local files that a recipe's rows come from: data, tokenizer, its own chat template."""
    for key in ("datasets", "test_datasets"):
        blocks = values.get(key)
        for block in blocks if isinstance(blocks, list) else ():
            if not isinstance(block, dict):
                continue
            named = block.get("data_files") or ()
            for name in [block.get("path"), *([named] if isinstance(named, str) else named)]:
                yield from _below(root / str(name))
            yield from _below(root / str(block.get("chat_template_jinja")))
    yield from _below(root / str(values.get("chat_template_jinja")))
    tokenizer = root / str(values.get("tokenizer_config") or values.get("base_model"))
    yield from tokenizer_files(tokenizer)


def _below(path: Path) -> list[Path]:
    try:
        if path.is_dir():
            return sorted(file for file in path.rglob("*") if file.is_file())
        return [path] if path.is_file() else []
    except OSError:  # a template written out in the recipe is no file name
        return []
