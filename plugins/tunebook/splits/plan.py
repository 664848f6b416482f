"""Where each row goes: a split's options, the hold-out, and the destinations written to the row index."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from tunebook.errors import TunebookError
from tunebook.splits import assign
from tunebook.splits.assign import EVAL, NO_ROW, Nodes, row_keys
from tunebook.splits.index import ROW, ArrayWriter, RowIndex

_BLOCK_ROWS = 1 << 16
_NONE = np.empty(0, np.int64)

Numbers = npt.NDArray[Any]


Balance = Literal["rows", "bytes", "tokens"]

DEFAULT_MEMORY = 256 << 20
"""Bytes."""
GROUP_TABLE = 1 << 20
"""Groups are distinguished by 20 bits of a hash: memory is bounded, and two that share them stay together."""
PARSE_JSON_UP_TO = 256 << 20
"""Bytes of sources up to which each JSON row is parsed by default, which costs as much again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitOptions:
    """What decides the content of the parts: with the same sources, the same options give the same bytes."""

    nodes: int
    seed: int = 0
    balance: Balance = "rows"
    shuffle: bool = True
    eval_rows: int = 0
    """Rows to hold out, before the split."""
    eval_share: float = 0.0
    """Share of them instead, between 0 and 1."""
    group_by: str | None = None
    """Column whose equal values stay on one node."""
    tokenizer: str | None = None
    """File or folder, for `balance="tokens"`."""
    skip_bad: bool = False
    parse_json: bool | None = None
    """None: where the sources are no larger than `PARSE_JSON_UP_TO`."""

    @property
    def holds_out(self) -> bool:
        """Whether rows are held out."""
        return bool(self.eval_rows or self.eval_share)


@dataclass(frozen=True, slots=True, kw_only=True)
class PartPlan:
    """What one part will hold."""

    rows: int
    bytes: int
    """Of its rows, as they are in the source."""
    tokens: int | None
    """None where they were not counted."""


def write_plan(index: RowIndex, options: SplitOptions, rows: int) -> list[PartPlan]:
    """Decide where each row goes; return what each node gets, and last what is held out, where anything is.

    Args:
        index: Of a scan; `destinations` is written.
        options: What is asked.
        rows: Rows that the scan found.

    Raises:
        TunebookError: There are no rows, or too few for the nodes and the hold-out.
    """
    _check_counts(rows, options)
    destinations = _by_group(index, options) if options.group_by else _by_row(index, options, rows)
    with ArrayWriter(index.destinations) as writer:
        for kinds, values in _aligned(index.kinds.blocks(), destinations):
            spread = np.full(len(kinds), NO_ROW, np.uint16)
            spread[kinds == ROW] = values
            writer.append(spread)
    return _measure(index, options)


def plan_rows(options: SplitOptions, rows: int, held: npt.NDArray[np.int64] = _NONE) -> Iterator[Nodes]:
    """Yield the destinations of `rows` rows that are balanced only by number, in blocks; `held` are held out.

    Needs no data, and only the memory of the hold-out's row numbers.
    """
    return _with_holdout(_balanced_by_number(options, rows - len(held)), held, rows)


def _check_counts(rows: int, options: SplitOptions) -> None:
    if not rows:
        raise TunebookError("the data holds no rows", fix="name a file with rows")
    if options.eval_rows >= rows:
        raise TunebookError(
            f"cannot hold out {options.eval_rows} of {rows} rows", fix=f"choose --eval below {rows}"
        )
    left = rows - options.eval_rows
    if not 1 <= options.nodes <= left:
        raise TunebookError(
            f"cannot split {left} rows between {options.nodes} nodes",
            fix=f"choose --nodes between 1 and {left}",
        )


def _by_row(index: RowIndex, options: SplitOptions, rows: int) -> Iterator[Nodes]:
    held = _held(index, options) if options.holds_out else _NONE
    if options.nodes > rows - len(held):
        raise TunebookError(
            f"cannot split {rows - len(held)} rows between {options.nodes} nodes: {len(held)} are held out",
            fix="choose a smaller --eval, or fewer --nodes",
        )
    if options.balance == "rows":
        return plan_rows(options, rows, held)

    def sizes() -> Iterator[Numbers]:
        return _without(_sizes(index, options), held)

    total = sum(int(block.sum(dtype=np.int64)) for block in sizes())
    assigned = assign.assign_by_size(sizes, rows - len(held), total, options.nodes)
    return _with_holdout(assigned, held, rows)


def _balanced_by_number(options: SplitOptions, rows: int) -> Iterator[Nodes]:
    step = max(1, _BLOCK_ROWS // options.nodes) * options.nodes
    for start in range(0, rows, step):
        stop = min(start + step, rows)
        if options.shuffle:
            yield assign.assign_at_random(start, stop, options.nodes, options.seed)
        else:
            yield assign.assign_in_turn(start, stop, options.nodes)


def _held(index: RowIndex, options: SplitOptions) -> npt.NDArray[np.int64]:
    """The rows to hold out, ascending: by what is asked in them, whatever their order."""
    chosen = _chosen_groups(_rows_of_groups(index), options, "prompt")
    found = [_NONE]
    start = 0
    for groups in index.groups.blocks():
        found.append(np.flatnonzero(chosen[groups]) + start)
        start += len(groups)
    return np.concatenate(found)


def _rows_of_groups(index: RowIndex) -> npt.NDArray[np.int64]:
    rows_of = np.zeros(GROUP_TABLE, np.int64)
    for groups in index.groups.blocks():
        rows_of += np.bincount(groups, minlength=GROUP_TABLE)
    return rows_of


def _chosen_groups(rows_of: npt.NDArray[np.int64], options: SplitOptions, what: str) -> npt.NDArray[np.bool_]:
    if options.eval_share:
        chosen = share_of_groups(len(rows_of), options.eval_share, options.seed)
    else:
        chosen = choose_groups(rows_of, options.eval_rows, options.seed)
    if options.holds_out and not rows_of[chosen].any():
        wanted = f"a share of {options.eval_share}" if options.eval_share else f"{options.eval_rows} rows"
        raise TunebookError(
            f"no {what} fits into a hold-out of {wanted}: the smallest group of rows with the same one has "
            f"{rows_of[rows_of > 0].min()}",
            fix="choose a larger --eval",
        )
    return chosen


def _by_group(index: RowIndex, options: SplitOptions) -> Iterator[Nodes]:
    rows_of = _rows_of_groups(index)
    held = _chosen_groups(rows_of, options, f"value of {options.group_by!r}")
    weights = rows_of
    if options.balance != "rows":
        weights = np.zeros(GROUP_TABLE, np.int64)
        for groups, sizes in _aligned(index.groups.blocks(), _sizes(index, options)):
            np.add.at(weights, groups, sizes.astype(np.int64))
    weights = np.where(held, 0, weights)
    present = int(((rows_of > 0) & ~held).sum())
    if options.nodes > present:
        raise TunebookError(
            f"cannot split {present} groups of {options.group_by!r} between {options.nodes} nodes",
            fix=f"choose --nodes between 1 and {present}",
        )
    # A group of empty texts has no tokens and still has to go somewhere: weigh it as one.
    node_of = assign.assign_groups(np.where((rows_of > 0) & ~held, np.maximum(weights, 1), 0), options.nodes)
    node_of[held] = EVAL
    for groups in index.groups.blocks():
        yield node_of[groups]


def _sizes(index: RowIndex, options: SplitOptions) -> Iterator[Numbers]:
    return index.tokens.blocks() if options.balance == "tokens" else index.row_bytes()


def _without(blocks: Iterable[Numbers], held: npt.NDArray[np.int64]) -> Iterator[Numbers]:
    """The blocks without the rows that are held out."""
    first = 0
    for block in blocks:
        begin, end = np.searchsorted(held, (first, first + len(block)))
        yield np.delete(block, held[begin:end] - first) if end > begin else block
        first += len(block)


def _with_holdout(assigned: Iterator[Nodes], held: npt.NDArray[np.int64], rows: int) -> Iterator[Nodes]:
    """The destinations of all rows, from those of the rows that are not held out."""
    if not len(held):
        yield from assigned
        return
    take = _taker(assigned)
    for start in range(0, rows, _BLOCK_ROWS):
        stop = min(start + _BLOCK_ROWS, rows)
        here = held[slice(*np.searchsorted(held, (start, stop)))] - start
        values = np.full(stop - start, EVAL, np.uint16)
        free = np.ones(stop - start, np.bool_)
        free[here] = False
        values[free] = take(stop - start - len(here))
        yield values


def _aligned(left: Iterator[Numbers], right: Iterator[Numbers]) -> Iterator[tuple[Numbers, Numbers]]:
    """Blocks of `left` with as many numbers of `right`; for kinds of spans, as many as there are rows."""
    take = _taker(right)
    for block in left:
        yield block, take(int((block == ROW).sum()) if block.dtype == np.uint8 else len(block))


def _taker(blocks: Iterator[Numbers]) -> Callable[[int], Numbers]:
    """A function that takes the next so many numbers out of blocks of any size."""
    kept: list[Numbers] = []

    def take(count: int) -> Numbers:
        have = sum(map(len, kept))
        while have < count:
            kept.append(next(blocks))
            have += len(kept[-1])
        values = np.concatenate(kept) if kept else np.empty(0, np.uint16)
        kept[:] = [values[count:]]
        return values[:count]

    return take


def _measure(index: RowIndex, options: SplitOptions) -> list[PartPlan]:
    parts = options.nodes + (1 if options.holds_out else 0)
    rows, sizes, tokens = (np.zeros(parts, np.int64) for _ in range(3))
    counted = _taker(index.tokens.blocks()) if options.balance == "tokens" else None
    for destinations, lengths in zip(index.row_destinations(), index.row_bytes(), strict=True):
        part = np.where(destinations == EVAL, options.nodes, destinations)
        rows += np.bincount(part, minlength=parts)
        sizes += _sums(part, lengths, parts)
        if counted is not None:
            tokens += _sums(part, counted(len(part)), parts)
    return [
        PartPlan(
            rows=int(rows[part]),
            bytes=int(sizes[part]),
            tokens=int(tokens[part]) if counted is not None else None,
        )
        for part in range(parts)
    ]


def _sums(part: Numbers, values: Numbers, parts: int) -> npt.NDArray[np.int64]:
    # In doubles, which are exact here: a block holds less than 2**53.
    return np.bincount(part, weights=values, minlength=parts).astype(np.int64)


def share_of_groups(groups: int, share: float, seed: int) -> npt.NDArray[np.bool_]:
    """Return which groups are held out where a share of all is: the same whatever rows there are."""
    chosen = np.zeros(groups, np.bool_)
    order = np.argsort(row_keys(seed, 0, groups), kind="stable")
    chosen[order[: max(1, round(groups * share))]] = True
    return chosen


def choose_groups(rows_of: npt.NDArray[np.int64], wanted: int, seed: int) -> npt.NDArray[np.bool_]:
    """Return which groups are held out: whole ones in random order, as long as they fit into `wanted` rows.

    Args:
        rows_of: Rows of each group; 0 for a group that is not there.
        wanted: Rows to hold out; fewer are where the last ones would need part of a group.
        seed: Decides the order.
    """
    chosen = np.zeros(len(rows_of), np.bool_)
    left = wanted
    for group in np.argsort(row_keys(seed, 0, len(rows_of)), kind="stable").tolist():
        size = int(rows_of[group])
        if 0 < size <= left:
            chosen[group] = True
            left -= size
        if not left:
            break
    return chosen
