"""Rows of preference training, read as prompt and good answer.

Each trainer keeps pairs, or single answers with a mark, under names of its own. Evaluation wants a prompt and
the answer that it should get, as ids: those that the engine made, none of ours.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tunebook.errors import TunebookError
from tunebook.types import IGNORED, MEDIA

Ids = tuple[list[int], list[int]]
"""Token ids of a row and its labels, `IGNORED` on the prompt."""


def _labelled(ids: str, labels: str) -> Callable[[Mapping[str, Any]], Ids]:
    return lambda row: (row[ids], row[labels])


def _joined(prompt: str, answer: str) -> Callable[[Mapping[str, Any]], Ids]:
    return lambda row: (row[prompt] + row[answer], [IGNORED] * len(row[prompt]) + row[answer])


# By columns. LLaMA-Factory's pairs, TRL's ORPO and CPO; TRL's DPO; TRL's KTO; LLaMA-Factory's KTO.
_READERS: Mapping[tuple[str, str], Callable[[Mapping[str, Any]], Ids]] = {
    columns: make(*columns)
    for columns, make in (
        (("chosen_input_ids", "chosen_labels"), _labelled),
        (("prompt_ids", "chosen_ids"), _joined),
        (("prompt_ids", "completion_ids"), _joined),
        (("input_ids", "labels"), _labelled),
    )
}
_MARKS = ("kto_tags", "label")


class ChosenRows:
    """The rows of a set of preferences that have a good answer, read when they are asked for.

    Args:
        dataset: The engine's rows.
        columns: Its two columns that hold prompt and answer, a key of `_READERS`.
        rows: The places of those with a good answer.
        limit: Tokens a row may have.
    """

    def __init__(
        self, dataset: Any, columns: tuple[str, str], rows: Sequence[int], limit: int | None
    ) -> None:
        self._dataset = dataset
        self._read = _READERS[columns]
        self._limit = limit
        self.rows = rows
        self.column_names = ["input_ids", "labels", *(name for name in MEDIA if name in dataset.column_names)]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, key: int | slice | str) -> Any:
        """One row, several as lists by column, or one column of all, as a `datasets.Dataset` gives them."""
        if isinstance(key, str):
            return [self[place][key] for place in range(len(self))]
        if isinstance(key, slice):
            found = [self._row(self._dataset[index]) for index in self.rows[key]]
            return {name: [row[name] for row in found] for name in self.column_names}
        return self._row(self._dataset[self.rows[key]])

    def _row(self, row: Mapping[str, Any]) -> dict[str, Any]:
        ids, labels = self._read(row)
        media = {name: row[name] for name in self.column_names[2:]}
        return {"input_ids": ids[: self._limit], "labels": labels[: self._limit], **media}


def chosen_rows(dataset: Any, name: str, limit: int) -> tuple[ChosenRows, str]:
    """Return the rows that can be measured, and what to say of them.

    Args:
        dataset: The engine's evaluation rows, as its trainer holds them.
        name: Of the set.
        limit: Tokens a row may have; the engine cuts longer ones as it collates them.

    Raises:
        TunebookError: The rows are in a form we do not know, or none of them has a good answer.
    """
    held = getattr(dataset, "column_names", None) or []
    columns = next((pair for pair in _READERS if set(pair) <= set(held)), None)
    if columns is None or not hasattr(dataset, "__len__"):
        raise TunebookError(
            f"{name}: no prompt and chosen answer is known in its rows: {', '.join(held) or 'a stream'}",
            fix='set `streaming: false`, or take "metric" out of the registry entry',
        )
    mark = next((one for one in _MARKS if one in held), None)
    good = range(len(dataset)) if mark is None else [i for i, one in enumerate(dataset[mark]) if one]
    if not good:
        raise TunebookError(
            f"{name}: none of its {len(dataset)} rows is marked as a good answer, so there is nothing to "
            "compare answers with",
            fix='add rows with good answers, or take "metric" out of the registry entry',
        )
    note = f"{name}: answers are scored against the chosen ones, beside the engine's own figures"
    if len(good) < len(dataset):
        note += (
            f"; {len(good)} of {len(dataset)} rows, since the others are marked as bad answers and say "
            "nothing of the right one"
        )
    return ChosenRows(dataset, columns, good, limit), note
