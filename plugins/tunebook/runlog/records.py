"""What was read of a run: series, evaluations, examples, facts, and what could not be read."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

NoteKind = Literal["lost", "resumed", "read", "left out", "open"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """Something a reader of the numbers should know about their source."""

    kind: NoteKind
    """`lost`: part of a file could not be read; `resumed`: the run was started again; `read`: how a
    number was obtained where that is not obvious; `left out`: a file or a part of one is of another run;
    `open`: a file does not say how the run ended."""
    file: str
    """Path below the run folder."""
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Sourced:
    """One number and where it is from."""

    value: float
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SeriesPart:
    """A stretch of a series: consecutive points that came from one file."""

    source: str
    """Path below the run folder."""
    first_step: int
    last_step: int
    points: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """One logged quantity over the optimizer steps."""

    name: str
    """As the Trainer logs it: `loss`, `grad_norm`, `eval_loss`, `eval_demo_test_macro_f1`, ..."""
    steps: NDArray[np.int64]
    """Optimizer steps, strictly increasing, shape (N,)."""
    values: NDArray[np.float64]
    """Shape (N,); `nan` and infinities are kept as logged."""
    source: str
    """The file or files it came from, below the run folder, in words."""
    parts: tuple[SeriesPart, ...] = ()
    """Of a series that was joined from several files: its stretches in order. Else empty."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TimeSeries:
    """One quantity sampled by the clock, not by optimizer steps."""

    seconds: NDArray[np.float64]
    """Since the first sample of its file, not decreasing, shape (N,)."""
    values: NDArray[np.float64]
    """Shape (N,); samples without a number (`[N/A]`) are left out."""
    source: str
    exact_clock: bool = True
    """False where the file has no timestamps and the seconds merely count the samples from 0."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchedGpu:
    """One card that the run, or something beside it, used while it was being watched."""

    host: str | None
    """Where several hosts were watched; None where the file does not say."""
    index: str
    """As the source numbers it, e.g. `0`, or its UUID or bus id where it was not numbered."""
    name: str | None
    memory_total_mib: float | None
    memory_mib: TimeSeries | None
    """Memory in use on the card, of all processes."""
    utilization_percent: TimeSeries | None
    power_w: TimeSeries | None
    peak_memory_mib: Sourced | None
    """The largest sample: a peak between two samples is not seen."""


PhaseName = Literal[
    "starting", "loading data", "tokenising", "loading model", "training", "evaluating", "saving"
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Phase:
    """Time that all starts of a run together spent in one phase."""

    name: PhaseName
    """`training` is without the evaluations and savings within it."""
    seconds: float | None
    """None: there was such a phase, and how long it took is not known."""
    stretches: int | None
    """How often the run was in it, e.g. evaluations made; None where the source does not say."""
    source: str
    """Where the seconds are from, e.g. `train.log (timestamps)`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Restart:
    """A place where the run was started again."""

    resumed_at_step: int | None
    """The step of the checkpoint it went on from; 0 for one from the beginning, None where not known."""
    steps_repeated: int | None
    """Steps that an earlier start had logged already and that were taken again; the later values count."""
    source: str
    """The file that shows it."""
    message: str
    """In words, e.g. `resumed at step 400; steps 401 to 480 were taken again`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """One evaluation of one dataset."""

    dataset: str
    """Name in the registry; `` where the engine did not say, as in `eval_loss`."""
    step: int
    values: Mapping[str, float]
    """Figures without the `eval_` prefix and the dataset's name, e.g. `macro_f1`."""
    source: str
    epoch: float | None = None
    stderr: Mapping[str, float] = field(default_factory=dict)
    """Standard errors over examples, for the figures that have one."""
    n: int | None = None
    """Examples; None where the engine did not write it down."""
    n_unparsed: int | None = None
    unparsed_reasons: Mapping[str, int] = field(default_factory=dict)
    answers_cut: int | None = None
    """Rows whose answer the engine cut at its length limit."""
    mode: str | None = None
    """`answer`, `generate`, or None for the engine's own evaluation."""
    metrics: tuple[str, ...] = ()
    """Names of the metrics that made the figures, e.g. `("yes_no",)`."""
    select_by: str | None = None
    """The figure that checkpoints are chosen by; None where nobody said."""
    larger_is_better: bool = True
    seconds: float | None = None
    tokens: int | None = None
    after_training: bool = False
    """True for the engine's last evaluation, of the weights it kept."""
    signatures: Mapping[str, str] = field(default_factory=dict)
    """By metric: what has to be published with its figures, e.g. sacrebleu's signature."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluatedExample:
    """One evaluated example, with the verdict of one metric."""

    dataset: str
    step: int
    index: int
    """Row of the evaluation set, from 0."""
    prompt: str
    prediction: str
    reference: str
    mode: str
    scores: Mapping[str, Mapping[str, Any]]
    """By metric: values, parsed, reference, rule, reason, as written by the run."""
    margin: float | None
    """log p(yes) - log p(no) in nats; None for metrics without two classes."""
    answer_cut: bool
    source: str
    reference_tokens: int | None = None
    """None where the record does not say."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trainer:
    """What `trainer_state.json` says about the run as a whole."""

    source: str
    global_step: int | None = None
    max_steps: int | None = None
    epochs: float | None = None
    """Epochs asked for."""
    best_metric: float | None = None
    best_step: int | None = None
    """Step of the best checkpoint by the Trainer's own choice."""
    best_checkpoint: str | None = None
    patience: int | None = None
    """Evaluations without improvement after which the run was to stop; None without early stopping."""
    without_improvement: int | None = None
    """Evaluations without improvement when the state was written."""
    best_folder: str | None = None
    """The `output_dir` that the best checkpoint lies in, by the path that the state names."""


EndKind = Literal["memory", "host memory", "error", "time limit", "preempted", "cancelled", "stall", "signal"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """What broke a run off, as the last lines of a log say."""

    kind: EndKind
    title: str
    """In a few words, e.g. `CUDA out of memory`."""
    evidence: str
    """The line that says it, as it was written, secrets taken out."""
    source: str
    step: int | None = None
    """The last step that any file or bar shows; None where there was none."""
    total: int | None = None
    """Steps that the run was to take."""
    after_training: bool = False
    """Whether training had ended: it broke an evaluation, a prediction or an upload."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunLog:
    """Everything that was found of one run."""

    name: str
    path: Path
    engine: str | None
    series: Mapping[str, Series]
    evaluations: tuple[Evaluation, ...]
    """By step, then dataset."""
    record_files: Mapping[tuple[str, int], Path]
    """(dataset, step) -> file of per-example records."""
    trainer: Trainer | None
    results: Mapping[str, float]
    """The engine's closing figures, e.g. `train_runtime`."""
    results_source: str | None
    settings: Mapping[str, Any]
    """The engine's own keys as the run used them, as far as they are known."""
    settings_source: str | None
    recipe_text: str | None
    """The resolved recipe, or None where the run left none."""
    provenance: Mapping[str, Any]
    """`run.json`, or an empty mapping where the run left none."""
    notes: tuple[Note, ...] = ()
    facts: Mapping[str, Sourced] = field(default_factory=dict)
    """Single numbers from elsewhere: `trained_parameters`, `peak_gpu_memory_mib` (the fullest card)."""
    phases: tuple[Phase, ...] = ()
    """In the order of a run; a phase that no file shows is not in it."""
    restarts: tuple[Restart, ...] = ()
    """By step; every start after the first that left a trace."""
    gpus: tuple[WatchedGpu, ...] = ()
    """Cards that were watched by `nvidia-smi` or W&B; empty where nobody watched."""
    wall_seconds: Sourced | None = None
    """From start to end, over all starts, without the time between them; None where not known."""
    gpu_count: Sourced | None = None
    """GPUs that the run had; None where not known, as for a run on the CPU that did not say so."""
    gpu_hours: Sourced | None = None
    """Wall time times GPUs; None where one of them is not known."""
    ending: Ending | None = None
    """What broke the run off; None of one that ended by itself, goes on, or left no word of it."""
    counts_entries: bool = False
    """Whether no file says the steps, so that the axis counts the entries of a log."""
    trained: bool = True
    """Whether any file shows a training: not so of a folder of predictions or of GPU logs."""
