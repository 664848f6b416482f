"""Perplexity and bits per byte, from sums of negative log-likelihood.

Weighted by token over the whole evaluation set: the exponential of a mean of batch losses is another
number, which depends on the batch size and on how rows were padded.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence


def perplexity(nll: Sequence[float], tokens: Sequence[int]) -> float:
    """Exponential of the mean negative log-likelihood per token.

    Args:
        nll: Sum over each example's target tokens, in nats.
        tokens: Target tokens of each example.

    Raises:
        ValueError: The lengths differ or there are no tokens.

    >>> round(perplexity([math.log(2) * 3, math.log(8)], [3, 1]), 6)
    2.828427
    """
    return math.exp(_sum(nll, tokens) / _total(tokens))


def bits_per_byte(nll: Sequence[float], utf8_bytes: Sequence[int]) -> float:
    """Negative log-likelihood per UTF-8 byte of the target text, in bits.

    It does not depend on the tokenizer, so it compares models of different vocabularies.
    """
    return _sum(nll, utf8_bytes) / _total(utf8_bytes) / math.log(2)


def figures(nll: Sequence[float], tokens: Sequence[int], references: Sequence[str]) -> Mapping[str, float]:
    """`loss` in nats per token, `perplexity`, `bits_per_byte` and `target_tokens`."""
    utf8_bytes = [len(text.encode()) for text in references]
    loss = _sum(nll, tokens) / _total(tokens)
    result = {"loss": loss, "perplexity": math.exp(loss), "target_tokens": float(sum(tokens))}
    if sum(utf8_bytes):
        result["bits_per_byte"] = bits_per_byte(nll, utf8_bytes)
    return result


def _sum(nll: Sequence[float], weights: Sequence[int]) -> float:
    if len(nll) != len(weights):
        raise ValueError(f"{len(nll)} sums for {len(weights)} examples")
    return math.fsum(nll)


def _total(weights: Sequence[int]) -> int:
    total = sum(weights)
    if total <= 0:
        raise ValueError("perplexity needs at least one target token")
    return total
