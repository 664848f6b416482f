"""Tells whether an answer that is kept was given by these weights to these rows: the keys of journals."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tunebook.evaluation.records import Subject

FORMAT = 1
"""Rises when a journal written before can no longer be read."""

_WEIGHTS = ("*.safetensors", "*.bin", "*.json", "*.jinja", "tokenizer*", "*.model")


def journal_key(subject: Subject, dataset: str, deciding: Mapping[str, Any]) -> str:
    """Return a hexadecimal digest of all that decides what a model gives for the rows of a set.

    Args:
        subject: The model. Its label and run decide nothing.
        dataset: The set's name.
        deciding: Recipe, data, versions and settings.
    """
    weights = {name: weights_identity(name) for name in {subject.path, subject.base}}
    about = {
        "format": FORMAT,
        "kind": "adapter" if subject.kind == "adapter" else "whole",
        "weights": weights[subject.path],
        "base": weights[subject.base] if subject.kind == "adapter" else None,
        "dataset": dataset,
        **deciding,
    }
    return digest(about)[:32]


def digest(values: Mapping[str, Any]) -> str:
    """Return the SHA-256 of plain values, whatever the order of their keys."""
    text = json.dumps(values, sort_keys=True, default=str, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def weights_identity(name: str) -> list[Any]:
    """Return what tells these weights from others: each file's name, size and time of change.

    The content is not read: it may be hundreds of gigabytes. A name on a hub stands for itself.
    """
    folder = Path(name)
    if not folder.is_dir():
        return [name]
    files = {path for pattern in _WEIGHTS for path in folder.glob(pattern) if path.is_file()}
    files = {path for path in files if path.name not in _CHANGING}
    facts = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in sorted(files)]
    return [str(folder.resolve()), *facts]


# An engine or a report may write these beside the weights later on.
_CHANGING = frozenset(
    {
        *("trainer_state.json", "all_results.json", "eval_results.json", "train_results.json"),
        *("training_args.bin", "optimizer.bin", "tokens_state.json"),
    }
)
