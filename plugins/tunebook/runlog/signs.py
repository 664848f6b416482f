"""What both engines print that tells the phase of a run: LLaMA-Factory 0.9.5, Axolotl 0.19.0, transformers.

tests/fixtures/logs holds logs of both.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tunebook.runlog.records import PhaseName

SIGNS: tuple[tuple[PhaseName, bytes], ...] = (
    ("loading data", rb"Loading dataset |Loading prepared dataset|Loading raw datasets|Generating \w+ split"),
    (
        "tokenising",
        (
            rb"Running tokenizer on dataset|Converting format of dataset|Tokenizing Prompts|"
            rb"Dropping Long Sequences|Saving the dataset"
        ),
    ),
    (
        "loading model",
        rb"loading weights file|Loading weights:|Loading checkpoint shards:|Quantizing Model Shards",
    ),
    ("training", rb"\*{5} Running training \*{5}|Starting trainer\.\.\.|\{'loss': "),
    (
        "evaluating",
        rb"\*{5} Running (?:Evaluation|Prediction) \*{5}|Running evaluation step|\[tunebook\] generating",
    ),
    ("saving", rb"Saving model checkpoint to|Writing model shards:|Training completed"),
)
"""Phases and what they begin with, as patterns."""

STARTING = (
    rb"Process rank: \d+, world size|#@@ #@@      @@# @@#|\[axolotl\.cli\.config[^\]\r\n]*\][^\r\n]* config:"
)
"""What an engine prints once, before anything else of a start."""
FINISHED = rb"Training completed"

BAR = re.compile(
    rb"(?:(?P<label>[A-Za-z][^\r\n|%]*): +)?\d+%\|[^|\r\n]*\| *(?P<done>\d+)/(?P<total>\d+) "
    rb"\[(?P<spent>[\d:]+)<(?P<left>[\d:?]+), *(?P<rate>[\d.?]+) ?(?P<unit>[a-z]+/s|s/[a-z]+| examples/s)"
)
"""A tqdm bar."""
TIME = rb"20\d\d-\d\d-\d\d[ T]\d\d:\d\d:\d\d(?:[.,]\d{1,6})?"
"""The clock of transformers, LLaMA-Factory and Axolotl: local time, of no named zone."""
RESUMED = (
    rb"(?:Continuing training from|Resuming training from checkpoint with epoch \d+ and) global step \d+|"
    rb"auto-resume functionality to resume from checkpoint at \S*checkpoint-\d+"
)
"""transformers 4 and 5, Axolotl; the step stands last."""


def last_number(pattern: re.Pattern[bytes], text: bytes) -> int | None:
    """The last number that a pattern finds, by the first of its groups that matched; commas are left out."""
    found = pattern.findall(text)
    if not found:
        return None
    digits = found[-1] if isinstance(found[-1], bytes) else next(part for part in found[-1] if part)
    return int(digits.replace(b",", b""))
