"""What is asked of a split, and the limits of what can be."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Balance = Literal["rows", "bytes", "tokens"]

DEFAULT_MEMORY = 256 << 20
"""Bytes."""
GROUP_TABLE = 1 << 20
"""Groups are told apart by 20 bits of a hash: two that fall together stay together, and memory is bounded."""
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
    group_by: str | None = None
    """Column whose equal values stay on one node."""
    tokenizer: str | None = None
    """File or folder, for `balance="tokens"`."""
    skip_bad: bool = False
    parse_json: bool | None = None
    """None: where the sources are no larger than `PARSE_JSON_UP_TO`."""
