"""What an evaluation after training consists of: models, rows, and what each model gave for each row."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tunebook.types import MetricMode, MetricSpec


Kind = Literal["base", "adapter", "full", "endpoint"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """One model to evaluate."""

    label: str
    """What people call it: `<run>@<step>`, `<base> (base)` or the model folder's name. Unique."""
    kind: Kind
    path: str
    """Folder or hub name of the weights: only the adapter's where `kind` is `adapter`. A URL for an
    endpoint."""
    base: str
    """Folder or hub name of the model that it was trained from, or is."""
    run: str | None
    """The run's output_dir; None for a model that no run of ours made."""
    step: int
    """Optimizer steps of the weights; 0 for a base model, or where nothing says."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SetRow:
    """One row of an evaluation set, as every model is given it."""

    index: int
    prompt: str
    """Its end, as text."""
    reference: str
    prompt_tokens: int | None
    """None where the prompt is built by a server and the model's tokenizer is not on this machine."""
    answer_cut: bool
    """The engine cut the answer or the assistant header at its length limit."""
    measured: bool
    """Loss is taken on it."""
    scored: bool
    """Metrics are computed on it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SetHeader:
    """How one model is measured on one set. With the rows, this is enough to make results of answers."""

    dataset: str
    metrics: tuple[MetricSpec, ...]
    mode: MetricMode
    """`generate`: every scored row needs a generated answer too."""
    classes_of: str | None
    """The metric whose classes are looked up in the logits."""
    max_new_tokens: int
    loss_batch_size: int
    """See `scoring.figures.Loss.loss`; 0 where no loss is measured."""
    rows: int
    notes: tuple[str, ...] = ()
    """What is to be said about the set."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """What the pass over the answer positions gave for one row."""

    index: int
    nll: float
    """Sum over the reference's tokens, in nats."""
    tokens: int
    """Reference tokens."""
    hits: int
    """Of these, how many the argmax gets right."""
    prediction: str
    """As far as greedy decoding would give it too; see `hooks.decoding`."""
    class_logprobs: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Generated:
    """What one model wrote for one row."""

    index: int
    prediction: str
    tokens: int
    """Generated tokens, the stop token left out."""
    cut: bool
    """No stop token came within the limit."""
    prompt_tokens: int | None = None
    """As a server counts them; None inside the engine."""
    reasoning: str = ""
    """The model's thoughts, where a server separates them from the answer."""


_LONGEST = 200  # most file systems allow 255 bytes, and a suffix is to come


def result_name(
    *, recipe: str, run_label: str, dataset: str, candidate: Candidate, settings: str, digest: str
) -> str:
    """Return the name of a result's files without suffix; the same evaluation has the same name.

    Args:
        recipe: The recipe's name, of which the last part is taken.
        run_label: What distinguishes the run from others of its recipe.
        dataset: The evaluation set.
        candidate: The model.
        settings: How it was measured, in words: see `settings_words`.
        digest: Hexadecimal; of everything in recipe and settings that decides the answers.
    """
    last = PurePath(recipe).stem
    first = last if run_label in ("", last) else f"{last}.{run_label}"
    kind = (
        candidate.kind
        if candidate.kind == "base" or not candidate.step
        else f"{candidate.kind}-{candidate.step}"
    )
    parts = [first, dataset, kind, PurePath(candidate.base.rstrip("/")).name, f"{settings}-{digest[:8]}"]
    name = "--".join(_slug(part) for part in parts)
    return name if len(name) <= _LONGEST else f"{name[: _LONGEST - 9]}-{digest[:8]}"


def settings_words(*, method: str | None, max_samples: int | None, shots: int) -> str:
    """Return how a set was measured, as part of a file's name.

    >>> settings_words(method=None, max_samples=200, shots=1)
    'auto-1shot-n200'
    """
    words = [method or "auto"]
    if shots:
        words.append(f"{shots}shot")
    if max_samples is not None:
        words.append(f"n{max_samples}")
    return "-".join(words)


def _slug(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9.+_=-]+", "_", text).strip("_.") or "_"


FORMAT = 1
"""Of journals; rises when one written before can no longer be read."""

_WEIGHTS = ("*.safetensors", "*.bin", "*.json", "*.jinja", "tokenizer*", "*.model")


def journal_key(candidate: Candidate, dataset: str, deciding: Mapping[str, Any]) -> str:
    """Return a hexadecimal digest of all that decides what a model gives for the rows of a set.

    Args:
        candidate: The model. Its label and run decide nothing.
        dataset: The set's name.
        deciding: Recipe, data, versions and settings.
    """
    weights = {name: weights_identity(name) for name in {candidate.path, candidate.base}}
    about = {
        "format": FORMAT,
        "kind": "adapter" if candidate.kind == "adapter" else "whole",
        "weights": weights[candidate.path],
        "base": weights[candidate.base] if candidate.kind == "adapter" else None,
        "dataset": dataset,
        **deciding,
    }
    return digest(about)[:32]


def digest(values: Mapping[str, Any]) -> str:
    """Return the SHA-256 of plain values, whatever the order of their keys."""
    text = json.dumps(values, sort_keys=True, default=str, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def weights_identity(name: str) -> list[Any]:
    """Return what identifies weights: each file's name, size and time of change.

    The content is not read: it may be hundreds of gigabytes. A name on a hub identifies itself.
    """
    folder = Path(name)
    if not folder.is_dir():
        return [name]
    files = {path for pattern in _WEIGHTS for path in folder.glob(pattern) if path.is_file()}
    files = {path for path in files if path.name not in _CHANGING}
    facts = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in sorted(files)]
    return [str(folder.resolve()), *facts]


# An engine or a report may write these beside the weights later.
_CHANGING = frozenset(
    {
        *("trainer_state.json", "all_results.json", "eval_results.json", "train_results.json"),
        *("training_args.bin", "optimizer.bin", "tokens_state.json"),
    }
)
