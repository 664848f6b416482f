"""Finds out how a run was set up: its resolved recipe, or what the engine left instead."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any, NamedTuple

import yaml

from tunebook.models import safetensors
from tunebook.runlog.records import Note, Sourced
from tunebook.runlog.tolerant_json import read_object

if TYPE_CHECKING:
    from pathlib import Path


_FLOAT = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")
_CARD_LINE = re.compile(r"^- (\w+): (.*)$", re.MULTILINE)
_CARD_DATA = re.compile(r"fine-tuned version of \[([^\]]*)\].* on (?:the )?(.+?) datasets?\.")
# TRL's cards have no list of settings.
_CARD_TRAINER = re.compile(r"This model was trained with (SFT|DPO|KTO|GRPO|ORPO|CPO|PPO|RLOO|Reward)\b")
_CARD_BASE = re.compile(r"^This model is a fine-tuned version of \[([^\]]+)\]", re.MULTILINE)
# The model card's names -> the keys of LLaMA-Factory and the Trainer.
_CARD_KEYS = {
    "train_batch_size": "per_device_train_batch_size",
    "eval_batch_size": "per_device_eval_batch_size",
    "num_epochs": "num_train_epochs",
    "training_steps": "max_steps",
    "lr_scheduler_warmup_steps": "warmup_steps",
    "lr_scheduler_warmup_ratio": "warmup_ratio",
    "optimizer": "optim",
}
_OPTIMIZER = re.compile(r"OptimizerNames\.(\w+)")
_BOARD_KEYS = {
    "model_path": "model_name_or_path",
    "batch_size": "per_device_train_batch_size",
}
_BOARD_STAGES = {
    "Supervised Fine-Tuning": "sft",
    "Reward Modeling": "rm",
    "PPO": "ppo",
    "DPO": "dpo",
    "KTO": "kto",
    "Pre-Training": "pt",
}
_CONFIG_KEYS = ("_name_or_path", "architectures", "model_type")
_ADAPTER_KEYS = ("base_model_name_or_path", "peft_type", "r", "lora_alpha", "lora_dropout", "target_modules")


class RunSettings(NamedTuple):
    """Settings by the engine's own keys, where they are from, and the recipe's text if there is one."""

    values: dict[str, Any]
    source: str | None
    text: str | None


def read_run_settings(folder: Path) -> RunSettings:
    """The settings of the run in `folder`, from the best source it has.

    That is `tunebook/recipe.yaml`, else what LLaMA-Factory's web page leaves, the model card's list,
    `adapter_config.json` and `config.json` together, the first of which that names a key counts.

    Raises:
        OSError: A file cannot be read.
    """
    recipe = folder / "tunebook" / "recipe.yaml"
    if recipe.is_file():
        text = recipe.read_text("utf-8", errors="replace")
        try:
            values = yaml.safe_load(text)
        except yaml.YAMLError:
            values = None
        if isinstance(values, dict):
            return RunSettings({str(k): _number(v) for k, v in values.items()}, "tunebook/recipe.yaml", text)
    found: dict[str, Any] = {}
    sources = []
    for name, read in (("training_args.yaml", _plain), ("llamaboard_config.yaml", _board)):
        path = folder / name
        if path.is_file() and (values := read(_yaml(path.read_text("utf-8", errors="replace")))):
            found = values | found
            sources.append(name)
    card = folder / "README.md"
    text = card.read_text("utf-8", errors="replace") if card.is_file() else ""
    if copied := _axolotl_card(text):
        return RunSettings(copied, "README.md (Axolotl's configuration without overrides)", None)
    if listed := _model_card(text):
        found = listed | found
        sources.append("README.md (model card)")
    for name, keys in (("adapter_config.json", _ADAPTER_KEYS), ("config.json", _CONFIG_KEYS)):
        path = folder / name
        config = read_object(path) if path.is_file() else None
        if config and (values := {key: config[key] for key in keys if config.get(key)}):
            found = values | found
            sources.append(name)
    base = found.pop("_name_or_path", None)
    if base and not any(key in found for key in ("model_name_or_path", "base_model_name_or_path")):
        found["model_name_or_path"] = base
    return RunSettings(found, ", ".join(sources) or None, None)


def _yaml(text: str) -> dict[str, Any]:
    try:
        values = yaml.safe_load(text)
    except yaml.YAMLError:
        return {}
    return {str(key): _number(value) for key, value in values.items()} if isinstance(values, dict) else {}


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value is not None}


def _board(values: dict[str, Any]) -> dict[str, Any]:
    """The fields of LLaMA-Factory's web page, by the engine's own keys."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        page, _, name = key.partition(".")
        name = _BOARD_KEYS.get(name, name)
        if page in ("top", "train") and name and value not in (None, "", []):
            found[name] = value
    stage = _BOARD_STAGES.get(str(found.pop("training_stage", "")))
    if isinstance(found.get("dataset"), list):
        found["dataset"] = ",".join(map(str, found["dataset"]))
    return found | ({"stage": stage} if stage else {})


def _number(value: Any) -> Any:
    """`1e-4`, which YAML 1.1 reads as a text, as the number the engine takes it for."""
    if not isinstance(value, str) or not _FLOAT.fullmatch(value):
        return value
    return int(value) if value.lstrip("+-").isdigit() else float(value)


def _axolotl_card(text: str) -> dict[str, Any]:
    """The configuration that Axolotl copies into its model cards."""
    match = re.search(r"See axolotl config</summary>.*?```yaml\n(.*?)\n```", text, re.DOTALL)
    if not match:
        return {}
    try:
        values = yaml.safe_load(match[1])
    except yaml.YAMLError:
        return {}
    return {str(key): _number(value) for key, value in values.items()} if isinstance(values, dict) else {}


def _model_card(text: str) -> dict[str, Any]:
    _, _, part = text.partition("### Training hyperparameters")
    part, _, _ = part.partition("\n### ")
    values = {_CARD_KEYS.get(key, key): _number(value.strip()) for key, value in _CARD_LINE.findall(part)}
    if match := _OPTIMIZER.search(str(values.get("optim"))):
        values["optim"] = match[1].lower()
    found: dict[str, Any] = {}
    if match := _CARD_TRAINER.search(text):
        found["rl" if match[1].lower() != "sft" else "stage"] = match[1].lower()
        if match := _CARD_BASE.search(text):
            found["model_name_or_path"] = match[1]
    if not values:
        return found
    if match := _CARD_DATA.search(text):
        found |= {"model_name_or_path": match[1], "dataset": match[2]}
    # LLaMA-Factory tags its model cards with the method.
    if match := re.search(r"^- llama-factory\n- (lora|full|freeze|oft)$", text, re.MULTILINE):
        found["finetuning_type"] = match[1]
    return found | values


# Reads what tunebook wrote down of a run: each start (run-1.json, ..., run.json), its process, its end.

_EARLIER = re.compile(r"run-(\d+)\.json")


class OwnRecords(NamedTuple):
    """Our records of a run, each empty where it left none."""

    run: dict[str, Any]
    """`run.json`, of the latest start."""
    starts: list[tuple[str, dict[str, Any]]]
    """File and record of every start, the earliest first."""
    process: dict[str, Any]
    finished: dict[str, Any]
    notes: list[Note]


def read_own_records(folder: Path) -> OwnRecords:
    """Read the records in a run's `tunebook` folder.

    Raises:
        OSError: A file cannot be read.
    """
    notes: list[Note] = []
    numbered = sorted(
        (int(m[1]), path) for path in folder.glob("run-*.json") if (m := _EARLIER.fullmatch(path.name))
    )
    starts = []
    for path in [*(path for _, path in numbered), folder / "run.json"]:
        record = _read(path, notes)
        if record:
            starts.append((f"tunebook/{path.name}", record))
    run = starts[-1][1] if starts and starts[-1][0] == "tunebook/run.json" else {}
    return OwnRecords(
        run=run,
        starts=starts,
        process=_read(folder / "process.json", notes),
        finished=_read(folder / "finished.json", notes),
        notes=notes,
    )


def _read(path: Path, notes: list[Note]) -> dict[str, Any]:
    if not path.is_file():
        return {}
    found = read_object(path)
    if found is None:
        notes.append(
            Note(kind="lost", file=f"tunebook/{path.name}", message="damaged; nothing could be read")
        )
        return {}
    return found


# Counts the parameters that a run trained, from the headers of its weight files.


def trained_parameters(folder: Path) -> Sourced | None:
    """How many parameters the run trained.

    An adapter holds exactly those. A folder without an adapter holds a model, of which full fine-tuning
    trained all.

    Returns:
        None where there are no weights in the folder or its newest checkpoint, or not all of them.

    Raises:
        OSError: A file cannot be read.
    """
    adapter = folder / "adapter_model.safetensors"
    files = [adapter] if adapter.is_file() else sorted(folder.glob("model*.safetensors"))
    counts = [_parameters(path) for path in files]
    if not counts or any(count is None for count in counts):
        return None
    names = files[0].name if len(files) == 1 else f"{len(files)} files model*.safetensors"
    return Sourced(value=sum(count or 0 for count in counts), source=f"{names} (header)")


def _parameters(path: Path) -> int | None:
    """Elements of all tensors of a safetensors file, or None where its header is damaged."""
    try:
        found = safetensors.read(path).tensors.values()
        return int(sum(math.prod(tensor["shape"]) for tensor in found))
    except (safetensors.DamagedHeaderError, TypeError):
        return None
