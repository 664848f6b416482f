"""What result files are called: told from what was evaluated, so that the same thing has the same name."""

from __future__ import annotations

import re
from pathlib import PurePath
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tunebook.evaluation.records import Subject

_LONGEST = 200  # most file systems allow 255 bytes, and a suffix is to come


def result_name(
    *, recipe: str, run_label: str, dataset: str, subject: Subject, settings: str, digest: str
) -> str:
    """Return the name of a result without its suffix.

    Args:
        recipe: The recipe's name, of which the last part is taken.
        run_label: What tells the run from others of its recipe.
        dataset: The evaluation set.
        subject: The model.
        settings: How it was measured, in words: see `settings_words`.
        digest: Hexadecimal; of everything about the recipe and the settings that decides the answers.
    """
    last = PurePath(recipe).stem
    first = last if run_label in ("", last) else f"{last}.{run_label}"
    kind = subject.kind if subject.kind == "base" or not subject.step else f"{subject.kind}-{subject.step}"
    parts = [first, dataset, kind, PurePath(subject.base.rstrip("/")).name, f"{settings}-{digest[:8]}"]
    name = "--".join(_slug(part) for part in parts)
    return name if len(name) <= _LONGEST else f"{name[: _LONGEST - 9]}-{digest[:8]}"


def settings_words(*, method: str | None, max_samples: int | None, shots: int) -> str:
    """Return how was measured, in the words of a file's name.

    >>> settings_words(method=None, max_samples=200, shots=1)
    'auto-1shot-n200'
    """
    words = [method or "auto"]
    if shots:
        words.append(f"{shots}shot")
    if max_samples is not None:
        words.append(f"n{max_samples}")
    return "-".join(words)


def _slug(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9.+_=-]+", "_", text).strip("_.") or "_"
