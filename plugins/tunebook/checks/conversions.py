"""Which values an engine takes for which types.

LLaMA-Factory converts nothing: a quoted number stays text, and fails, or is taken for true, much later.
Axolotl's pydantic converts what reads as the type, but no number to text.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tunebook.checks.number_like import as_number

if TYPE_CHECKING:
    from tunebook.checks.keys import Entry
    from tunebook.types import EngineName

_PYDANTIC_BOOLEANS = frozenset(["0", "off", "f", "false", "n", "no", "1", "on", "t", "true", "y", "yes"])

# Split at commas by LLaMA-Factory, so that a list does as well (`split_arg` in its argument classes).
_SPLIT = frozenset(
    {
        *("dataset", "eval_dataset", "interleave_probs", "freeze_trainable_modules", "freeze_extra_modules"),
        *("lora_target", "oft_target", "additional_target", "galore_target", "apollo_target"),
    }
)


def fits(engine: EngineName, entry: Entry, types: set[str]) -> bool:
    """Whether `engine` takes the value of `entry` for one of `types`, JSON Schema's names."""
    return _fits_llamafactory(entry, types) if engine == "llamafactory" else _fits_axolotl(entry, types)


def _fits_llamafactory(entry: Entry, types: set[str]) -> bool:
    value = entry.value
    if value is None:
        # Passed on as None, where the engine's own code has tests for most keys.
        return True
    if isinstance(value, bool):
        return "boolean" in types
    if isinstance(value, int):
        return bool({"integer", "number"} & types)
    if isinstance(value, float):
        return "number" in types
    if isinstance(value, str):
        return "string" in types
    if isinstance(value, list):
        return "array" in types or entry.name in _SPLIT
    return "object" in types or not isinstance(value, dict)


def _fits_axolotl(entry: Entry, types: set[str]) -> bool:
    value = entry.value
    if value is None:
        return "null" in types
    number = as_number(value)
    if "boolean" in types and (isinstance(value, bool) or number in (0, 1)):
        return True
    if "boolean" in types and isinstance(value, str) and value.lower() in _PYDANTIC_BOOLEANS:
        return True
    if {"integer", "number"} & types and isinstance(value, bool):
        return True
    if number is not None and ("number" in types or ("integer" in types and number == int(number))):
        return True
    if isinstance(value, str):
        return "string" in types
    if isinstance(value, list):
        return "array" in types
    return "object" in types if isinstance(value, dict) else False
