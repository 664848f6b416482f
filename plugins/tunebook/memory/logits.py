"""The output head: its logits are the largest tensor of most fine-tuning runs."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from tunebook.memory.inference import LOGITS_AT_A_TIME

if TYPE_CHECKING:
    from tunebook.memory.options import Setup
    from tunebook.memory.shapes import Shape

TRAINING = 14
"""Bytes per logit: bf16 logits 2, their fp32 copy 4, log-softmax 4, gradient 4."""
EVALUATION_HALF = 2
"""Bytes per logit in evaluation: the head's own output."""
EVALUATION_FLOAT = 4
"""Bytes per logit in evaluation: the fp32 copy for the loss."""


def training_logits(shape: Shape, setup: Setup) -> float:
    """Bytes of the logits and their loss at the peak of a training step.

    Plain cross-entropy takes 14 bytes per logit, 16 with an fp32 head. Liger's fused loss (arXiv:2410.10989)
    takes chunks of tokens; cut cross-entropy (arXiv:2411.09009) makes no logits at all.
    """
    tokens, vocab, hidden = setup.tokens, shape.vocab, shape.hidden
    if setup.fused_ce == "cce":
        return 4.0 * tokens * hidden
    if setup.fused_ce == "chunked":
        # torchtune: logits in eight chunks, the bf16 ones whole.
        return 2.0 * tokens * vocab + 4.0 * tokens * vocab / 8
    if setup.fused_ce == "liger":
        chunk = tokens / float(2 ** math.ceil(math.log2(max(vocab / hidden, 1))))
        head_gradient = vocab * hidden * 2 if setup.full else 0
        return chunk * vocab * 6.0 + tokens * hidden * 2.0 + head_gradient
    if setup.bits in {"gptq4", "gptq8"}:
        # These models run in fp16 throughout, the loss too: logits, shifted copy, log-softmax, gradient.
        return 8.0 * tokens * vocab
    fp32_head = setup.upcast or setup.dtype == "fp32"
    return float(TRAINING + (2 if fp32_head else 0)) * tokens * vocab


def evaluation_logits(
    shape: Shape, *, rows: int, seq_len: int, answer_tokens: int | None
) -> tuple[float, float]:
    """Bytes of the logits of one evaluation batch: the head's output, and its fp32 copy for the loss.

    Args:
        rows: `per_device_eval_batch_size`.
        answer_tokens: Positions of a row that the head is run on; None for all, as the engines do.
    """
    if answer_tokens is None:
        logits = rows * seq_len * shape.vocab
    else:
        # The head runs on a bounded number of answer positions at a time.
        logits = min(rows * min(answer_tokens, seq_len) * shape.vocab, LOGITS_AT_A_TIME)
    return float(logits * EVALUATION_HALF), float(logits * EVALUATION_FLOAT)
