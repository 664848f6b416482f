"""The figures of a run as a whole: steps, time, speed, tokens. What is missing is said to be missing."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np

from tunebook.redact import redact
from tunebook.report.objective import objective_of
from tunebook.report.records import Fact, Setting

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tunebook.runlog import RunLog
    from tunebook.runlog.records import Sourced


_NO_SOURCE = "not written down by this run"


def facts_of(run: RunLog) -> tuple[Fact, ...]:
    """The facts that a reader asks of every run, in a fixed order."""
    return (
        _steps(run),
        _epochs(run),
        _training_time(run),
        _sourced("Wall time", run.wall_seconds, "s"),
        _gpus(run),
        _sourced("GPU hours", run.gpu_hours, "h"),
        _result(run, "Speed", "train_samples_per_second", "samples/s"),
        _tokens_per_second(run),
        _tokens(run),
        _result(run, "Mean training loss", "train_loss", _loss_unit(run)),
        _evaluating(run),
        _fact(run, "Trained parameters", "trained_parameters"),
        _peak(run),
    )


def fact(facts: Sequence[Fact], label: str) -> Fact:
    """The fact of that label; a missing one where a report has none."""
    found = next((one for one in facts if one.label == label), None)
    return found or Fact(label=label, value=None, unit="", source=_NO_SOURCE)


def _steps(run: RunLog) -> Fact:
    trainer = run.trainer
    if run.counts_entries:
        return Fact(label="Optimizer steps", value=None, unit="", source="the log prints no steps")
    last = max((int(s.steps[-1]) for s in run.series.values() if len(s.steps)), default=None)
    step = trainer.global_step if trainer and trainer.global_step is not None else last
    step = max(step, last) if step is not None and last is not None else step
    if trainer and trainer.max_steps and step is not None and step > trainer.max_steps:
        planned = f", of {trainer.max_steps:,} that were asked for"
    else:
        planned = f" of {trainer.max_steps:,}" if trainer and trainer.max_steps else ""
    source = trainer.source if trainer else next((s.source for s in run.series.values()), _NO_SOURCE)
    return Fact(
        label="Optimizer steps",
        value=None if step is None else f"{step:,}{planned}",
        unit="",
        source=source if step is not None else _NO_SOURCE,
    )


def _epochs(run: RunLog) -> Fact:
    series = run.series.get("epoch")
    if series is None or not len(series.values):
        return Fact(label="Epochs", value=None, unit="", source=_NO_SOURCE)
    return Fact(label="Epochs", value=float(np.nanmax(series.values)), unit="", source=series.source)


def _result(run: RunLog, label: str, key: str, unit: str) -> Fact:
    value = run.results.get(key)
    source = run.results_source or _NO_SOURCE
    return Fact(label=label, value=value, unit=unit, source=source if value is not None else _NO_SOURCE)


def _loss_unit(run: RunLog) -> str:
    return "nats/token" if objective_of(run).is_language else ""


def _training_time(run: RunLog) -> Fact:
    """The Trainer's own figure, else the clock of its log."""
    clock = run.series.get("elapsed_seconds")
    if "train_runtime" in run.results or clock is None or not len(clock.values):
        return _result(run, "Training time", "train_runtime", "s")
    source = f"{clock.source} (its clock at the last entry)"
    return Fact(label="Training time", value=float(clock.values[-1]), unit="s", source=source)


def _tokens(run: RunLog) -> Fact:
    # The first is transformers', the second Axolotl's.
    for name in ("num_input_tokens_seen", "tokens/total"):
        series = run.series.get(name)
        if series is not None and (seen := float(np.nanmax(series.values, initial=0.0))) > 0:
            return Fact(label="Input tokens seen", value=seen, unit="", source=f"{series.source} ({name})")
    hint = f"{_NO_SOURCE}; set include_num_input_tokens_seen: true"
    return Fact(label="Input tokens seen", value=None, unit="", source=hint)


def _tokens_per_second(run: RunLog) -> Fact:
    """Over the whole training: tokens by the time that training took."""
    label, unit = "Tokens per second", "tokens/s"
    seconds = run.results.get("train_runtime")
    for name in ("num_input_tokens_seen", "tokens/total"):
        series = run.series.get(name)
        if seconds and series is not None and (seen := float(np.nanmax(series.values, initial=0.0))) > 0:
            source = f"{series.source} ({name}) over {run.results_source} (train_runtime)"
            return Fact(label=label, value=seen / seconds, unit=unit, source=source)
    hint = f"{_NO_SOURCE}; set include_num_input_tokens_seen: true"
    return Fact(label=label, value=None, unit=unit, source=hint)


def _sourced(label: str, found: Sourced | None, unit: str) -> Fact:
    if found is None:
        return Fact(label=label, value=None, unit=unit, source=_NO_SOURCE)
    return Fact(label=label, value=found.value, unit=unit, source=found.source)


def _gpus(run: RunLog) -> Fact:
    if run.gpu_count is None:
        return Fact(label="GPUs", value=None, unit="", source=_NO_SOURCE)
    count = int(run.gpu_count.value)
    return Fact(label="GPUs", value=count or "none", unit="", source=run.gpu_count.source)


def _peak(run: RunLog) -> Fact:
    fact = run.facts.get("peak_gpu_memory_mib")
    if fact is None or fact.value <= 0:
        return Fact(label="Peak GPU memory", value=None, unit="GiB", source="not measured")
    return Fact(label="Peak GPU memory", value=fact.value / 1024, unit="GiB", source=fact.source)


def _evaluating(run: RunLog) -> Fact:
    seconds = [e.seconds for e in run.evaluations if e.seconds is not None]
    if not seconds:
        return Fact(label="Time in evaluation", value=None, unit="s", source=_NO_SOURCE)
    source = next(e.source for e in run.evaluations if e.seconds is not None)
    return Fact(label="Time in evaluation", value=sum(seconds), unit="s", source=source)


def _fact(run: RunLog, label: str, key: str) -> Fact:
    fact = run.facts.get(key)
    if fact is None:
        return Fact(label=label, value=None, unit="", source=_NO_SOURCE)
    return Fact(label=label, value=fact.value, unit="", source=fact.source)


# Says what a run was: model, method, data, and its settings by group.

_GROUPS = {
    "model": r"model_name_or_path|base_model|template|quantization|load_in_|flash_attn|attn_impl|rope|liger|"
    r"adapter_name|trust_remote",
    "method": r"stage|finetuning_type|adapter$|lora|peft|target_modules|^r$|freeze|galore|badam|rl$",
    "data": r"dataset|cutoff|sequence_len|packing|max_samples|num_samples|val_s|preprocessing|mask_|train_on|"
    r"enable_thinking|media",
    "optimisation": r"learning_rate|lr_|warmup|optim|weight_decay|adam|grad|batch|epoch|max_steps|bf16|fp16|"
    r"tf32|seed|neftune|deepspeed|fsdp|ddp",
    "evaluation": r"eval|metric|greater|best|early|compute_acc|predict|generat",
    "output": r"output|save|logging|report_to|plot|overwrite|run_name|wandb|resume|tensorboard",
}


def grouped_settings(values: Mapping[str, Any]) -> tuple[Setting, ...]:
    """The settings by group, in the order of the recipe."""
    # Here, where key and value are still together: later nothing would show that it is a secret.
    made = [Setting(key=key, value=redact(value, key), group=_group(key)) for key, value in values.items()]
    order = [*_GROUPS, "other"]
    return tuple(sorted(made, key=lambda setting: order.index(setting.group)))


def _group(key: str) -> str:
    # `eval_dataset` belongs to the evaluation, though it names data; so does `per_device_eval_batch_size`.
    if "eval" in key:
        return "evaluation"
    return next((group for group, pattern in _GROUPS.items() if re.search(pattern, key)), "other")


_CACHED = re.compile(r"[/\\]models--([^/\\]+)[/\\]snapshots[/\\]")
"""A model in the hub's cache, by its path."""


def model_name(values: Mapping[str, Any]) -> str | None:
    """The model's name: a hub id as it is, of a local path the last part."""
    for key in ("model_name_or_path", "base_model", "base_model_name_or_path"):
        name = values.get(key)
        if isinstance(name, str) and name:
            if cached := _CACHED.search(name):
                return cached[1].replace("--", "/")
            is_hub_id = name.count("/") == 1 and not name.startswith((".", "/", "~"))
            return name if is_hub_id else re.split(r"[/\\]", name.rstrip("/\\"))[-1]
    return None


def method_name(values: Mapping[str, Any]) -> str | None:
    """The method in the field's words: `LoRA SFT`, `QLoRA SFT`, `full SFT`, ..."""
    kind = values.get("finetuning_type") or values.get("adapter") or values.get("peft_type")
    if kind is None:
        # Axolotl trains all weights where the configuration names no adapter.
        return "full" if "base_model" in values else None
    bits = values.get("quantization_bit") or (4 if values.get("load_in_4bit") else None)
    names = {"lora": "LoRA", "qlora": "QLoRA", "full": "full", "freeze": "freeze", "oft": "OFT"}
    name = names.get(str(kind).lower(), str(kind))
    if name == "LoRA" and bits:
        name = "QLoRA"
    stage = values.get("stage") or values.get("rl")
    return f"{name} {str(stage).upper()}" if stage else name


def trained_on(values: Mapping[str, Any]) -> str | None:
    """The training data's names, joined by `, `."""
    data = values.get("dataset") or values.get("datasets")
    if isinstance(data, str):
        return ", ".join(part.strip() for part in data.split(","))
    if isinstance(data, list):
        names = [_dataset_name(entry) for entry in data]
        return ", ".join(name for name in names if name) or None
    return None


def _dataset_name(entry: object) -> str | None:
    path = entry.get("path") if isinstance(entry, dict) else entry
    return path.rstrip("/").rsplit("/", 1)[-1] if isinstance(path, str) else None
