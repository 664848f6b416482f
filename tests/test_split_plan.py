"""Who gets which row: decided only by numbers, so a hundred million rows can be tried."""

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tunebook.splits import assign, plan
from tunebook.splits.assign import row_keys
from tunebook.splits.plan import SplitOptions, plan_rows

HUNDRED_MILLION = r"""
import re
from pathlib import Path
import numpy as np
from tunebook.splits.plan import SplitOptions, plan_rows
counts = np.zeros(65536, np.int64)
held = np.arange(0, 100_000_000, 100_000)
for block in plan_rows(SplitOptions(nodes=64, eval_rows=1000), 100_000_000, held):
    counts += np.bincount(block, minlength=65536)
assert counts[65534] == 1000, counts[65534]
assert counts[:64].sum() == 99_999_000 and counts[:64].max() - counts[:64].min() <= 1
print(re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())[1])
"""


def assign_sizes(sizes, nodes: int, block: int = 1000) -> np.ndarray:
    sizes = np.asarray(sizes, np.uint32)
    blocks = lambda: (sizes[at : at + block] for at in range(0, len(sizes), block))  # noqa: E731
    return np.concatenate(list(assign.assign_by_size(blocks, len(sizes), int(sizes.sum()), nodes)))


def test_the_plan_never_changes():
    # Users make a split again months later, on another machine: this is a promise, not a snapshot.
    planned = lambda **options: np.concatenate(list(plan_rows(SplitOptions(nodes=3, **options), 10))).tolist()  # noqa: E731
    assert row_keys(0, 0, 2).tolist() == [604562178097698480, 5383724024530725443]
    assert planned(shuffle=False) == [0, 1, 2, 0, 1, 2, 0, 1, 2, 0]
    assert planned() == [0, 2, 1, 1, 2, 0, 0, 1, 2, 1]
    assert planned(seed=7) == [1, 2, 0, 1, 2, 0, 1, 2, 0, 1]
    held = np.array([0, 6])
    options = SplitOptions(nodes=3, eval_rows=2, shuffle=False)
    assert np.concatenate(list(plan_rows(options, 10, held))).tolist() == [
        65534,
        0,
        1,
        2,
        0,
        1,
        65534,
        2,
        0,
        1,
    ]
    assert np.flatnonzero(plan.share_of_groups(1000, 0.003, seed=0)).tolist() == [67, 72, 94]
    assert assign_sizes([5, 900, 5, 5, 7, 5, 5, 5, 5, 6], 3).tolist() == [2, 0, 1, 2, 1, 1, 2, 0, 0, 2]


def test_a_row_has_the_same_key_wherever_counting_begins():
    whole = row_keys(3, 0, 100)
    assert np.array_equal(np.concatenate((row_keys(3, 0, 37), row_keys(3, 37, 100))), whole)
    assert len(set(whole.tolist())) == 100
    assert not set(whole.tolist()) & set(row_keys(4, 0, 100).tolist())


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_hundred_million_rows_are_planned_in_the_memory_of_a_few():
    done = subprocess.run([sys.executable, "-c", HUNDRED_MILLION], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 100_000  # kB


@settings(max_examples=200)
@given(
    sizes=st.lists(st.one_of(st.integers(0, 20), st.integers(0, 10_000)), min_size=1, max_size=60),
    nodes=st.integers(1, 12),
    block=st.integers(1, 9),
)
def test_row_counts_are_equal_whatever_the_sizes(sizes, nodes, block):
    nodes = min(nodes, len(sizes))
    assigned = assign_sizes(sizes, nodes, block)
    assert len(assigned) == len(sizes)
    counts = np.bincount(assigned, minlength=nodes)
    assert counts.max() - counts.min() <= 1
    assert np.array_equal(assigned, assign_sizes(sizes, nodes, 10**6)), "blocks are no part of the plan"


@pytest.mark.parametrize(("nodes", "spread"), [(2, 0.0005), (8, 0.001), (64, 0.005)])
def test_long_tails_are_balanced(nodes, spread):
    rng = np.random.default_rng(0)
    sizes = np.exp(rng.normal(6, 1, 200_000)).astype(np.int64)
    sizes[rng.integers(0, len(sizes), 20)] = rng.integers(350_000, 1_050_000, 20)
    assigned = assign_sizes(sizes, nodes)
    loads = np.bincount(assigned, weights=sizes)
    assert (loads.max() - loads.min()) / loads.mean() < spread
    counts = np.bincount(assigned)
    assert counts.max() == counts.min()


@given(rows=st.integers(1, 300), nodes=st.integers(1, 9), seed=st.integers(0, 2**40))
def test_each_run_of_rows_goes_to_all_nodes(rows, nodes, seed):
    assigned = assign.assign_at_random(0, rows, nodes, seed)
    assert len(assigned) == rows
    for start in range(0, rows, nodes):
        run = assigned[start : start + nodes].tolist()
        assert len(set(run)) == len(run)
        assert max(run) < nodes


def test_a_hold_out_of_groups_takes_whole_ones_that_fit():
    rows_of = np.array([5, 0, 3, 100, 2, 4])
    chosen = plan.choose_groups(rows_of, 9, seed=1)
    assert 0 < rows_of[chosen].sum() <= 9
    assert not chosen[3]
    assert not chosen[1]
