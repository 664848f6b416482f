"""GPU memory of a fine-tuning run, from the model's `config.json` and the set-up only; imports no torch.

Formulas, their sources and the measured errors are in docs/memory.md.
"""

from tunebook.memory.families import read_shape
from tunebook.memory.levers import Lever, largest_batch, levers, longest_context, oom_ladder
from tunebook.memory.options import Arguments, Setup, read_setup
from tunebook.memory.shapes import find_config
from tunebook.memory.total import (
    EvaluationEstimate,
    MemoryEstimate,
    estimate,
    estimate_setup,
    evaluate_setup,
    generate_setup,
)

__all__ = [
    "Arguments", "EvaluationEstimate", "Lever", "MemoryEstimate", "Setup", "estimate", "estimate_setup",
    "evaluate_setup", "find_config", "generate_setup", "largest_batch",
    "levers", "longest_context", "oom_ladder", "read_setup", "read_shape",
]  # fmt: skip
