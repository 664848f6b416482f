"""Which row goes to which node, decided only by sizes, in memory that does not grow with the rows."""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Callable, Iterable, Iterator

import numpy as np
import numpy.typing as npt

Nodes = npt.NDArray[np.uint16]
Keys = npt.NDArray[np.uint64]
Sizes = npt.NDArray[np.unsignedinteger]

EVAL, NO_ROW = 65534, 65535
"""Destinations that are no node: the hold-out, and spans that are dropped."""
MAX_NODES = 4096

_OUTLIER_PER_MILLE = 5
"""A row above 0.5 % of a node's share is placed first; there are at most 200 such rows a node."""


def assign_in_turn(start: int, stop: int, nodes: int) -> Nodes:
    """Return the nodes of rows `start` to `stop`: 0, 1, ... and again from 0."""
    return (np.arange(start, stop, dtype=np.int64) % nodes).astype(np.uint16)


def assign_at_random(start: int, stop: int, nodes: int, seed: int) -> Nodes:
    """Return the nodes of rows `start` to `stop`; each run of `nodes` rows has one row for each node.

    Args:
        start: A multiple of `nodes`.
        stop: One too, or the number of rows.
        seed: Decides which row of a run goes where.
    """
    keys = row_keys(seed, start, start + -(-(stop - start) // nodes) * nodes)
    order = np.argsort(keys.reshape(-1, nodes), axis=1, kind="stable").astype(np.uint16)
    return order.reshape(-1)[: stop - start]


def assign_by_size(
    sizes: Callable[[], Iterable[Sizes]], rows: int, total: int, nodes: int
) -> Iterator[Nodes]:
    """Yield the nodes of all rows so that each node gets as many rows, give or take one, and alike sizes.

    Rows above 0.5 % of a node's share go first, the largest to the lightest node. The others follow in
    their order, in groups of one row a node, the longest of a group to the lightest node: two nodes then
    never differ by more than the widest group, or than the outliers had left.

    Args:
        sizes: Gives the sizes of the rows in blocks; called twice.
        rows: How many there are; at least `nodes`.
        total: Their sum.
        nodes: How many nodes; 1 to `MAX_NODES`.
    """
    limit = _OUTLIER_PER_MILLE * total // (1000 * nodes)
    assigner = _SizeAssigner(nodes)
    placed = _place_outliers(_outliers(sizes(), limit), rows, assigner)
    first = 0
    for block in sizes():
        large = np.flatnonzero(block > limit)
        fixed = {int(at): placed[first + int(at)] for at in large}
        yield from assigner.add_block(block, fixed)
        first += len(block)
    yield from assigner.finish()


def assign_groups(weights: npt.NDArray[np.int64], nodes: int) -> Nodes:
    """Return the node of each group, the heaviest to the lightest node; groups of weight 0 to node 0."""
    node_of = np.zeros(len(weights), np.uint16)
    loads = [(0, node) for node in range(nodes)]
    for group in np.argsort(-weights, kind="stable").tolist():
        weight = int(weights[group])
        if not weight:
            break
        load, node = loads[0]
        heapq.heapreplace(loads, (load + weight, node))
        node_of[group] = node
    return node_of


def _outliers(blocks: Iterable[Sizes], limit: int) -> list[tuple[int, int]]:
    """Size and row of each row above the limit, the largest first."""
    found = []
    first = 0
    for block in blocks:
        found += [(int(block[at]), first + int(at)) for at in np.flatnonzero(block > limit)]
        first += len(block)
    return sorted(found, key=lambda item: (-item[0], item[1]))


def _place_outliers(outliers: list[tuple[int, int]], rows: int, assigner: _SizeAssigner) -> dict[int, int]:
    nodes = len(assigner.loads)
    base, extra = divmod(rows, nodes)
    heap = [(0, node) for node in range(nodes)]
    placed = {}
    for size, row in outliers:
        # A node that is full drops out; `extra` nodes may take one row more.
        while True:
            load, node = heapq.heappop(heap)
            if assigner.counts[node] < base:
                break
            if extra and assigner.counts[node] == base:
                extra -= 1
                break
        assigner.add(node, size)
        placed[row] = node
        heapq.heappush(heap, (load + size, node))
    return placed


class _SizeAssigner:
    """Assigns the rows that are no outliers, in groups of one row a node; keeps back an unfinished group."""

    def __init__(self, nodes: int) -> None:
        self.loads = [0] * nodes
        self.counts = [0] * nodes
        self._order = list(range(nodes))
        self._even = False
        # Rows kept back: their sizes, and for outliers among them the node they have.
        self._sizes = np.empty(0, np.uint64)
        self._fixed: dict[int, int] = {}

    def add(self, node: int, size: int) -> None:
        self.loads[node] += size
        self.counts[node] += 1

    def add_block(self, sizes: Sizes, fixed: dict[int, int]) -> Iterator[Nodes]:
        held = len(self._sizes)
        self._fixed.update({held + at: node for at, node in fixed.items()})
        self._sizes = np.concatenate((self._sizes, sizes.astype(np.uint64)))
        free = np.ones(len(self._sizes), np.bool_)
        free[list(self._fixed)] = False
        usual = np.flatnonzero(free)
        chosen = self._assign_groups(self._sizes[usual])
        done = int(usual[len(chosen)]) if len(chosen) < len(usual) else len(self._sizes)
        nodes = np.empty(done, np.uint16)
        nodes[usual[: len(chosen)]] = chosen
        for at, node in self._fixed.items():
            if at < done:
                nodes[at] = node
        self._fixed = {at - done: node for at, node in self._fixed.items() if at >= done}
        self._sizes = self._sizes[done:]
        yield nodes

    def finish(self) -> Iterator[Nodes]:
        """Assign the last, smaller group: one row each to the lightest nodes."""
        nodes = np.empty(len(self._sizes), np.uint16)
        usual = [at for at in range(len(nodes)) if at not in self._fixed]
        for at, node in self._fixed.items():
            nodes[at] = node
        if usual:
            fewest = min(self.counts)
            receivers = [node for node in range(len(self.counts)) if self.counts[node] == fewest]
            nodes[usual] = self._assign_group(self._sizes[usual].tolist(), receivers)
        yield nodes

    def _assign_groups(self, sizes: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint16]:
        assigned: list[npt.NDArray[np.uint16]] = []
        done = 0
        # Nodes with fewer outliers catch up in rows first.
        while not self._even:
            fewest, most = min(self.counts), max(self.counts)
            receivers = [node for node in range(len(self.counts)) if self.counts[node] == fewest]
            if fewest == most:
                self._even = True
                break
            if len(sizes) - done < len(receivers):
                return np.concatenate([*assigned, np.empty(0, np.uint16)])
            group = sizes[done : done + len(receivers)].tolist()
            assigned.append(np.array(self._assign_group(group, receivers), np.uint16))
            done += len(receivers)
        assigned.append(self._assign_even(sizes[done:]))
        return np.concatenate(assigned)

    def _assign_group(self, sizes: list[int], receivers: list[int]) -> list[int]:
        """Assign at most one row to each receiver: the longest to the lightest."""
        longest = sorted(range(len(sizes)), key=lambda at: (-sizes[at], at))
        lightest = sorted(receivers, key=lambda node: (self.loads[node], node))
        chosen = [0] * len(sizes)
        for at, node in zip(longest, lightest, strict=False):
            chosen[at] = node
            self.add(node, sizes[at])
        return chosen

    def _assign_even(self, sizes: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint16]:
        """The same for whole groups, where each node receives: sorted all at once, assigned one by one."""
        nodes = len(self.loads)
        groups = len(sizes) // nodes
        table = sizes[: groups * nodes].reshape(groups, nodes).astype(np.int64)
        longest = np.argsort(-table, axis=1, kind="stable")
        sorted_sizes = np.take_along_axis(table, longest, axis=1)
        receivers: list[int] = []
        loads, order = self.loads, self._order
        for line in sorted_sizes.tolist():
            order.sort(key=loads.__getitem__)
            receivers += order
            for node, size in zip(order, line, strict=True):
                loads[node] += size
        for node in range(nodes):
            self.counts[node] += groups
        chosen = np.empty((groups, nodes), np.uint16)
        np.put_along_axis(chosen, longest, np.array(receivers, np.uint16).reshape(groups, nodes), axis=1)
        return chosen.reshape(-1)


_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_FIRST = np.uint64(0xBF58476D1CE4E5B9)
_SECOND = np.uint64(0x94D049BB133111EB)
_30, _27, _31 = np.uint64(30), np.uint64(27), np.uint64(31)


def row_keys(seed: int, start: int, stop: int) -> Keys:
    """Return the keys of rows `start` to `stop`, 64 bits each that look random.

    By hash rather than `random.shuffle`, whose order may change between Python versions, and because the
    key of a row needs no other row.

    Source: splitmix64 (Steele, Lea and Flood, 2014, https://doi.org/10.1145/2660193.2660195), of which the
    row is the counter and the hashed seed the start.
    """
    first = int.from_bytes(hashlib.sha256(f"tunebook split {seed}".encode()).digest()[:8], "little")
    with np.errstate(over="ignore"):
        x = np.arange(start, stop, dtype=np.uint64)
        x += np.uint64(1)
        x *= _GOLDEN
        x += np.uint64(first)
        x ^= x >> _30
        x *= _FIRST
        x ^= x >> _27
        x *= _SECOND
        x ^= x >> _31
    return x


def range_of(keys: Keys, ranges: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return in which of equal ranges of all keys each key is, from 0.

    Args:
        keys: As of `row_keys`.
        ranges: For each key into how many ranges the keys are divided; below 2**31.
    """
    return ((keys >> np.uint64(32)) * ranges.astype(np.uint64) >> np.uint64(32)).astype(np.int64)
