"""The conversations that both sides write."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tunebook.data.rows import iter_rows
from tunebook.errors import TunebookError
from tunebook.inference.conversations import conversation_of

if TYPE_CHECKING:
    from pathlib import Path

_QUESTION = {"role": "user", "content": "Is 6 greater than 4? Answer Yes or No."}
_ANSWER = {"role": "assistant", "content": "Yes"}
_SYSTEM = {"role": "system", "content": "Answer in one word."}
_MORE = {"role": "user", "content": "And 3 than 8?"}
_LAST = {"role": "assistant", "content": "No"}
_REASONED = {"role": "assistant", "content": "<think>\nSix is more than four.\n</think>\n\nYes"}

SAMPLES: tuple[dict[str, Any], ...] = (
    {"name": "one turn", "messages": [_QUESTION, _ANSWER]},
    {"name": "system prompt", "messages": [_SYSTEM, _QUESTION, _ANSWER]},
    {"name": "two turns", "messages": [_QUESTION, _ANSWER, _MORE, _LAST]},
    {"name": "system prompt, two turns", "messages": [_SYSTEM, _QUESTION, _ANSWER, _MORE, _LAST]},
    {"name": "reasoning in the first answer", "messages": [_QUESTION, _REASONED, _MORE, _LAST]},
)
"""Without tools. The last is written only for models that were trained to think."""
REASONING = "reasoning in the first answer"

_ROWS = 20


def read_samples(path: Path) -> list[dict[str, Any]]:
    """Read conversations from a file in any shape that `tunebook infer` reads; the first 20 rows.

    Raises:
        TunebookError: The file cannot be read, or holds no rows.
    """
    found = []
    for number, row in enumerate(iter_rows(path), 1):
        conversation = conversation_of(row, f"{path}, row {number}")
        answer = {"role": "assistant", "content": conversation.reference or _ANSWER["content"]}
        found.append({"name": f"{path.name}, row {number}", "messages": [*conversation.messages, answer]})
        if number == _ROWS:
            break
    if not found:
        raise TunebookError(f"{path}: holds no rows", fix="write one conversation a row into it")
    return found
