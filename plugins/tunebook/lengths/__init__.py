"""How long the rows of a dataset are in tokens, as the engine builds them, and what its limit cuts off.

`counter` is for others: a fast and exact counter of tokens. The rest is what `tunebook data lengths` and
`tunebook data filter` are made of; see docs/lengths.md.
"""

from __future__ import annotations

from tunebook.lengths.counting import counter

__all__ = ["counter"]
