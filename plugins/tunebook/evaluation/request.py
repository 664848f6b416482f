"""What a user asks `tunebook eval` for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tunebook.errors import TunebookError
from tunebook.evaluation.job import Method
from tunebook.evaluation.shots import ShotsRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """The command line, read."""

    models: tuple[str, ...]
    """Runs, `RUN@STEP`, checkpoints, or models."""
    output: Path
    checkpoints: str = "best"
    """`best`, `last`, `all`, or steps with commas between."""
    base: bool = False
    """Evaluate what the runs were trained from, too."""
    datasets: tuple[str, ...] = ()
    """Registry entries; empty for each recipe's own."""
    recipe: str | None = None
    """Of models that no run left: how they are to be loaded and asked."""
    as_models: bool = False
    """Take every folder for a model's or adapter's own, asked as `recipe` says, even where a run left it."""
    overrides: tuple[str, ...] = ()
    method: Method | None = None
    batch_size: int | None = None
    batch_tokens: int | None = None
    cache_on_host: bool = False
    device_map: str | None = None
    max_samples: int | None = None
    shard: tuple[int, int] = (0, 1)
    shots: ShotsRequest | None = None
    """Examples before each question."""


def parse_shard(text: str) -> tuple[int, int]:
    """Read `I/M`.

    >>> parse_shard("0/4")
    (0, 4)

    Raises:
        TunebookError: It has another form, or I is not below M.
    """
    number, slash, count = text.partition("/")
    if slash and number.isdigit() and count.isdigit() and int(number) < int(count):
        return int(number), int(count)
    raise TunebookError(f"--shard {text}: is no share", fix="write I/M with I from 0 to M - 1, e.g. 0/4")
