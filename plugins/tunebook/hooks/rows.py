"""Evaluation rows as an engine hands them over: where the answer is, and whether it is whole."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from tunebook.errors import TunebookError
from tunebook.types import IGNORED

_READ_ROWS = 256  # rows read from the dataset at a time: Arrow is slow one row at a time
_ROWS_TO_TELL_A_HEADER = 8  # the common end of fewer prompts may be part of what they ask
_HEADER_TOKENS = 8  # the longest assistant header we compare; real ones have 2-5 tokens


class TokenSpan(NamedTuple):
    """Half-open range of token positions."""

    start: int
    end: int


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerRow:
    """What evaluation needs to know of one row, without keeping its tokens."""

    index: int
    """Row of the dataset, from 0."""
    length: int
    """Tokens in the row, padding excluded."""
    answer: TokenSpan
    """The last supervised span, empty when no label carries loss."""
    answer_ids: array[int]
    """Label ids of `answer`."""
    label_tokens: int
    """Positions that carry loss, over all spans; position 0 never does, nothing predicts it."""
    cut: bool
    """The engine cut the answer or the assistant header at its length limit."""


def spans(labels: Sequence[int]) -> list[TokenSpan]:
    """The maximal runs of supervised positions, in order.

    >>> spans([-100, -100, 5, 6, -100, 7])
    [TokenSpan(start=2, end=4), TokenSpan(start=5, end=6)]
    """
    found: list[TokenSpan] = []
    start: int | None = None
    for position, label in enumerate(labels):
        if label != IGNORED and start is None:
            start = position
        elif label == IGNORED and start is not None:
            found.append(TokenSpan(start, position))
            start = None
    if start is not None:
        found.append(TokenSpan(start, len(labels)))
    return found


def read_rows(
    dataset: Any,
    *,
    name: str,
    stop_ids: frozenset[int],
    length_limit: int,
    prompt_loss_key: str,
    header: tuple[int, ...] = (),
    cut_at_limit: bool = True,
) -> list[AnswerRow]:
    """Read every row of an evaluation set once and find its answer.

    Args:
        dataset: Rows with `input_ids` and `labels`, as the engine tokenised them.
        name: The evaluation set, for messages.
        stop_ids: Token ids that end an answer. A cut answer has none of them.
        length_limit: The engine's limit on tokens per row.
        header: Token ids before every whole answer; empty: found by comparing rows.
        prompt_loss_key: The engine's key that puts loss on the prompt, for messages.
        cut_at_limit: Only rows that reach the limit are cut. Not so of pairs, cut by the longer answer.

    Raises:
        TunebookError: The set is streamed, empty, or supervises its prompts.
    """
    if not hasattr(dataset, "__len__"):
        raise TunebookError(
            f"evaluation set {name!r} is streamed: its rows cannot be counted or dealt to the ranks",
            fix="set `streaming: false`, or keep the evaluation set out of streaming",
        )
    if len(dataset) == 0:
        raise TunebookError(f"evaluation set {name!r} has no rows", fix="check its file and `max_samples`")
    rows: list[AnswerRow] = []
    headers: list[tuple[int, ...]] = []
    supervised_prompts = 0
    for index, (input_ids, labels) in enumerate(_tokens(dataset)):
        found = spans(labels)
        supervised_prompts += bool(found) and found[0].start == 0
        answer = found[-1] if found else TokenSpan(len(labels), len(labels))
        headers.append(tuple(input_ids[max(0, answer.start - _HEADER_TOKENS) : answer.start]))
        rows.append(
            AnswerRow(
                index=index,
                length=len(input_ids),
                answer=answer,
                answer_ids=array("q", labels[answer.start : answer.end]),
                label_tokens=sum(span.end - max(span.start, 1) for span in found),
                cut=False,
            )
        )
    if supervised_prompts == len(rows):
        raise TunebookError(
            f"evaluation set {name!r} takes loss on its prompts: no answer can be separated from its prompt",
            fix=f'set `{prompt_loss_key}: false`, or remove the dataset\'s "metric"',
        )
    if not header:
        whole = [headers[row.index] for row in rows if row.length < length_limit]
        header = common_suffix(whole) if len(whole) >= _ROWS_TO_TELL_A_HEADER else ()
    least = length_limit if cut_at_limit else 0
    return _mark_cut(rows, headers, header[-_HEADER_TOKENS:], stop_ids, least)


def _tokens(dataset: Any) -> Iterator[tuple[list[int], list[int]]]:
    for start in range(0, len(dataset), _READ_ROWS):
        block = dataset[start : start + _READ_ROWS]
        yield from zip(block["input_ids"], block["labels"], strict=True)


def _mark_cut(
    rows: list[AnswerRow],
    headers: list[tuple[int, ...]],
    header: tuple[int, ...],
    stop_ids: frozenset[int],
    least: int,
) -> list[AnswerRow]:
    """Mark rows whose answer lost its end, or whose prompt lost the assistant header.

    Engines cut at their length limit without a word, so only rows of `least` tokens can be cut. The tail is
    lost when other answers end in a stop token and this one has none; the header is lost when this prompt
    does not end as the whole ones do.
    """
    ends_well = [any(token in stop_ids for token in row.answer_ids) for row in rows]
    tail_can_be_told = any(ends_well)
    marked: list[AnswerRow] = []
    for row in rows:
        own_header = headers[row.index]
        tail_lost = tail_can_be_told and not ends_well[row.index]
        header_lost = bool(header) and own_header[-len(header) :] != header
        no_answer = row.label_tokens == 0
        cut = no_answer or (row.length >= least and (tail_lost or header_lost))
        marked.append(replace(row, cut=cut))
    return marked


def common_suffix(sequences: list[tuple[int, ...]]) -> tuple[int, ...]:
    """The longest ending that all sequences share; empty when there are none.

    >>> common_suffix([(1, 2, 3), (9, 2, 3)])
    (2, 3)
    """
    shared: list[int] = []
    for tokens in zip(*(reversed(sequence) for sequence in sequences), strict=False):
        if len(set(tokens)) > 1:
            break
        shared.append(tokens[0])
    return tuple(reversed(shared))
