"""Works out from the timestamps in a console log how long a run was in each phase.

Only some lines have a timestamp, and bars have none: the time between two stamps belongs to the phase that
the first of them is in, apart from what a finished bar in between says it took itself. From the start of
training to its end all is one stretch, since nothing says when training goes on after an evaluation; within
it only savings are timed, between stamps of their own.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Literal

from tunebook.runlog.records import PhaseName

if TYPE_CHECKING:
    from collections.abc import Iterator


# What both engines print that shows the phase of a run: LLaMA-Factory 0.9.5, Axolotl 0.19.0, transformers.
# tests/fixtures/logs holds logs of both. Every pattern begins with plain text and is searched for on its own:
# `re` is then some ten times as fast as with one alternation of them all.
_TRAINED = rb"Training completed"
_BY_PHASE: dict[PhaseName, tuple[bytes, ...]] = {
    "starting": (
        # Printed once, before anything else of a start.
        rb"Process rank: \d+, world size",
        rb"#@@ #@@      @@# @@#",
        rb"\[axolotl\.cli\.config[^\]\r\n]*\][^\r\n]* config:",
    ),
    "loading data": (
        rb"Loading dataset ",
        rb"Loading prepared dataset",
        rb"Loading raw datasets",
        rb"Generating \w+ split",
    ),
    "tokenising": (
        rb"Running tokenizer on dataset",
        rb"Converting format of dataset",
        rb"Tokenizing Prompts",
        rb"Dropping Long Sequences",
        rb"Saving the dataset",
    ),
    "loading model": (
        rb"loading weights file",
        rb"Loading weights:",
        rb"Loading checkpoint shards:",
        rb"Quantizing Model Shards",
    ),
    "training": (rb"\*\*\*\*\* Running training \*\*\*\*\*", rb"Starting trainer\.\.\.", rb"{'loss': "),
    "evaluating": (
        rb"\*\*\*\*\* Running Evaluation \*\*\*\*\*",
        rb"\*\*\*\*\* Running Prediction \*\*\*\*\*",
        rb"Running evaluation step",
        rb"\[tunebook\] generating",
    ),
    "saving": (rb"Saving model checkpoint to", rb"Writing model shards:", _TRAINED),
}
SIGNS = tuple((phase, re.compile(one)) for phase, patterns in _BY_PHASE.items() for one in patterns)
"""Phases and what they begin with, a pattern each."""
_STAMP = re.compile(rb"20\d\d-\d\d-\d\d[ T]\d\d:\d\d:\d\d(?:[.,]\d{1,6})?")
"""The clock of transformers, LLaMA-Factory and Axolotl: local time, of no named zone."""
_SAVED = re.compile(rb"saved in ")
# transformers 4 and 5, Axolotl; the step is the last thing in each.
_RESUMED = (
    re.compile(rb"Continuing training from global step \d+"),
    re.compile(rb"Resuming training from checkpoint with epoch \d+ and global step \d+"),
    re.compile(rb"auto-resume functionality to resume from checkpoint at \S*checkpoint-\d+"),
)
_Mark = PhaseName | Literal["stamp", "saved", "resumed"]
MARKS: tuple[tuple[_Mark, re.Pattern[bytes]], ...] = (
    ("stamp", _STAMP),
    ("saved", _SAVED),
    *(("resumed", pattern) for pattern in _RESUMED),
    # Not the logged entries: Python writes them late, some in the middle of a saving.
    *((phase, pattern) for phase, pattern in SIGNS if b"loss" not in pattern.pattern),
)

_DRAWN = rb"(?:(?P<label>[A-Za-z][^\r\n|%]*): +)?\d+%\|[^|\r\n]*\| *(?P<done>\d+)/(?P<total>\d+) \["
PROGRESS = re.compile(_DRAWN)
"""A tqdm bar up to its times, which some programs draw otherwise."""
BAR = re.compile(
    _DRAWN
    + rb"(?P<spent>[\d:]+)<(?P<left>[\d:?]+), *(?P<rate>[\d.?]+) ?(?P<unit>[a-z]+/s|s/[a-z]+| examples/s)"
)
"""A tqdm bar."""


def last_number(pattern: re.Pattern[bytes], text: bytes) -> int | None:
    """The last number that a pattern finds, by the first of its groups that matched; commas are left out."""
    found = pattern.findall(text)
    if not found:
        return None
    digits = found[-1] if isinstance(found[-1], bytes) else next(part for part in found[-1] if part)
    return int(digits.replace(b",", b""))


_BEFORE: frozenset[PhaseName] = frozenset({"starting", "loading data", "tokenising", "loading model"})
_FINISHED_BAR = re.compile(
    rb"100%\|[^|\r\n]{0,400}\| *(?P<total>\d+)/(?P=total) "
    rb"\[[\d:]+<[\d:?]+, *(?P<rate>[\d.]+) ?(?:examples|it)/s"
)
_LABEL = 200
"""Bytes before a bar in which its label is."""
_SAME_LINE = 160
"""Bytes between a stamp and the sign that it belongs to, at most."""
_JUMP = 60.0
"""Seconds that a clock may go back, as among ranks, before it counts as set again."""


@dataclass(slots=True)
class RunStart:
    """One start of a run, as a log shows it."""

    seconds: dict[PhaseName, float] = field(default_factory=dict)
    """`training` here is all from the start of training to its end, but for savings."""
    stretches: dict[PhaseName, int] = field(default_factory=dict)
    resumed_at: int | None = None
    began: float | None = None
    ended: float | None = None
    """First and last stamp, in seconds of a clock of no known zone."""
    trained: bool = False
    """Whether training was reached."""
    finished: bool = False
    """Whether training was completed."""


class Timeline:
    """Takes the text of a log piece by piece; afterwards, its starts."""

    def __init__(self) -> None:
        self.starts: list[RunStart] = [RunStart()]
        self._phase: PhaseName = "starting"
        self._stamped: PhaseName = "starting"
        """The phase at the last stamp: signs without one may have moved on since."""
        self._untimed: list[PhaseName] = []
        """Signs since the last stamp."""
        self._bars: dict[PhaseName, float] = {}
        """Since the last stamp: what finished bars took."""
        self._last: float | None = None
        self._gaps: list[float] = []
        """Between stamps since the last sign, all counted to one phase."""
        self._said: PhaseName | None = None
        """The phase of the last sign: within training, signs of evaluations are counted and not timed."""
        self._saving = False

    @property
    def timed(self) -> bool:
        """Whether there were stamps at all."""
        return any(start.began is not None for start in self.starts)

    def feed(self, text: bytes) -> None:
        """Take the next piece, which ends at the end of a line."""
        stamp_end, bars_from = -_SAME_LINE, 0
        for kind, match in find_marks(text):
            timed = match.start() - stamp_end < _SAME_LINE
            if kind == "stamp":
                at = _seconds(match.group())
                if at is not None:
                    self._read_bars(text, bars_from, match.start())
                    bars_from = match.start()
                    self._tick(at)
                    stamp_end = match.end()
            elif kind == "resumed":
                step = match.group().replace(b"-", b" ").rsplit(b" ", 1)[1]
                self.starts[-1].resumed_at = int(step)
            elif kind == "saved":
                self._saved(timed=timed)
            else:
                self.starts[-1].finished |= match.group() == _TRAINED
                self._sign(kind, timed=timed)
        self._read_bars(text, bars_from, len(text))

    def _read_bars(self, text: bytes, first: int, after: int) -> None:
        """What finished bars say they took; their rate is more exact than their seconds."""
        if self.starts[-1].trained:
            return
        for bar in _FINISHED_BAR.finditer(text, first, after):
            before = text[max(first, bar.start() - _LABEL) : bar.start()]
            label = before[max(before.rfind(b"\r"), before.rfind(b"\n")) + 1 :]
            phase = next((name for name, sign in SIGNS if sign.match(label)), None)
            rate = float(bar["rate"]) if bar["rate"].replace(b".", b"", 1).isdigit() else 0.0
            if phase is not None and rate > 0:
                # Drawn several times at its end: the last counts.
                self._bars[phase] = int(bar["total"]) / rate

    def _tick(self, at: float) -> None:
        start = self.starts[-1]
        if self._last is None or at - self._last < -_JUMP:
            self._last = at
        elif at >= self._last:
            self._spend(round(at - self._last, 6))
            self._last = at
        # Else ranks write out of order, by milliseconds.
        start.began = self._last if start.began is None else start.began
        start.ended = self._last
        self._untimed, self._bars, self._stamped = [], {}, self._phase

    def _spend(self, gap: float) -> None:
        seconds = self.starts[-1].seconds
        self._gaps.append(gap)
        for phase, own in self._bars.items():
            taken = min(own, gap)
            seconds[phase] = seconds.get(phase, 0.0) + taken
            gap -= taken
        owner = next((phase for phase in reversed(self._untimed) if phase not in self._bars), self._stamped)
        if self._untimed and self._untimed[-1] == "loading model":
            owner = "loading model"  # of which reading the weights, with its bar, is a part
        seconds[owner] = seconds.get(owner, 0.0) + gap

    def _sign(self, phase: PhaseName, *, timed: bool) -> None:
        start = self.starts[-1]
        if start.trained and phase in ("starting", "loading data"):
            start = self._new_start()
        elif start.trained and phase in _BEFORE:
            return  # the best model is loaded again
        start.trained |= phase == "training"
        self._saving = phase == "saving"
        if self._said != phase:
            start.stretches[phase] = start.stretches.get(phase, 0) + 1
        self._said = phase
        if start.trained and not start.finished:
            phase = "training"
        if phase == self._phase:
            return
        self._phase = phase
        self._gaps = []
        if timed:
            self._stamped = phase
        else:
            self._untimed.append(phase)

    def _saved(self, *, timed: bool) -> None:
        """A stamped line that says a file of a checkpoint was written: the time before it was saving."""
        start = self.starts[-1]
        if timed and self._saving and start.trained and not start.finished and self._gaps:
            gap = self._gaps.pop()
            start.seconds["training"] = start.seconds.get("training", 0.0) - gap
            start.seconds["saving"] = start.seconds.get("saving", 0.0) + gap

    def _new_start(self) -> RunStart:
        """Begin another start after the widest gap since the last sign, which lay between the two."""
        old, new = self.starts[-1], RunStart(began=self._last, ended=self._last)
        if self._gaps and self._last is not None:
            widest = max(range(len(self._gaps)), key=self._gaps.__getitem__)
            moved, own = sum(self._gaps[widest:]), sum(self._gaps[widest + 1 :])
            old.seconds[self._phase] = old.seconds.get(self._phase, 0.0) - moved
            new.seconds["starting"] = own
            new.began, old.ended = self._last - own, self._last - moved
        self.starts.append(new)
        self._phase = self._stamped = "starting"
        self._said = None
        self._gaps, self._untimed, self._bars = [], [], {}
        return new


def find_marks(text: bytes) -> Iterator[tuple[_Mark, re.Match[bytes]]]:
    """All signs and stamps in the order of the text; what lies within another is left out."""
    found = [(match.start(), kind, match) for kind, pattern in MARKS for match in pattern.finditer(text)]
    found.sort(key=lambda one: one[0])
    end = 0
    for start, kind, match in found:
        if start >= end:
            end = match.end()
            yield kind, match


def _seconds(stamp: bytes) -> float | None:
    try:
        moment = datetime.fromisoformat(stamp.decode().replace(",", "."))
    except ValueError:
        return None
    return moment.replace(tzinfo=UTC).timestamp()
