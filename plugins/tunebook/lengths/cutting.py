"""What the engines do to rows that are longer than their limit, and what such a row loses."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy.typing as npt

    from tunebook.lengths.batches import Batch, Form, Lengths

    Flags = npt.NDArray[np.bool_]

LOSS_WORDS = {
    "cut": "are shortened",
    "header": "lose the end of a prompt, where the assistant header is",
    "answer": "lose part of an answer",
    "end": "lose the token that ends an answer",
    "turn": "lose a question with its answer",
    "all": "have no answer left to learn",
    "dropped": "are left out",
}
"""What can happen to a row, as it follows a number of rows; in the order in which it is shown."""

LOSSES = tuple(LOSS_WORDS)


class Rule(Protocol):
    """What one engine does to long rows."""

    @property
    def key(self) -> str:
        """The recipe's key of the limit."""
        ...

    def keep(self, batch: Batch, limit: int) -> Batch:
        """Return what is left of each row at a limit of so many tokens: a batch of the same shape."""
        ...


@dataclass(frozen=True, slots=True)
class Proportional:
    """LLaMA-Factory's rule: prompt and answer of a turn are shortened in proportion, the turns in order."""

    row_end: int
    """Tokens put at the end of each row, whatever was cut: 1 for templates with `efficient_eos`."""
    newest_first: bool
    """`mask_history`: the last turn is served first."""
    key: str = "cutoff_len"

    def keep(self, batch: Batch, limit: int) -> Batch:
        """Return what is left of each row; see `Rule`. From processor_utils.py: `infer_seqlen`."""
        prompts, answers = np.zeros_like(batch.prompts), np.zeros_like(batch.answers)
        used = np.full(len(batch.rows), self.row_end, np.int64)
        rows = np.arange(len(batch.rows))
        for place in range(batch.prompts.shape[1]):
            column = batch.turns - 1 - place if self.newest_first else np.full_like(batch.turns, place)
            # Turns are visited in order, so a row that is full stays full.
            live = (place < batch.turns) & (used < limit)
            at = (rows[live], column[live])
            if not live.any():
                break
            source, target = _infer_seqlen(batch.prompts[at], batch.answers[at], limit - used[live])
            prompts[at], answers[at] = source, target
            used[live] += source + target
        return replace(batch, prompts=prompts, answers=answers)


@dataclass(frozen=True, slots=True)
class First:
    """Axolotl's `excess_length_strategy: truncate`: the first tokens of a row stay."""

    shortest: int = 0
    """A shorter row is left out."""
    key: str = "sequence_len"

    def keep(self, batch: Batch, limit: int) -> Batch:
        """Return what is left of each row; see `Rule`."""
        prompts, answers = np.zeros_like(batch.prompts), np.zeros_like(batch.answers)
        left = np.where(batch.total < self.shortest, 0, limit)
        for place in range(batch.prompts.shape[1]):
            for kept, whole in ((prompts, batch.prompts), (answers, batch.answers)):
                kept[:, place] = np.minimum(whole[:, place], left)
                left -= kept[:, place]
        return replace(batch, prompts=prompts, answers=answers, tail=np.minimum(batch.tail, left))


@dataclass(frozen=True, slots=True)
class Drop:
    """Axolotl's rule without a strategy: rows that are too long are left out, and those too short."""

    shortest: int = 2
    key: str = "sequence_len"

    def keep(self, batch: Batch, limit: int) -> Batch:
        """Return what is left of each row; see `Rule`."""
        total = batch.total
        stays = ((total >= self.shortest) & (total <= limit)).astype(np.int64)
        return replace(
            batch,
            prompts=batch.prompts * stays[:, None],
            answers=batch.answers * stays[:, None],
            tail=batch.tail * stays,
        )


@dataclass(frozen=True, slots=True)
class Packed:
    """LLaMA-Factory's rule for texts without answers: all are joined, and the whole is cut into rows."""

    key: str = "cutoff_len"

    def keep(self, batch: Batch, limit: int) -> Batch:  # noqa: ARG002
        """Return the rows as they are; see `Rule`."""
        return batch


_RULES: dict[str, type[Proportional | First | Drop | Packed]] = {
    "proportional": Proportional, "first": First, "drop": Drop, "packed": Packed,
}  # fmt: skip


def rule_of(values: Mapping[str, Any]) -> Rule:
    """Return a rule from its `kind` and its fields.

    >>> rule_of({"kind": "drop", "shortest": 3})
    Drop(shortest=3, key='sequence_len')
    """
    fields = dict(values)
    return _RULES[fields.pop("kind")](**fields)


def losses(batch: Batch, kept: Batch, form: Form) -> dict[str, Flags]:
    """Return for each of `LOSSES` which rows suffer it.

    Whether a closing token was cut is known from the count. So the last word of an answer and the end of its
    turn are separated exactly where the template closes an answer with a special token, and by about a token
    elsewhere.
    """
    left = kept.total
    dropped = (left == 0) & (batch.total > 0)
    stays = ~dropped[:, None]
    present = (np.arange(batch.prompts.shape[1]) < batch.turns[:, None]) & stays
    gone = present & (kept.prompts + kept.answers == 0) & (batch.prompts + batch.answers > 0)
    partly = present & ~gone
    found = {
        "cut": (left < batch.total) & ~dropped,
        "header": (partly & (kept.prompts < batch.prompts)).any(axis=1),
        "answer": (partly & (kept.answers < batch.answers - form.closing)).any(axis=1),
        "end": (partly & (kept.answers < batch.answers - form.after_end)).any(axis=1),
        "turn": gone.any(axis=1),
        "all": (kept.answers.sum(axis=1) == 0) & (batch.answers.sum(axis=1) > 0) & ~dropped,
        "dropped": dropped,
    }
    if form.closing == 0:
        # Nothing closes an answer but the token at the row's end, which is never cut.
        found["end"] = np.zeros(len(batch.rows), np.bool_)
    return found


def _infer_seqlen(source: Lengths, target: Lengths, limit: Lengths) -> tuple[Lengths, Lengths]:
    both = source + target
    share = target / np.where(both == 0, 1, both)
    most = np.where(
        target * 2 < limit,
        limit,
        np.where(source * 2 < limit, limit - source, (limit * share).astype(np.int64)),
    )
    new_target = np.minimum(most, target)
    new_source = np.minimum(np.maximum(limit - new_target, 0), source)
    return new_source, new_target
