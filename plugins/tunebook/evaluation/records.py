"""What an evaluation after training is made of: models, rows, and what each model gave for each row."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
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
    """As far as greedy decoding would give it too; see `hooks.examples`."""
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
