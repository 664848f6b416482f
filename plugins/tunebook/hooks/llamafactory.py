"""Binds `attach` to LLaMA-Factory's workflows, inside its process.

LLaMA-Factory has no extension point for metrics. `run_sft` is the function that knows the dataset arguments,
and it builds its trainer from the name `CustomSeq2SeqTrainer` in its own module; `run_dpo` and `run_kto` do
likewise. We wrap them and replace the trainer during the call. Nothing happens unless a dataset of the run
carries a `"metric"` in the registry; a stage that has no answers to measure then says so in one line.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import importlib
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from tunebook import __version__, metrics
from tunebook.data.registry import load_registry
from tunebook.engines import objectives
from tunebook.errors import TunebookError
from tunebook.evaluation.job import job_of_environment
from tunebook.hooks.attach import attach
from tunebook.hooks.preparation import EngineWords, EvaluationSet
from tunebook.hooks.ranks import say
from tunebook.hooks.rows import common_suffix
from tunebook.hooks.sweep import stop, take_over, with_method
from tunebook.hooks.sweep_models import whole_model
from tunebook.models.checkpoints import last_whole_checkpoint
from tunebook.types import MetricSpec

_TRAINERS = {"sft": "CustomSeq2SeqTrainer", "dpo": "CustomDPOTrainer", "kto": "CustomKTOTrainer"}
"""By stage, the trainer that its workflow builds."""


def bind(workflow: ModuleType) -> None:
    """Wrap `run_<stage>` of `llamafactory.train.<stage>.workflow`.

    Raises:
        AttributeError: This LLaMA-Factory lacks a name we bind to.
    """
    stage = workflow.__name__.split(".")[-2]
    run = f"run_{stage}"
    if stage not in _TRAINERS:
        if hasattr(workflow, run):
            setattr(workflow, run, _says_what_is_left_out(stage, getattr(workflow, run)))
        return
    owner = workflow
    if stage == "dpo":  # `run_dpo` takes its trainer from the module where it is written, when it runs
        owner = importlib.import_module(workflow.__name__.replace("workflow", "trainer"))
    seams = {run: workflow, _TRAINERS[stage]: owner, "load_model": workflow}
    missing = [name for name, module in seams.items() if not hasattr(module, name)]
    if missing:
        raise AttributeError(f"it has no {' and no '.join(missing)}")
    setattr(workflow, run, _wrap(workflow, owner, stage, getattr(workflow, run)))


def _says_what_is_left_out(stage: str, run: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap the workflow of a stage without answers: one line where a metric is asked for."""

    @functools.wraps(run)
    def run_and_say(model_args: Any, data_args: Any, *rest: Any, **named: Any) -> Any:
        objective = objectives.objective("llamafactory", {"stage": stage})
        asked = _asked(data_args, _names(data_args))
        if asked and objective is not None:
            what = "; ".join(
                f"{name}: {', '.join(one.name for one in specs)}" for name, specs in asked.items()
            )
            say(
                f"tunebook {__version__} leaves out {what}: {objective.setting}: {objective.no_answers}; "
                f"{objective.advice}"
            )
        return run(model_args, data_args, *rest, **named)

    return run_and_say


def _wrap(
    workflow: ModuleType, owner: ModuleType, stage: str, run_stage: Callable[..., Any]
) -> Callable[..., Any]:
    trainer_name = _TRAINERS[stage]

    @functools.wraps(run_stage)
    def run_with_metrics(
        model_args: Any, data_args: Any, training_args: Any, finetuning_args: Any, *rest: Any, **named: Any
    ) -> Any:
        job = job_of_environment()
        objective = objectives.objective(
            "llamafactory", {"stage": stage, "pref_loss": getattr(finetuning_args, "pref_loss", None)}
        )
        try:
            sets = evaluation_sets(data_args, training_args, always=job is not None, objective=objective)
        except TunebookError as error:
            stop(error, job)
        if not sets:
            return run_stage(model_args, data_args, training_args, finetuning_args, *rest, **named)
        _choose_checkpoint(training_args)
        stock = getattr(owner, trainer_name)
        stock_load = workflow.load_model  # type: ignore[attr-defined]
        if job is not None:
            sets = with_method(sets, job)

        def load(path: str, tokenizer: Any) -> Any:
            own = copy.copy(model_args)
            own.model_name_or_path = path
            if job is not None and job.device_map is not None:
                own.device_map = job.device_map
            return stock_load(tokenizer, own, finetuning_args, False)

        def build(*args: Any, **kwargs: Any) -> Any:
            trainer = stock(*args, **kwargs)
            words = EngineWords(
                length_key="cutoff_len",
                prompt_loss_key="train_on_prompt",
                length_limit=data_args.cutoff_len,
                answer_header=_answer_header(trainer.data_collator.template, trainer.processing_class),
                collator=_collator(trainer.data_collator),
            )
            try:
                attach(trainer, sets, words=words, output_dir=Path(training_args.output_dir))
            except TunebookError as error:
                stop(error, job)
            if job is not None:
                take_over(
                    trainer,
                    job,
                    lambda path: load(path, trainer.processing_class),
                    loaded=whole_model(job.candidates[0]),
                )
            return trainer

        setattr(owner, trainer_name, build)
        if job is not None:
            first = whole_model(job.candidates[0])
            # The rows are made with the tokenizer that training had; the base itself may not be asked for.
            workflow.load_model = lambda tokenizer, *_, **__: load(first, tokenizer)  # type: ignore[attr-defined]
        try:
            with _evaluation_rows_apart(data_args, stage):
                return run_stage(model_args, data_args, training_args, finetuning_args, *rest, **named)
        finally:
            setattr(owner, trainer_name, stock)
            workflow.load_model = stock_load  # type: ignore[attr-defined]

    return run_with_metrics


@contextlib.contextmanager
def _evaluation_rows_apart(data_args: Any, stage: str) -> Iterator[None]:
    """Let LLaMA-Factory make evaluation rows one by one: not packed, and read whole where they are streamed.

    It says of each set how many rows are dropped, which LLaMA-Factory logs row by row. Training rows stay.
    """
    loader = importlib.import_module("llamafactory.data.loader")
    stock = loader._get_preprocessed_dataset  # type: ignore[attr-defined]
    names = _names(data_args)
    shown = iter(names if data_args.eval_on_each_dataset else ["+".join(names)])
    lacks = "one of two answers" if stage == "dpo" else "an answer"

    def preprocess(dataset: Any, given: Any, *args: Any, is_eval: bool = False, **named: Any) -> Any:
        if not is_eval:
            return stock(dataset, given, *args, **named)
        own = copy.copy(given)
        own.packing = own.neat_packing = False
        found = stock(dataset, own, *args, is_eval=True, **named)
        name = next(shown, names[-1])
        if not hasattr(found, "__len__"):
            return _read_whole(found, name)
        if len(found) < len(dataset):
            say(
                f"warning: {name}: {len(found)} of {len(dataset)} rows are evaluated: LLaMA-Factory drops "
                f"rows that lack {lacks} or whose turns are out of order"
            )
        return found

    loader._get_preprocessed_dataset = preprocess  # type: ignore[attr-defined]
    try:
        yield
    finally:
        loader._get_preprocessed_dataset = stock  # type: ignore[attr-defined]


def _read_whole(stream: Any, name: str) -> Any:
    """The rows of a stream as a set, since evaluation counts them and deals them to the ranks."""
    from datasets import Dataset
    from tqdm import tqdm

    rows = list(tqdm(stream, desc=f"reading {name}", unit=" rows", mininterval=1.0))
    say(f"{name}: {len(rows)} rows of the stream are evaluated")
    return Dataset.from_list(rows)


def _collator(stock: Any) -> Any:
    """The run's own collator, for rows that are not packed, and pads no more than the longest row needs."""
    own = copy.copy(stock)
    own.pad_to_multiple_of = None
    for name in ("block_diag_attn", "neat_packing"):
        if hasattr(own, name):
            setattr(own, name, False)
    return own


def _answer_header(template: Any, tokenizer: Any) -> tuple[int, ...]:
    """What the template writes before an answer: the common end of two prompts."""
    prompts = []
    for question in ("a", "1."):
        turn = [{"role": "user", "content": question}, {"role": "assistant", "content": "x"}]
        prompts.append(tuple(template.encode_oneturn(tokenizer, turn)[0]))
    return common_suffix(prompts)


def evaluation_sets(
    data_args: Any,
    training_args: Any,
    *,
    always: bool = False,
    objective: objectives.Objective | None = None,
) -> dict[str, EvaluationSet]:
    """The run's evaluation sets by metric prefix; empty when no dataset of theirs carries a metric.

    Args:
        data_args: LLaMA-Factory's `DataArguments`.
        training_args: Its `TrainingArguments`.
        always: Also where no dataset carries a metric: loss and perplexity are measured.
        objective: What is trained for; None for supervised fine-tuning.

    Raises:
        TunebookError: A metric is unknown, or with a setting no answer can be separated from its prompt.
    """
    names = _names(data_args)
    specs = _asked(data_args, names)
    if specs is None or not (specs or always):
        return {}
    _refuse_unreadable_rows(data_args, training_args)
    # In a stage of preferences a set without a metric is the engine's alone.
    measured = [name for name in names if objective is None or name in specs]
    asked = {name: ", ".join(spec.name for spec in specs.get(name, ())) or "loss" for name in measured}
    say(f"tunebook {__version__} measures " + "; ".join(f"{name}: {what}" for name, what in asked.items()))

    def one(shown: str, asks: str, prefix: str = "") -> EvaluationSet:
        beside = None if objective is None else objective.reported(prefix)
        return EvaluationSet(name=shown, metrics=metrics.load_asked(specs.get(asks, ())), beside=beside)

    if data_args.eval_on_each_dataset:
        return {f"eval_{name}": one(name, name, name) for name in measured}
    if specs and (len(set(specs.values())) > 1 or len(specs) < len(set(names))):
        raise TunebookError(
            f"the evaluation datasets {', '.join(names)} are merged into one set but carry different metrics",
            fix="set `eval_on_each_dataset: true`",
        )
    return {"eval": one("+".join(names), names[0])}


def _names(data_args: Any) -> list[str]:
    """The registry entries that the run evaluates on."""
    return list(data_args.eval_dataset or (data_args.dataset if data_args.val_size else None) or [])


def _asked(data_args: Any, names: list[str]) -> dict[str, tuple[MetricSpec, ...]] | None:
    """What is to be measured on each of `names`; None where there is no registry that we read."""
    if not names or not isinstance(data_args.dataset_dir, str):
        return None
    registry = Path(data_args.dataset_dir) / "dataset_info.json"
    if not registry.is_file():
        return None  # an online registry; LLaMA-Factory reads it, we do not
    entries = load_registry(registry)
    return entries.metrics_of(name for name in names if name in entries.values)


def _refuse_unreadable_rows(data_args: Any, training_args: Any) -> None:
    if data_args.train_on_prompt:
        raise TunebookError(
            "`train_on_prompt: true` applies to the evaluation rows too: no answer can be separated from its "
            "prompt",
            fix='set `train_on_prompt: false`, or remove "metric" from the evaluation datasets',
        )
    if data_args.packing and data_args.tokenized_path:
        raise TunebookError(
            f"tokenized_path: rows kept in {data_args.tokenized_path} are packed, the evaluation's too: no "
            "answer can be separated from the next",
            fix="leave out tokenized_path and --cache, or set `packing: false`",
        )
    if training_args.predict_with_generate and training_args.do_train:
        raise TunebookError(
            "`predict_with_generate: true` replaces the evaluation by LLaMA-Factory's own generation",
            fix="remove it: metrics that need generation generate by themselves",
        )


def _choose_checkpoint(training_args: Any) -> None:
    """Never resume from an incomplete checkpoint; LLaMA-Factory takes the newest, whatever it holds."""
    wanted = training_args.resume_from_checkpoint
    if not training_args.do_train or not wanted or Path(wanted).parent != Path(training_args.output_dir):
        return
    found = last_whole_checkpoint(Path(training_args.output_dir))
    for broken, reason in found.passed_over:
        say(f"passing over {broken.name}: {reason}")
    training_args.resume_from_checkpoint = str(found.path) if found.path else None
    say(f"resuming from {found.path.name}" if found.path else "no whole checkpoint, starting anew")
