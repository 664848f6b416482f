"""Reads W&B's own file of a run, `run-<id>.wandb`, offline or not, without wandb."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, NamedTuple

from tunebook.redact import redact
from tunebook.runlog.gpus import Samples
from tunebook.runlog.records import Note, Series
from tunebook.runlog.series import SeriesBuilder
from tunebook.runlog.tensorboard import trainer_name
from tunebook.runlog.tolerant_json import loads
from tunebook.runlog.wandb_format import MAGIC, Records, double, fields, signed, zigzag

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from tunebook.runlog.records import Gpu


_STEP, _OWN_STEP, _CLOCK = "train/global_step", "_step", "_runtime"
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
        self._points = {name: SeriesBuilder(source) for name in (_STEP, _OWN_STEP)}
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
        found = message_of(record)
        if found is None:
            return
        kind, message = found
        if kind == HISTORY:
            row = items(message)
            self._history({key: n for key in row if (n := number_of(row[key])) is not None})
        elif kind == STATS:
            self._sample(message)
        elif kind == SUMMARY:
            row = items(message)
            self._summary |= {
                trainer_name(key): n
                for key in row
                if not key.startswith("_") and (n := number_of(row[key])) is not None
            }
        elif kind == CONFIG:
            self._config |= dict(values(message))
        else:
            self._about(kind, message)

    def _history(self, row: Mapping[str, float]) -> None:
        """The Trainer names its step; what others log beside it has only W&B's own count of rows."""
        name = _STEP if _STEP in row else _OWN_STEP
        if name in row:
            self._points[name].add(int(row[name]), _named(row))

    def _sample(self, message: bytes) -> None:
        at = None
        for number, value in fields(message):
            if number == 2 and isinstance(value, bytes):
                at = timestamp(value)
        if at is None:
            return
        # Items stand in field 3 here, in field 1 elsewhere.
        for number, value in fields(message):
            if number != 3 or not isinstance(value, bytes):
                continue
            for key, content in items(b"\x0a" + _length(value) + value).items():
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
        if kind == EXIT:
            self._runtime = 0.0  # in whole seconds; protobuf does not write a zero
        for number, value in fields(message):
            if kind == EXIT and number == 2 and isinstance(value, int):
                self._runtime = float(signed(value))
            elif kind == ENVIRONMENT and number == 19 and isinstance(value, int):
                self._gpu_count = value
            elif kind == ENVIRONMENT and number == 24 and isinstance(value, bytes):
                self._cards.append(_card(value))
            elif kind == RUN and isinstance(value, bytes):
                if number == 1:
                    self._run_id = value.decode()
                elif number == 4:
                    self._config |= dict(values(value))
                elif number == 17:
                    self._started = timestamp(value)

    def result(self, records: Records) -> WandbRun | None:
        by_trainer = self._points[_STEP].series()
        series = by_trainer or self._points[_OWN_STEP].series()
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


# Takes apart the records of a `.wandb` file: rows of history, configuration, samples of the machine.
#
# Field numbers: wandb/proto/wandb_internal.proto of https://github.com/wandb/wandb. Items keep their key in
# field 1, or the parts of a nested one in field 2, and their value as JSON in field 16; a history item may
# have a typed value instead (fields 4 to 8).

HISTORY, SUMMARY, CONFIG, STATS, RUN, EXIT, ENVIRONMENT = 2, 3, 5, 7, 17, 18, 26
WANTED = frozenset({HISTORY, SUMMARY, CONFIG, STATS, RUN, EXIT, ENVIRONMENT})
_ITEM, _KEY, _NESTED_ITEM, _JSON = 0x0A, 0x0A, 0x12, b"\x82\x01"


def message_of(record: bytes) -> tuple[int, bytes] | None:
    """Which of the wanted messages a record holds, and its bytes; None where it holds another.

    Raises:
        ValueError: The record is damaged.
    """
    return next(((n, value) for n, value in fields(record) if n in WANTED and isinstance(value, bytes)), None)


def items(message: bytes) -> dict[str, bytes | float]:
    """The items of a history, configuration, summary or sample: key -> JSON text, or a typed number.

    Raises:
        ValueError: The message is damaged.
    """
    found: dict[str, bytes | float] = {}
    position, end = 0, len(message)
    while position < end and message[position] == _ITEM:
        # Nearly all items are short: key, key's length, JSON, its length, each length in one byte.
        try:
            length, kind, key_length = message[position + 1], message[position + 2], message[position + 3]
            after = position + 2 + length
            value = position + 4 + key_length
            if (
                length < 0x80
                and kind in (_KEY, _NESTED_ITEM)
                and message[value : value + 2] == _JSON
                and value + 3 + message[value + 2] == after <= end
            ):
                found[message[position + 4 : value].decode()] = message[value + 3 : after]
                position = after
                continue
        except IndexError:
            pass
        break
    for number, value_ in fields(message[position:]):
        if number == 1 and isinstance(value_, bytes):
            key, content = _item(value_)
            if content is not None:
                found[key] = content
    return found


def _item(item: bytes) -> tuple[str, bytes | float | None]:
    keys: list[str] = []
    content: bytes | float | None = None
    for number, value in fields(item):
        if number in (1, 2) and isinstance(value, bytes):
            keys.append(value.decode())
        elif number in (8, 16) and isinstance(value, bytes):
            content = value
        elif number == 6 and isinstance(value, bytes):
            content = double(value)
        elif number == 5 and isinstance(value, int):
            content = float(zigzag(value))
    return ".".join(keys), content


def number_of(content: bytes | float) -> float | None:
    """A number out of an item's content, or None where it holds something else.

    >>> number_of(b"1e-05"), number_of(b'"NaN"'), number_of(b"true")
    (1e-05, nan, None)
    """
    if isinstance(content, float):
        return content
    try:
        # float() takes digits apart by underscores, JSON does not.
        return None if b"_" in content else float(content.strip(b'"'))
    except ValueError:
        return None


def values(message: bytes) -> Iterator[tuple[str, Any]]:
    """Keys and decoded values of a configuration; what is no JSON is left out.

    Raises:
        ValueError: The message is damaged.
    """
    for key, content in items(message).items():
        try:
            yield key, content if isinstance(content, float) else loads(content)
        except ValueError:
            continue


def timestamp(message: bytes) -> float:
    """Seconds since the epoch out of a google.protobuf.Timestamp.

    Raises:
        ValueError: The message is damaged.
    """
    seconds = nanos = 0
    for number, value in fields(message):
        if isinstance(value, int):
            seconds, nanos = (signed(value), nanos) if number == 1 else (seconds, value)
    return seconds + nanos / 1e9
