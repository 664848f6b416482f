"""Records that cross modules. They hold data; they open no files and import nothing of ours."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

EngineName = Literal["llamafactory", "axolotl"]
MetricMode = Literal["answer", "generate"]

IGNORED = -100
"""The label id at positions that carry no loss; the same in both engines and in torch."""


MEDIA = ("images", "videos", "audios")
"""Columns of a row beside its text, under LLaMA-Factory's names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """One engine-native YAML file, read but not changed, or the result of merging overlays into it."""

    name: str
    """Path below the recipes folder without `.yaml`, e.g. `llamafactory/qwen3-0.6b/qlora_sft_movielens`;
    the file's path as given for a recipe from elsewhere."""
    engine: EngineName
    path: Path
    """The file it was read from."""
    values: Mapping[str, Any]
    """The engine's own keys, as the engine reads them."""
    header: Mapping[str, str]
    """The facts of the leading comment: purpose, hardware, expected, source."""
    overlays: tuple[str, ...] = ()
    """Overlays and `key=value` overrides already merged in, in order."""


METRIC_OPTIONS: Mapping[str, tuple[str, ...]] = {
    "classification": ("labels", "positive"),
    "json": ("schema",),
    "rouge": ("tokenize",),
    "bleu": ("tokenize",),
}
"""Options of a built-in metric's own; its module has a `configured(options)` that gives the metric."""


def with_options(name: str, options: Mapping[str, Any]) -> str:
    """Return the name of a metric with its own options, as records keep it and `metrics.load` reads it.

    >>> with_options("rouge", {"tokenize": "char"})
    'rouge{"tokenize": "char"}'
    """
    return f"{name}{json.dumps(dict(options), ensure_ascii=False)}" if options else name


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricSpec:
    """What a registry entry asks to be measured."""

    name: str
    """A built-in metric, an entry point of group `tunebook.metrics`, or `package.module:function`; a metric's
    own options stand after it as JSON: `rouge{"tokenize": "char"}`."""
    mode: MetricMode | None = None
    """None: the metric's own choice, by whether the rows are direct answers."""
    max_new_tokens: int | None = None
    max_samples: int | None = None
    """Rows of a fixed, seeded subset that generation is run on; None for all."""

    @property
    def reads_answers(self) -> bool:
        """Whether a metric of this name is loaded; `perplexity` comes from the loss of every evaluation."""
        return self.name != "perplexity"


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetEntry:
    """One entry of `dataset_info.json`."""

    name: str
    registry: Path
    """The `dataset_info.json` it is in."""
    values: Mapping[str, Any]
    """The entry as written: the engine's own keys and `metric`."""
    metrics: tuple[MetricSpec, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """The verdict on one prediction."""

    values: Mapping[str, float]
    """Per-example figures, e.g. `{"accuracy": 1.0}`; each in the unit its metric documents."""
    parsed: str | None
    """What was read out of the prediction, in canonical form; None where nothing could be read."""
    reference: str | None = None
    """The reference in canonical form, for metrics whose aggregate needs both."""
    rule: str | None = None
    """The rule that read the prediction, e.g. `first_word`."""
    reason: str | None = None
    """Why nothing could be read, e.g. `empty`; None exactly when `parsed` is not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One number that an evaluation ends with: all that anybody has to know of it besides its value."""

    name: str
    """As it is logged, without `eval_`."""
    label: str = ""
    """Its name for readers; the plain name where it has none."""
    smaller_is_better: bool = False
    descriptive: bool = False
    """It says what the data or the answers are like: neither more nor less of it is better."""
    may_be_undefined: bool = False
    """Some predictions leave it undefined, on rows where others define it. A trainer is given NaN for it,
    because its model card needs the same names at every evaluation."""
    low: float | None = 0.0
    """The least value it can have; None where there is none."""
    high: float | None = 1.0
    """The largest."""
    from_zero: bool = True
    """Whether a chart's axis begins at 0."""
    detail: bool = False
    """Its chart waits in a report until a reader asks for it."""

    def __post_init__(self) -> None:
        """Give a figure without a label its name for one."""
        if not self.label:
            object.__setattr__(self, "label", self.name.replace("_", " ").replace("/", " "))


UNPARSED = Figure(name="unparsed_rate", label="share unparsed", smaller_is_better=True, detail=True)
"""Share of the predictions that could not be read; every metric of ours has it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """A metric: how one prediction is scored and how scores become figures."""

    name: str
    score: Callable[[str, str], Score]
    """`score(prediction, reference)`. Raises ValueError when the reference is unusable."""
    aggregate: Callable[[Sequence[Score]], Mapping[str, float]]
    """Figures over all scores, by name. A figure that is not defined for these scores is left out."""
    figures: tuple[Figure, ...]
    """Every figure `aggregate` may return, the most telling first. A bare name may be given for a figure
    that needs no more said of it, or with the two sets below."""
    select_by: str
    """Name of the figure to choose checkpoints by."""
    smaller_is_better: frozenset[str] = frozenset()
    """Names of the figures of which a smaller value is better; those that say so themselves are added."""
    figures_complete: bool = True
    """False for a user's function, whose dict may hold names that are known only once it has run."""
    may_be_undefined: frozenset[str] = frozenset()
    """As `smaller_is_better`; see `Figure.may_be_undefined`."""
    classes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """For metrics whose answer is one of a few words: canonical answer -> its spellings, e.g.
    `{"yes": ("Yes", " Yes", "yes", ...), ...}`. Only such metrics can work from answer positions."""
    fit: Callable[[Sequence[str]], Metric] | None = None
    """For metrics that take their classes from the data: the same metric for these references. Raises
    ValueError where they are no classes."""
    signature: Callable[[], str] | None = None
    """What has to be published with the figures so that they can be compared, e.g. sacrebleu's signature."""
    default_max_new_tokens: int = 16
    """Upper bound of generated tokens where the registry entry names none."""

    def __post_init__(self) -> None:
        """Make every figure a `Figure`, and the two sets what the figures say."""
        figures = tuple(
            one
            if isinstance(one, Figure)
            else Figure(
                name=one,
                smaller_is_better=one in self.smaller_is_better,
                may_be_undefined=one in self.may_be_undefined,
                low=None,
                high=None,
            )
            for one in self.figures
        )
        object.__setattr__(self, "figures", figures)
        for flag in ("smaller_is_better", "may_be_undefined"):
            found = {one.name for one in figures if getattr(one, flag)}
            object.__setattr__(self, flag, getattr(self, flag) | found)

    @property
    def short_name(self) -> str:
        """The name without its options and without the module of a function."""
        return self.name.partition("{")[0].rpartition(":")[2]

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the figures, in their order."""
        return tuple(one.name for one in self.figures)


@dataclass(frozen=True, slots=True, kw_only=True)
class EvalRecord:
    """One evaluated example, as written to `eval_records-<dataset>-<step>.jsonl`."""

    dataset: str
    index: int
    """Row of the evaluation set, from 0, whatever the number of ranks."""
    step: int
    """Optimizer steps taken when it was evaluated."""
    prompt: str
    prediction: str
    reference: str
    mode: MetricMode
    scores: Mapping[str, Score]
    """By metric name."""
    nll: float | None
    """Sum of the negative log-likelihood over the reference's tokens, in nats."""
    reference_tokens: int
    margin: float | None = None
    """log p(yes) - log p(no) at the answer position, in nats, for metrics with two classes."""
    answer_cut: bool = False
    """The engine cut this row's answer or its assistant header at the length limit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """A process to start: an argument list, never a shell string."""

    argv: tuple[str, ...]
    env: Mapping[str, str]
    """What is added to the caller's environment."""
