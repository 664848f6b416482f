"""Numbers that look random and are the same on every machine and Python: splitmix64 of seed and row."""

from __future__ import annotations

import hashlib

import numpy as np
import numpy.typing as npt

Keys = npt.NDArray[np.uint64]

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_FIRST = np.uint64(0xBF58476D1CE4E5B9)
_SECOND = np.uint64(0x94D049BB133111EB)
_30, _27, _31 = np.uint64(30), np.uint64(27), np.uint64(31)


def row_keys(seed: int, start: int, stop: int) -> Keys:
    """Return the keys of rows `start` to `stop`, 64 random bits each.

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
    """Return which of equal ranges of all keys each key lies in, from 0.

    Args:
        keys: As of `row_keys`.
        ranges: For each key into how many ranges the keys are divided; below 2**31.
    """
    return ((keys >> np.uint64(32)) * ranges.astype(np.uint64) >> np.uint64(32)).astype(np.int64)
