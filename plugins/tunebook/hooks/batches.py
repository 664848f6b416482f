"""Batches of evaluation rows: which rows are computed together, on which rank, and how they are padded."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch

from tunebook.hooks.ranks import FILLER, Rank
from tunebook.hooks.rows import AnswerRow
from tunebook.types import IGNORED, MEDIA

_PAD_MULTIPLE = 8  # tensor cores want it
_PAD_UP_TO = 4096
"""From this width on nothing is rounded up: one padded token makes the sdpa kernel take a mask of
tokens x tokens, 40 GB for a row of 200,000."""


def deal(lengths: Sequence[int], batch_size: int, rank: Rank) -> list[list[int]]:
    """The batches of one rank: row numbers, with `FILLER` where another rank has a row more.

    Rows are ordered longest first, so that a batch has little padding and a batch that does not fit
    fails at once and not at the end. All ranks get the same number of batches: under ZeRO-3 and FSDP
    every forward pass is collective.

    >>> deal([1, 9, 5], batch_size=1, rank=Rank(1, 2))
    [[2], [-1]]
    """
    own = _longest_first(lengths)[rank.number :: rank.world]
    share = -(-len(lengths) // rank.world)
    own += [FILLER] * (share - len(own))
    return [own[start : start + batch_size] for start in range(0, share, batch_size)]


def form_batches(
    lengths: Sequence[int], batch_size: int | None, batch_tokens: int | None = None
) -> list[list[int]]:
    """Group all rows of a set, before any rank, shard or later start takes its share.

    What a model gives for a row depends, in its last digits, on the rows beside it. So batches depend on
    lengths and settings only: with one rank or two, one job or several, a start that was killed or one that
    was not, the same rows are computed together. Ordered as in `deal`.

    Args:
        lengths: Tokens of each row.
        batch_size: The most rows a batch may have; None for any number.
        batch_tokens: The most tokens a batch may have, padding included; a longer row is a batch of its own.

    Returns:
        Places in `lengths`, each in exactly one batch.

    >>> form_batches([1, 9, 5], batch_size=2)
    [[1, 2], [0]]
    >>> form_batches([2, 9, 5, 2, 4, 1], batch_size=None, batch_tokens=8)
    [[1], [2], [4, 0], [3, 5]]
    """
    batches: list[list[int]] = []
    for row in _longest_first(lengths):
        most = len(lengths) if batch_size is None else batch_size
        if batches and batch_tokens is not None:
            # The first row of a batch is its longest.
            most = min(most, batch_tokens // max(lengths[batches[-1][0]], 1))
        if batches and len(batches[-1]) < most:
            batches[-1].append(row)
        else:
            batches.append([row])
    return batches


def _longest_first(lengths: Sequence[int]) -> list[int]:
    return sorted(range(len(lengths)), key=lambda row: (-lengths[row], row))


class Batch(NamedTuple):
    """Left-padded rows, shapes (rows, tokens). Index -1: a row that only keeps a rank in step."""

    indices: list[int]
    answer_starts: list[int]
    """Column of the first token of the last supervised span, per row; `tokens` when there is none."""
    inputs: dict[str, Any]
    labels: torch.Tensor
    part: Callable[[slice], Batch] | None = None
    """Makes a batch of some of its rows, where that is more than cutting its tensors."""


def collate(rows: Sequence[Mapping[str, Any]], *, pad_id: int) -> Batch:
    """Pad rows on the left, so that their answers, at the end, fall on the same few columns.

    Args:
        rows: Mappings with `index`, `input_ids`, `labels` and `answer_start`.
        pad_id: Fills `input_ids`; it is masked, so its value does not matter.
    """
    width = max(len(row["input_ids"]) for row in rows)
    # A single row is never padded: with one row the linear attention of Qwen3.5 and Qwen3-Next reads no mask.
    if width < _PAD_UP_TO and len(rows) > 1:
        width += -width % _PAD_MULTIPLE
    input_ids = torch.full((len(rows), width), pad_id, dtype=torch.long)
    labels = torch.full((len(rows), width), IGNORED, dtype=torch.long)
    mask = torch.zeros((len(rows), width), dtype=torch.long)
    starts = []
    for place, row in enumerate(rows):
        pad = width - len(row["input_ids"])
        input_ids[place, pad:] = torch.tensor(row["input_ids"])
        labels[place, pad:] = torch.tensor(row["labels"])
        mask[place, pad:] = 1
        starts.append(pad + row["answer_start"])
    positions = (mask.cumsum(dim=1) - 1).clamp(min=0)
    return Batch(
        indices=[row["index"] for row in rows],
        answer_starts=starts,
        inputs={"input_ids": input_ids, "attention_mask": mask, "position_ids": positions},
        labels=labels,
    )


def collate_media(
    rows: Sequence[Mapping[str, Any]], collator: Any, *, pad_id: int, prompts_only: bool = False
) -> Batch:
    """Pad rows as the engine pads them, with what its collator makes of pictures and the like.

    Args:
        rows: Whole, as for `collate`, with the columns of `MEDIA` or the engine's `example` as well.
        collator: The engine's: gives tensors by name, `input_ids`, `attention_mask` and `labels` among them.
        pad_id: As for `collate`.
        prompts_only: For generation: without the answers, padded on the left. The model computes positions.
    """
    features = [
        {
            "input_ids": list(row["input_ids"]),
            "attention_mask": [1] * len(row["input_ids"]),
            "labels": list(row["labels"]),
            **{name: row[name] for name in (*MEDIA, "example") if name in row},
        }
        for row in rows
    ]
    if prompts_only and not any(row.get(name) for row in rows for name in (*MEDIA, "example")):
        return collate([_prompt(row) for row in rows], pad_id=pad_id)
    inputs = dict(collator(features))
    labels, mask = inputs.pop("labels"), inputs["attention_mask"]
    # The row's own tokens: an engine may pad on either side, and put in a picture to keep ranks in step.
    places = [one.nonzero().squeeze(1) for one in mask]
    starts = [int(place[0]) + row["answer_start"] for place, row in zip(places, rows, strict=True)]
    labels = labels.masked_fill(mask == 0, IGNORED)
    if prompts_only:
        inputs = _cut_before(
            inputs, [place[: row["answer_start"]] for place, row in zip(places, rows, strict=True)]
        )
        starts = [inputs["input_ids"].shape[1]] * len(rows)
        labels = torch.full_like(inputs["input_ids"], IGNORED)
    return Batch(
        indices=[row["index"] for row in rows],
        answer_starts=starts,
        inputs=inputs,
        labels=labels,
        part=lambda some: collate_media(rows[some], collator, pad_id=pad_id, prompts_only=prompts_only),
    )


def _prompt(row: Mapping[str, Any]) -> dict[str, Any]:
    end = row["answer_start"]
    return {**row, "input_ids": row["input_ids"][:end], "labels": row["labels"][:end]}


def _cut_before(inputs: Mapping[str, Any], places: Sequence[torch.Tensor]) -> dict[str, Any]:
    """Keep the tokens at `places` of each row, padded on the left; what is not by token stays as it is."""
    rows, tokens = inputs["input_ids"].shape
    width = max(len(place) for place in places)
    found = {name: one for name, one in inputs.items() if name not in ("position_ids", "rope_deltas")}
    for name, one in found.items():
        if isinstance(one, torch.Tensor) and one.shape[:2] == (rows, tokens) and one.dim() == 2:
            found[name] = torch.zeros((rows, width), dtype=one.dtype)
            for row, place in enumerate(places):
                found[name][row, width - len(place) :] = one[row, place]
    return found


def halves(batch: Batch) -> tuple[Batch, Batch]:
    """Two batches of half the rows each, without the padding that neither needs any more."""
    middle = len(batch.indices) // 2
    part = batch.part or (lambda rows: _part(batch, rows))
    return part(slice(0, middle)), part(slice(middle, None))


def _part(batch: Batch, rows: slice) -> Batch:
    mask = batch.inputs["attention_mask"][rows]
    spare = int((mask.sum(dim=0) == 0).sum())  # padding is on the left only
    return Batch(
        indices=batch.indices[rows],
        answer_starts=[start - spare for start in batch.answer_starts[rows]],
        inputs={name: tensor[rows, spare:] for name, tensor in batch.inputs.items()},
        labels=batch.labels[rows, spare:],
    )


class Batches(torch.utils.data.Dataset[Batch]):
    """One rank's batches, read from the engine's dataset when they are asked for.

    Args:
        dataset: The engine's tokenised rows.
        rows: What is known of each row.
        batches: Row numbers per batch; a negative one is a filler, which repeats the first row.
        pad_id: Token id to pad with.
        prompts_only: Omit the answers, for generation.
        collator: The engine's, for rows with pictures and the like; None: they are text.
    """

    def __init__(
        self,
        dataset: Any,
        rows: Sequence[AnswerRow],
        batches: list[list[int]],
        *,
        pad_id: int,
        prompts_only: bool = False,
        collator: Any = None,
    ) -> None:
        self.dataset = dataset
        self.rows = rows
        self.batches = batches
        self.pad_id = pad_id
        self.prompts_only = prompts_only
        self.collator = collator

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, number: int) -> Batch:
        rows = list(self._rows(self.batches[number]))
        if self.collator is not None:
            return collate_media(rows, self.collator, pad_id=self.pad_id, prompts_only=self.prompts_only)
        return collate(rows, pad_id=self.pad_id)

    def _rows(self, batch: list[int]) -> Iterator[Mapping[str, Any]]:
        for index in batch:
            row = self.rows[max(index, 0)]
            tokens = self.dataset[row.index]
            # A collator makes pictures and tokens together: it gets whole rows.
            end = row.answer.start if self.prompts_only and self.collator is None else row.length
            yield {
                **tokens,
                "index": index,
                "input_ids": tokens["input_ids"][:end],
                "labels": tokens["labels"][:end],
                "answer_start": row.answer.start,
            }
