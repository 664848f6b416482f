"""Binds `attach` to LLaMA-Factory's SFT workflow, inside its process.

LLaMA-Factory has no extension point for metrics of supervised fine-tuning. `run_sft` is the function that
knows the dataset arguments, and it builds its trainer from the name `CustomSeq2SeqTrainer` in its own
module. We wrap `run_sft` and replace the trainer during the call. Nothing happens unless a dataset of the run
carries a `"metric"` in the registry.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from tunebook import __version__, metrics
from tunebook.data.registry import load_registry
from tunebook.errors import TunebookError
from tunebook.evaluation.job import job_of_environment
from tunebook.hooks.attach import attach
from tunebook.hooks.preparation import EngineWords, EvaluationSet
from tunebook.hooks.ranks import say
from tunebook.hooks.rows import common_suffix
from tunebook.hooks.sweep import stop, take_over, with_method
from tunebook.hooks.sweep_models import whole_model
from tunebook.models.checkpoints import last_whole_checkpoint

_SEAMS = ("run_sft", "CustomSeq2SeqTrainer", "load_model")


def bind(workflow: ModuleType) -> None:
    """Wrap `run_sft` of `llamafactory.train.sft.workflow`.

    Raises:
        SystemExit: This LLaMA-Factory lacks a name we bind to.
    """
    missing = [name for name in _SEAMS if not hasattr(workflow, name)]
    if missing:
        stop(
            TunebookError(
                f"this LLaMA-Factory has no {' and no '.join(missing)} in {workflow.__name__}: "
                f"tunebook {__version__} cannot put its metrics into the evaluation",
                fix="install the LLaMA-Factory that tunebook's constraints name, or set TUNEBOOK_HOOK=0",
            )
        )
    workflow.run_sft = _wrap(workflow, workflow.run_sft)  # type: ignore[attr-defined]


def _wrap(workflow: ModuleType, run_sft: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(run_sft)
    def run_sft_with_metrics(
        model_args: Any, data_args: Any, training_args: Any, finetuning_args: Any, *rest: Any, **named: Any
    ) -> Any:
        job = job_of_environment()
        try:
            sets = evaluation_sets(data_args, training_args, always=job is not None)
        except TunebookError as error:
            stop(error, job)
        if not sets:
            return run_sft(model_args, data_args, training_args, finetuning_args, *rest, **named)
        _choose_checkpoint(training_args)
        stock = workflow.CustomSeq2SeqTrainer  # type: ignore[attr-defined]
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

        workflow.CustomSeq2SeqTrainer = build  # type: ignore[attr-defined]
        if job is not None:
            first = whole_model(job.candidates[0])
            # The rows are made with the tokenizer that training had; the base itself may not be asked for.
            workflow.load_model = lambda tokenizer, *_, **__: load(first, tokenizer)  # type: ignore[attr-defined]
        try:
            return run_sft(model_args, data_args, training_args, finetuning_args, *rest, **named)
        finally:
            workflow.CustomSeq2SeqTrainer = stock  # type: ignore[attr-defined]
            workflow.load_model = stock_load  # type: ignore[attr-defined]

    return run_sft_with_metrics


def _answer_header(template: Any, tokenizer: Any) -> tuple[int, ...]:
    """What the template writes before an answer: the common end of two prompts."""
    prompts = []
    for question in ("a", "1."):
        turn = [{"role": "user", "content": question}, {"role": "assistant", "content": "x"}]
        prompts.append(tuple(template.encode_oneturn(tokenizer, turn)[0]))
    return common_suffix(prompts)


def evaluation_sets(data_args: Any, training_args: Any, *, always: bool = False) -> dict[str, EvaluationSet]:
    """The run's evaluation sets by metric prefix; empty when no dataset of theirs carries a metric.

    Args:
        data_args: LLaMA-Factory's `DataArguments`.
        training_args: Its `TrainingArguments`.
        always: Also where no dataset carries a metric: loss and perplexity are measured.

    Raises:
        TunebookError: A metric is unknown, or with a setting no answer can be separated from its prompt.
    """
    names = list(data_args.eval_dataset or (data_args.dataset if data_args.val_size else None) or [])
    if not names or not isinstance(data_args.dataset_dir, str):
        return {}
    registry = Path(data_args.dataset_dir) / "dataset_info.json"
    if not registry.is_file():
        return {}  # an online registry; LLaMA-Factory reads it, we do not
    entries = load_registry(registry)
    specs = entries.metrics_of(name for name in names if name in entries.values)
    if not specs and not always:
        return {}
    _refuse_unreadable_rows(data_args, training_args)
    asked = {name: ", ".join(spec.name for spec in specs.get(name, ())) or "loss" for name in names}
    say(f"tunebook {__version__} measures " + "; ".join(f"{name}: {what}" for name, what in asked.items()))
    if data_args.eval_on_each_dataset:
        return {
            f"eval_{name}": EvaluationSet(name=name, metrics=metrics.load_asked(specs.get(name, ())))
            for name in names
        }
    if specs and (len(set(specs.values())) > 1 or len(specs) < len(set(names))):
        raise TunebookError(
            f"the evaluation datasets {', '.join(names)} are merged into one set but carry different metrics",
            fix="set `eval_on_each_dataset: true`",
        )
    return {"eval": EvaluationSet(name="+".join(names), metrics=metrics.load_asked(specs.get(names[0], ())))}


def _refuse_unreadable_rows(data_args: Any, training_args: Any) -> None:
    faults: Mapping[str, object] = {
        "packing": data_args.packing,
        "neat_packing": data_args.neat_packing,
        "train_on_prompt": data_args.train_on_prompt,
        "streaming": data_args.streaming,
    }
    for key, value in faults.items():
        if value:
            raise TunebookError(
                f"`{key}: true` applies to the evaluation rows too: no answer can be separated from its "
                "prompt",
                fix=f'set `{key}: false`, or remove "metric" from the evaluation datasets',
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
