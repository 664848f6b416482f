"""Reads W&B's own file of a run, `run-<id>.wandb`, offline or not, without wandb."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, NamedTuple

from tunebook.redact import redact
from tunebook.runlog import wandb_records
from tunebook.runlog.columns import Columns
from tunebook.runlog.gpus import Samples
from tunebook.runlog.leveldb_log import MAGIC, Records
from tunebook.runlog.protobuf_wire import fields, signed
from tunebook.runlog.records import Note, Series
from tunebook.runlog.tensorboard import trainer_name
from tunebook.runlog.wandb_records import number_of

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from tunebook.runlog.records import Gpu

_STEP, _OWN_STEP, _CLOCK = "train/global_step", "_step", "_runtime"
_BLOCK = 20_000
"""Rows of history that are held at once."""
_GPU = re.compile(r"gpu\.(\d+)\.(gpu|memoryAllocatedBytes|powerWatts)(?:/l:(.+))?")
_MIB = 1 << 20
# Of some four hundred keys of model, Trainer and engine, those that say what was trained and how.
_SETTINGS = frozenset(
    {
        *(
            "model_name_or_path",
            "_name_or_path",
            "base_model",
            "dataset",
            "eval_dataset",
            "template",
            "stage",
        ),
        *(
            "finetuning_type",
            "lora_rank",
            "lora_alpha",
            "lora_dropout",
            "lora_target",
            "cutoff_len",
            "packing",
        ),
        *("quantization_bit", "adapter", "sequence_len", "per_device_train_batch_size", "seed", "optim"),
        *("per_device_eval_batch_size", "gradient_accumulation_steps", "learning_rate", "lr_scheduler_type"),
        *("warmup_steps", "warmup_ratio", "num_train_epochs", "max_steps", "weight_decay", "max_grad_norm"),
        *("bf16", "fp16", "gradient_checkpointing", "deepspeed", "fsdp", "neftune_noise_alpha", "run_name"),
        *("eval_strategy", "eval_steps", "save_steps", "logging_steps", "metric_for_best_model"),
        *("greater_is_better", "load_best_model_at_end", "output_dir", "compute_accuracy"),
    }
)
_NESTED = ("model_args", "data_args", "finetuning_args")
"""LLaMA-Factory's, in which the same keys stand."""


class WandbRun(NamedTuple):
    """What one `.wandb` file says."""

    series: dict[str, Series]
    summary: dict[str, float]
    settings: dict[str, Any]
    """The engine's and the Trainer's own keys, without secrets."""
    gpus: list[Gpu]
    gpu_count: int | None
    run_id: str
    started: float | None
    """Seconds since the epoch."""
    runtime: float | None
    """Seconds from start to end; None where the run did not end by itself."""
    notes: list[Note]
    source: str


def read_wandb(path: Path, source: str) -> WandbRun | None:
    """Read one `.wandb` file.

    Returns:
        None where it is none, or holds nothing of use.

    Raises:
        OSError: The file cannot be read.
    """
    data = path.read_bytes()
    if not data.startswith(MAGIC):
        return None
    records = Records(data)
    reader = _Reader(source)
    for record in records:
        try:
            reader.take(record)
        except ValueError:
            reader.unreadable += 1
    return reader.result(records)


class _Reader:
    def __init__(self, source: str) -> None:
        self.source = source
        self.unreadable = 0
        self._columns = {name: Columns(source) for name in (_STEP, _OWN_STEP)}
        self._rows: list[dict[str, float]] = []
        self._summary: dict[str, float] = {}
        self._config: dict[str, Any] = {}
        self._samples = Samples(source)
        self._cards: list[tuple[str | None, float | None]] = []
        self._gpu_count: int | None = None
        self._host: str | None = None
        self._run_id = ""
        self._started: float | None = None
        self._runtime: float | None = None

    def take(self, record: bytes) -> None:
        found = wandb_records.message_of(record)
        if found is None:
            return
        kind, message = found
        if kind == wandb_records.HISTORY:
            row = wandb_records.items(message)
            self._rows.append({key: n for key in row if (n := number_of(row[key])) is not None})
            if len(self._rows) >= _BLOCK:
                self._flush()
        elif kind == wandb_records.STATS:
            self._sample(message)
        elif kind == wandb_records.SUMMARY:
            row = wandb_records.items(message)
            self._summary |= {
                trainer_name(key): n
                for key in row
                if not key.startswith("_") and (n := number_of(row[key])) is not None
            }
        elif kind == wandb_records.CONFIG:
            self._config |= dict(wandb_records.values(message))
        else:
            self._about(kind, message)

    def _flush(self) -> None:
        """The Trainer names its step; what others log beside it has W&B's own count of rows alone."""
        rows, self._rows = self._rows, []
        for name, columns in self._columns.items():
            mine = [row for row in rows if name in row and (name == _STEP or _STEP not in row)]
            steps = [int(row[name]) for row in mine]
            columns.add(steps, [_named(row) for row in mine])

    def _sample(self, message: bytes) -> None:
        at = None
        for number, value in fields(message):
            if number == 2 and isinstance(value, bytes):
                at = wandb_records.timestamp(value)
        if at is None:
            return
        # Items stand in field 3 here, in field 1 elsewhere.
        for number, value in fields(message):
            if number != 3 or not isinstance(value, bytes):
                continue
            for key, content in wandb_records.items(b"\x0a" + _length(value) + value).items():
                amount = number_of(content)
                if (match := _GPU.fullmatch(key)) and amount is not None:
                    self._add_sample(match, at, amount)

    def _add_sample(self, match: re.Match[str], at: float, amount: float) -> None:
        index, what, host = match.groups()
        card = self._samples.card(host, index)
        if what == "gpu":
            card.utilization.add(at, amount)
        elif what == "powerWatts":
            card.power.add(at, amount)
        else:
            card.memory.add(at, amount / _MIB)

    def _about(self, kind: int, message: bytes) -> None:
        if kind == wandb_records.EXIT:
            self._runtime = 0.0  # in whole seconds; protobuf does not write a zero
        for number, value in fields(message):
            if kind == wandb_records.EXIT and number == 2 and isinstance(value, int):
                self._runtime = float(signed(value))
            elif kind == wandb_records.ENVIRONMENT and number == 19 and isinstance(value, int):
                self._gpu_count = value
            elif kind == wandb_records.ENVIRONMENT and number == 24 and isinstance(value, bytes):
                self._cards.append(_card(value))
            elif kind == wandb_records.RUN and isinstance(value, bytes):
                if number == 1:
                    self._run_id = value.decode()
                elif number == 4:
                    self._config |= dict(wandb_records.values(value))
                elif number == 17:
                    self._started = wandb_records.timestamp(value)

    def result(self, records: Records) -> WandbRun | None:
        self._flush()
        by_trainer = self._columns[_STEP].series()
        series = by_trainer or self._columns[_OWN_STEP].series()
        self._samples.names = dict(enumerate(self._cards))
        gpus = self._samples.gpus()
        if not (series or self._summary or self._config or gpus):
            return None
        lost = records.damaged + self.unreadable
        notes = []
        if lost:
            message = f"{lost} stretches of the file are damaged and were left out"
            notes.append(Note(kind="lost", file=self.source, message=message))
        if records.cut_off:
            message = f"cut off after {records.read} records; the rest is lost or not yet written"
            notes.append(Note(kind="lost", file=self.source, message=message))
        elif self._runtime is None:
            message = "does not say how the run ended: its last log calls may be missing"
            notes.append(Note(kind="lost", file=self.source, message=message))
        if series and not by_trainer:
            message = "no train/global_step was logged: the axis is W&B's own count of log calls"
            notes.append(Note(kind="read", file=self.source, message=message))
        return WandbRun(
            series=series,
            summary=self._summary,
            settings=_settings(self._config),
            gpus=gpus,
            gpu_count=self._gpu_count,
            run_id=self._run_id,
            started=self._started,
            runtime=self._runtime,
            notes=notes,
            source=self.source,
        )


def _named(row: Mapping[str, float]) -> dict[str, float]:
    named = {trainer_name(key): value for key, value in row.items() if not key.startswith("_")}
    named.pop("global_step", None)
    if _CLOCK in row and "loss" in named:
        named["elapsed_seconds"] = row[_CLOCK]
    return named


def _length(value: bytes) -> bytes:
    number, digits = len(value), bytearray()
    while number > 0x7F:
        digits.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*digits, number])


def _card(message: bytes) -> tuple[str | None, float | None]:
    """Name and MiB of a card, out of GpuNvidiaInfo."""
    name, total = None, None
    for number, value in fields(message):
        if number == 1 and isinstance(value, bytes):
            name = value.decode()
        elif number == 2 and isinstance(value, int):
            total = value / _MIB
    return name, total


def _settings(config: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for place in (config, *(config.get(name) for name in _NESTED)):
        if isinstance(place, dict):
            found |= {key: place[key] for key in place if key in _SETTINGS and place[key] is not None}
    if "model_name_or_path" not in found and "_name_or_path" in found:
        found["model_name_or_path"] = found["_name_or_path"]
    found.pop("_name_or_path", None)
    redacted: dict[str, Any] = redact(found)
    return redacted
