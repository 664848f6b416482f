"""What an evaluation after training is made of: models, rows, and what each model gave for each row."""

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
class Subject:
    """One model to evaluate."""

    label: str
    """What people call it: `<run>@<step>`, `<base> (base)` or the model folder's name. One of its kind."""
    kind: Kind
    path: str
    """Folder or hub name of the weights: of the adapter alone where `kind` is `adapter`. A URL for an
    endpoint."""
    base: str
    """Folder or hub name of the model that it was trained from, or is."""
    run: str | None
    """The run's output_dir; None for a model that no run of ours left."""
    step: int
    """Optimizer steps behind the weights; 0 for a base model, or where nothing tells."""


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
    """How one model is measured on one set: with its rows, all that is needed to make results of answers."""

    dataset: str
    metrics: tuple[MetricSpec, ...]
    mode: MetricMode
    """`generate`: every scored row needs a generated answer too."""
    classes_of: str | None
    """The metric whose classes are looked up in the logits."""
    max_new_tokens: int
    loss_batch_size: int
    """See `eval_figures.Loss.loss`; 0 where no loss is measured."""
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
    """As far as greedy decoding would give it too; see `hooks.evaluator`."""
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
    """What a server told apart from the answer as the model's thoughts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RawResult:
    """Everything one model gave for one row, not yet scored."""

    index: int
    prompt: str
    prediction: str
    reference: str
    mode: MetricMode
    nll: float | None
    """None where no loss was measured, as through an endpoint."""
    tokens: int
    hits: int
    class_logprobs: tuple[float, ...]
    generation_cut: bool
    answer_cut: bool
    prompt_tokens: int | None
    generated_tokens: int | None
    """None where nothing was generated."""
    measured: bool
    scored: bool


# What result files are called: told from what was evaluated, so that the same thing has the same name.

_LONGEST = 200  # most file systems allow 255 bytes, and a suffix is to come


def result_name(
    *, recipe: str, run_label: str, dataset: str, subject: Subject, settings: str, digest: str
) -> str:
    """Return the name of a result without its suffix.

    Args:
        recipe: The recipe's name, of which the last part is taken.
        run_label: What tells the run from others of its recipe.
        dataset: The evaluation set.
        subject: The model.
        settings: How it was measured, in words: see `settings_words`.
        digest: Hexadecimal; of everything about the recipe and the settings that decides the answers.
    """
    last = PurePath(recipe).stem
    first = last if run_label in ("", last) else f"{last}.{run_label}"
    kind = subject.kind if subject.kind == "base" or not subject.step else f"{subject.kind}-{subject.step}"
    parts = [first, dataset, kind, PurePath(subject.base.rstrip("/")).name, f"{settings}-{digest[:8]}"]
    name = "--".join(_slug(part) for part in parts)
    return name if len(name) <= _LONGEST else f"{name[: _LONGEST - 9]}-{digest[:8]}"


def settings_words(*, method: str | None, max_samples: int | None, shots: int) -> str:
    """Return how was measured, in the words of a file's name.

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


# Tells whether an answer that is kept was given by these weights to these rows: the keys of journals.

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
