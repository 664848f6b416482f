"""Reads where a run stands from the last part of its console log: phase, progress, speed, loss.

Both engines draw tqdm bars with carriage returns between lines of several loggers; ranks may be interleaved.
The latest sign in the text decides, so a few hundred kilobytes of tail are enough, however long the log.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

from tunebook.runlog.console import DICTIONARY, parse
from tunebook.runlog.records import PhaseName
from tunebook.runlog.timeline import BAR, SIGNS, last_number
from tunebook.runlog.tolerant_json import as_float

HEAD_BYTES = 2 << 20
"""Where the counts are announced."""
TAIL_BYTES = 256 << 10

_SIGNS: tuple[tuple[PhaseName, re.Pattern[bytes]], ...] = tuple(
    (phase, re.compile(pattern)) for phase, pattern in SIGNS
)
_TOTAL = re.compile(rb"Total optimization steps = ([\d,]+)|Maximum number of steps set at (\d+)")
_BATCH = re.compile(rb"Total train batch size [^=\n]*= ([\d,]+)|^  \"batch_size\": (\d+)", re.MULTILINE)


class LogState(NamedTuple):
    """Where a run stands, as far as its log says; None for what it does not say."""

    phase: PhaseName
    step: int | None
    total_steps: int | None
    part_done: int | None
    """How far the phase's own bar is, e.g. examples tokenised or evaluation batches done."""
    part_total: int | None
    steps_per_second: float | None
    seconds_left: float | None
    """Of training, evaluations not counted in: the bar's own estimate."""
    loss: float | None
    """The last one logged; NaN where it was."""
    rows_per_step: int | None
    """Examples per optimizer step, over all ranks."""
    tokens_per_second: float | None


def read_log(path: Path) -> LogState:
    """Read the head and the tail of a console log.

    Raises:
        OSError: It cannot be read.
    """
    with path.open("rb") as stream:
        head = stream.read(HEAD_BYTES)
        size = stream.seek(0, 2)
        stream.seek(max(0, size - TAIL_BYTES))
        tail = stream.read(TAIL_BYTES)
    return parse_log(head, tail)


def parse_log(head: bytes, tail: bytes) -> LogState:
    """Tell where a run stands from the beginning and the end of its log, which may overlap."""
    total = _total_by_bar(head) or last_number(_TOTAL, head) or last_number(_TOTAL, tail)
    phase, at = _latest_sign(tail)
    if at < 0:
        phase, _ = _latest_sign(head)
    step = part_done = part_total = None
    rate = left = None
    for bar in BAR.finditer(tail):
        done, whole = int(bar["done"]), int(bar["total"])
        if bar["label"] is None and (whole == total or (total is None and phase == "training")):
            step, total, rate, left = done, whole, _rate(bar), _seconds(bar["left"])
            # Drawn again behind an evaluation's or a checkpoint's lines: training goes on.
            if bar.start() > at and done < whole:
                phase, part_done, part_total = "training", None, None
        elif bar.start() >= at:
            part_done, part_total = done, whole
    if phase == "training":
        part_done = part_total = None
    logged = [entry for entry in parse(DICTIONARY.findall(tail))[0] if "loss" in entry]
    last = logged[-1] if logged else {}
    tokens = next((last[key] for key in last if key.startswith("tokens/") and "per_sec" in key), None)
    return LogState(
        phase=phase,
        step=step,
        total_steps=total,
        part_done=part_done,
        part_total=part_total,
        steps_per_second=rate,
        seconds_left=left,
        loss=as_float(last.get("loss")),
        rows_per_step=last_number(_BATCH, head),
        tokens_per_second=as_float(tokens),
    )


def _latest_sign(text: bytes) -> tuple[PhaseName, int]:
    """The phase whose sign stands last, and where; `starting` and -1 where there is none."""
    found: tuple[PhaseName, int] = ("starting", -1)
    for phase, pattern in _SIGNS:
        last = -1
        for match in pattern.finditer(text):
            last = match.start()
        if last > found[1]:
            found = (phase, last)
    return found


def _total_by_bar(head: bytes) -> int | None:
    """Steps by the first bar of training: what Axolotl announces leaves `max_steps` out of account."""
    start = max(head.rfind(b"Starting trainer..."), head.rfind(b"***** Running training *****"))
    bars = BAR.finditer(head, start) if start >= 0 else ()
    return next((int(bar["total"]) for bar in bars if bar["label"] is None), None)


def _rate(bar: re.Match[bytes]) -> float | None:
    """Steps per second: tqdm turns the fraction over where a step takes longer than a second."""
    number = as_float(bar["rate"].decode())
    if not number:
        return None
    return number if bar["unit"].endswith(b"/s") else 1 / number


def _seconds(clock: bytes) -> float | None:
    parts = clock.decode().split(":")
    if not all(part.isdigit() for part in parts):
        return None
    seconds = 0.0
    for part in parts:
        seconds = seconds * 60 + int(part)
    return seconds
