"""Reads W&B's own files of a run, `run-<id>.wandb`, offline or not, without wandb.

Such a file is a LevelDB log (https://github.com/google/leveldb/blob/main/doc/log_format.md) after a header of
seven bytes, each record a protobuf message (https://protobuf.dev/programming-guides/encoding/). The checksum
is the plain CRC-32 of type and payload, not LevelDB's masked CRC-32C (seen in files of wandb 0.31).
"""

from __future__ import annotations

import re
import struct
import zlib
from collections import defaultdict
from typing import TYPE_CHECKING, Any, NamedTuple

from tunebook.redact import redact
from tunebook.runlog.ends import EndSign, end_sign
from tunebook.runlog.files import MAGIC
from tunebook.runlog.gpus import Samples
from tunebook.runlog.records import Note, Series
from tunebook.runlog.series import SeriesBuilder, join_starts
from tunebook.runlog.tensorboard import trainer_name
from tunebook.runlog.tolerant_json import loads

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from tunebook.runlog.files import RunFiles
    from tunebook.runlog.records import WatchedGpu
    from tunebook.runlog.series import WentBack

_STEP, _OWN_STEP, _CLOCK = "train/global_step", "_step", "_runtime"
_GPU = re.compile(r"gpu\.(\d+)\.(gpu|memoryAllocatedBytes|powerWatts)(?:/l:(.+))?")
_MIB = 1 << 20
# Of some four hundred keys of model, Trainer and engine, those that say what was trained and how.
_SETTINGS = frozenset(
    key
    for keys in (
        "model_name_or_path _name_or_path base_model dataset eval_dataset template stage run_name output_dir",
        "finetuning_type adapter lora_rank lora_alpha lora_dropout lora_target quantization_bit",
        "cutoff_len sequence_len packing per_device_train_batch_size per_device_eval_batch_size",
        "gradient_accumulation_steps learning_rate lr_scheduler_type warmup_steps warmup_ratio seed optim",
        "num_train_epochs max_steps weight_decay max_grad_norm bf16 fp16 gradient_checkpointing deepspeed",
        "fsdp neftune_noise_alpha eval_strategy eval_steps save_steps logging_steps compute_accuracy",
        "metric_for_best_model greater_is_better load_best_model_at_end",
        "rl trl val_set_size val_size datasets test_datasets architectures beta num_generations",
    )
    for key in keys.split()
)
_NESTED = ("model_args", "data_args", "finetuning_args")
"""LLaMA-Factory's, in which the same keys are."""


class WandbRun(NamedTuple):
    """What one `.wandb` file says."""

    series: dict[str, Series]
    summary: dict[str, float]
    settings: dict[str, Any]
    """The engine's and the Trainer's own keys, without secrets."""
    gpus: list[WatchedGpu]
    gpu_count: int | None
    started: float | None
    """Seconds since the epoch."""
    runtime: float | None
    """Seconds from start to end; None where the run did not end by itself."""
    notes: list[Note]
    source: str
    engine: str | None = None
    name: str | None = None
    """As W&B shows the run, e.g. `fresh-sun-3`."""
    sign: EndSign | None = None
    """What broke the run off, by what it printed."""


class WandbLogs(NamedTuple):
    """The runs of W&B that are starts of this run, the earliest first, and their series joined."""

    runs: list[WandbRun]
    series: dict[str, Series]
    went_back: list[WentBack]
    notes: list[Note]


def read_wandb_runs(files: RunFiles) -> WandbLogs:
    """Read every `.wandb` file below a run folder.

    W&B's folder may also hold other experiments: those of which the Trainer's `output_dir` is another.

    Raises:
        OSError: A file cannot be read.
    """
    read = [run for path in files.wandb if (run := read_wandb(path, files.name(path))) is not None]
    read.sort(key=lambda run: float("inf") if run.started is None else run.started)
    notes = [note for run in read for note in run.notes]
    places = {place for run in read if isinstance(place := run.settings.get("output_dir"), str)}
    if len(places) > 1:
        chosen = next((p for p in places if _last_part(p) == files.base.resolve().name), None)
        chosen = chosen or next(p for run in reversed(read) if (p := run.settings.get("output_dir")))
        others = [run for run in read if run.settings.get("output_dir") != chosen]
        read = [run for run in read if run.settings.get("output_dir") == chosen]
        names = ", ".join(run.source for run in others)
        message = f"is of output_dir {chosen}; of other runs, and left out: {names}"
        notes.append(Note(kind="read", file=read[-1].source, message=message))
    joined = join_starts([run.series for run in read])
    return WandbLogs(read, joined.series, joined.went_back, notes)


def _last_part(place: str) -> str:
    return place.rstrip("/").rsplit("/", 1)[-1]


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
    records = LogRecords(data)
    reader = _Reader(source)
    for record in records:
        try:
            reader.take(ProtobufMessage(record))
        except ValueError:
            reader.unreadable += 1
    return reader.result(records)


# Fields of https://github.com/wandb/wandb/blob/main/wandb/proto/wandb_internal.proto.
_HISTORY, _SUMMARY, _CONFIG, _STATS, _PRINTED, _RUN, _EXIT, _ENVIRONMENT = 2, 3, 5, 7, 13, 17, 18, 26
_TAIL = 256 << 10


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
        self._started: float | None = None
        self._runtime: float | None = None
        self._name: str | None = None
        self._printed = b""

    def take(self, record: ProtobufMessage) -> None:
        """Take what is of use of a record.

        Raises:
            ValueError: The record is damaged.
        """
        for content in record.parts[_HISTORY]:
            self._history(_numbers(items(ProtobufMessage(content))))
        for content in record.parts[_SUMMARY]:
            found = _numbers(items(ProtobufMessage(content)))
            self._summary |= {trainer_name(k): n for k, n in found.items() if not k.startswith("_")}
        for content in record.parts[_CONFIG]:
            self._config |= _values(ProtobufMessage(content))
        for content in record.parts[_STATS]:
            self._sample(ProtobufMessage(content))
        for content in record.parts[_RUN]:
            self._about_run(ProtobufMessage(content))
        for content in record.parts[_ENVIRONMENT]:
            environment = ProtobufMessage(content)
            self._gpu_count = environment.number(19)
            self._cards += [_card(ProtobufMessage(card)) for card in environment.parts[24]]
        for content in record.parts[_PRINTED]:
            self._printed = (self._printed + b"".join(ProtobufMessage(content).parts[3]))[-_TAIL:]
        for content in record.parts[_EXIT]:
            # In whole seconds; protobuf does not write a zero.
            self._runtime = float(_signed(ProtobufMessage(content).number(2) or 0))

    def _history(self, row: Mapping[str, float]) -> None:
        """The Trainer names its step; what others log beside it has only W&B's own count of rows."""
        name = _STEP if _STEP in row else _OWN_STEP
        if name in row:
            self._points[name].add(int(row[name]), _named(row))

    def _sample(self, message: ProtobufMessage) -> None:
        for stamp in message.parts[2][-1:]:
            at = _timestamp(ProtobufMessage(stamp))
            for key, amount in _numbers(items(message, 3)).items():
                if match := _GPU.fullmatch(key):
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

    def _about_run(self, message: ProtobufMessage) -> None:
        for config in message.parts[4]:
            self._config |= _values(ProtobufMessage(config))
        for name in message.parts[8]:
            self._name = name.decode("utf-8", "replace")
        for stamp in message.parts[17]:
            self._started = _timestamp(ProtobufMessage(stamp))

    def result(self, records: LogRecords) -> WandbRun | None:
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
            notes.append(Note(kind="open", file=self.source, message=message))
        if series and not by_trainer:
            message = "no train/global_step was logged: the axis is W&B's own count of log calls"
            notes.append(Note(kind="read", file=self.source, message=message))
        return WandbRun(
            series=series,
            summary=self._summary,
            settings=_settings(self._config),
            engine=engine_of(self._config),
            gpus=gpus,
            gpu_count=self._gpu_count,
            started=self._started,
            runtime=self._runtime,
            notes=notes,
            source=self.source,
            name=self._name,
            sign=end_sign(self._printed),
        )


def _named(row: Mapping[str, float]) -> dict[str, float]:
    named = {trainer_name(key): value for key, value in row.items() if not key.startswith("_")}
    named.pop("global_step", None)
    if _CLOCK in row and "loss" in named:
        named["elapsed_seconds"] = row[_CLOCK]
    return named


def _card(message: ProtobufMessage) -> tuple[str | None, float | None]:
    """Name and MiB of a card, out of GpuNvidiaInfo."""
    names, total = message.parts[1], message.number(2)
    return names[-1].decode() if names else None, None if total is None else total / _MIB


def _settings(config: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for place in (config, *(config.get(name) for name in _NESTED)):
        if isinstance(place, dict):
            found |= {key: place[key] for key in place if key in _SETTINGS and place[key] is not None}
    if "model_name_or_path" not in found and "_name_or_path" in found:
        found["model_name_or_path"] = found["_name_or_path"]
    found.pop("_name_or_path", None)
    found |= {key: value for key, value in _adapter(config.get("peft_config")).items() if key not in found}
    redacted: dict[str, Any] = redact(found)
    return redacted


def _adapter(config: object) -> dict[str, Any]:
    """What the Trainer's callback writes of an adapter, by the adapter's name."""
    for one in config.values() if isinstance(config, dict) else ():
        if isinstance(one, dict):
            keys = ("base_model_name_or_path", "peft_type", "r", "lora_alpha", "lora_dropout")
            return {key: one[key] for key in keys if one.get(key) is not None}
    return {}


def engine_of(config: Mapping[str, Any]) -> str | None:
    """The engine that a configuration in W&B is of, by arguments that it alone has."""
    if any(isinstance(config.get(name), dict) for name in _NESTED):
        return "llamafactory"
    return "axolotl" if any(key in config for key in _AXOLOTL) else None


_AXOLOTL = (
    "multipack_real_batches",
    "sample_packing_efficiency",
    "relora_steps",
    "axolotl_config",
    "bench_split",
)


def items(message: ProtobufMessage, field: int = 1) -> dict[str, bytes | float]:
    """The items of a history, configuration, summary or sample: key -> JSON text, or a typed number.

    Items keep their key in field 1, or the parts of a nested one in field 2, and their value as JSON in field
    16; a history item may have a typed value instead (fields 5, 6 and 8).

    Raises:
        ValueError: The message is damaged.
    """
    found: dict[str, bytes | float] = {}
    for data in message.parts[field]:
        item = ProtobufMessage(data)
        key = ".".join(part.decode() for part in item.parts[1] + item.parts[2])
        if texts := item.parts[16] or item.parts[8]:
            found[key] = texts[-1]
        elif item.parts[6]:
            found[key] = _double(item.parts[6][-1])
        elif (number := item.number(5)) is not None:
            found[key] = float((number >> 1) ^ -(number & 1))
    return found


def _numbers(found: Mapping[str, bytes | float]) -> dict[str, float]:
    return {key: number for key, content in found.items() if (number := number_of(content)) is not None}


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


def _values(message: ProtobufMessage) -> dict[str, Any]:
    """Keys and decoded values of a configuration; what is no JSON is left out.

    Raises:
        ValueError: The message is damaged.
    """
    found: dict[str, Any] = {}
    for key, content in items(message).items():
        try:
            found[key] = content if isinstance(content, float) else loads(content)
        except ValueError:
            continue
    return found


def _timestamp(message: ProtobufMessage) -> float:
    """Seconds since the epoch out of a google.protobuf.Timestamp."""
    return _signed(message.number(1) or 0) + (message.number(2) or 0) / 1e9


# The file: records of a LevelDB log.

_HEADER = 7
_BLOCK = 32768
_RECORD = struct.Struct("<IHB")
_FULL, _FIRST, _MIDDLE, _LAST = 1, 2, 3, 4


class LogRecords:
    """The whole records of a log, in order; afterwards, what was lost."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.read = 0
        self.damaged = 0
        """Blocks of 32 KiB in which a checksum or a length was wrong; the rest of such a block is skipped."""
        self.cut_off = False
        """Whether the file ends within a record, as that of a killed run does."""

    def __iter__(self) -> Iterator[bytes]:
        data, end = self.data, len(self.data)
        view, unpack = memoryview(data), _RECORD.unpack_from
        position, parts = _HEADER, b""
        expected = False
        while position + 7 <= end:
            left = _BLOCK - position % _BLOCK
            if left < 7:
                position += left
                continue
            checksum, length, kind = unpack(data, position)
            after = position + 7 + length
            if length > left - 7 or kind not in (_FULL, _FIRST, _MIDDLE, _LAST):
                self.damaged += 1
                position, expected = position + left, False
                continue
            if after > end:
                self.cut_off = True
                return
            if zlib.crc32(view[position + 6 : after]) != checksum:
                self.damaged += 1
                position, expected = position + left, False
                continue
            payload = data[position + 7 : after]
            position = after
            if kind == _FULL:
                expected = False
                self.read += 1
                yield payload
            elif kind == _FIRST:
                parts, expected = payload, True
            elif expected:
                parts += payload
                if kind == _LAST:
                    expected = False
                    self.read += 1
                    yield parts
        self.cut_off = expected or position < end


class ProtobufMessage:
    """The fields of a protobuf message by number, without its schema.

    Raises:
        ValueError: It is no message.
    """

    def __init__(self, data: bytes) -> None:
        self.numbers: defaultdict[int, list[int]] = defaultdict(list)
        """Fields of the wire type varint, as written."""
        self.parts: defaultdict[int, list[bytes]] = defaultdict(list)
        """The bytes of texts, messages and numbers of fixed width."""
        position, end = 0, len(data)
        while position < end:
            key, position = _varint(data, position)
            kind, field = key & 7, key >> 3
            if kind == _VARINT:
                number, position = _varint(data, position)
                self.numbers[field].append(number)
                continue
            if kind == _BYTES:
                length, position = _varint(data, position)
            elif kind in _FIXED:
                length = _FIXED[kind]
            else:
                raise ValueError(f"wire type {kind} at byte {position}")
            if position + length > end:
                raise ValueError(f"a field of {length} bytes at byte {position} of {end}")
            self.parts[field].append(data[position : position + length])
            position += length

    def number(self, field: int) -> int | None:
        """The last number of a field, which is the one that counts; None where there is none."""
        numbers = self.numbers.get(field)
        return numbers[-1] if numbers else None


_VARINT, _BYTES = 0, 2
_FIXED = {1: 8, 5: 4}
"""Bytes by wire type."""


def _signed(number: int) -> int:
    """A varint of type int32 or int64 as the signed number it stands for."""
    return number - (1 << 64) if number >= 1 << 63 else number


def _double(data: bytes) -> float:
    if len(data) != 8:
        raise ValueError(f"{len(data)} bytes for a double")
    return float(struct.unpack("<d", data)[0])


def _varint(data: bytes, position: int) -> tuple[int, int]:
    number = shift = 0
    while position < len(data) and shift < 70:
        byte = data[position]
        position += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number, position
        shift += 7
    raise ValueError(f"a number without an end at byte {position}")
