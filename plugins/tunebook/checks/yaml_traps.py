"""Values that YAML reads as something else than they look like."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from tunebook.checks.recipe import as_number

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tunebook.checks.document import Place
    from tunebook.checks.findings import Finding
    from tunebook.checks.recipe import CheckedRecipe

_OCTAL = re.compile(r"^[+-]?0[0-7_]+$")
_SIXTIES = re.compile(r"^[+-]?\d+(?::[0-5]?\d)+(?:\.\d*)?$")
_EXPONENT = re.compile(r"^[+-]?\d+(?:\.\d*)?[eE][+-]?\d+$")

# Passed to other libraries as written; nothing turns text into numbers there.
_HANDED_ON = ("lr_scheduler_kwargs", "optim_args", "optim_target_modules", "gradient_checkpointing_kwargs")


INTERPOLATION = "interpolation"
"""Rule of a value that holds `${`; whatever else is said of such a value is its shadow."""


def check_yaml_traps(recipe: CheckedRecipe) -> Iterator[Finding]:
    """`octal-number`, `base-sixty-number`, `number-as-string`, `interpolation`."""
    yield from _interpolated(recipe)
    for path, place in recipe.places.items():
        if place.raw is None:
            continue
        value = _value_at(recipe.values, path)
        if not place.quoted and isinstance(value, (int, float)) and not isinstance(value, bool):
            yield from _misread_number(recipe, path, place, value)
        elif isinstance(value, str):
            yield from _text(recipe, path, place, value)


def _interpolated(recipe: CheckedRecipe) -> Iterator[Finding]:
    """One finding for a file, however many keys wait for a value."""
    paths = [path for path, place in recipe.places.items() if place.raw and recipe.interpolated(path)]
    if len(paths) == 1:
        yield recipe.error(
            paths[0],
            INTERPOLATION,
            f"no engine fills in ${{...}}: {recipe.places[paths[0]].raw!r} is used as it is written",
            fix="write the value out, or give it on the command line",
        )
    elif paths:
        yield recipe.error(
            paths[0],
            INTERPOLATION,
            f"{len(paths)} values hold ${{...}}, which no engine fills in: they are used as they are written",
            fix="fill them in, e.g. with envsubst, before checking",
        )


def _misread_number(recipe: CheckedRecipe, path: str, place: Place, value: float) -> Iterator[Finding]:
    raw = place.raw or ""
    if _OCTAL.match(raw) and int(raw.replace("_", "")) != value:
        decimal = raw.replace("_", "").lstrip("+-0") or "0"
        yield recipe.error(
            path,
            "octal-number",
            f"YAML reads {raw} as octal: {value}",
            fix=f"write {decimal}, or {value} if that is meant",
            edit=recipe.rewrite(path, decimal),
        )
    elif _SIXTIES.match(raw):
        yield recipe.error(
            path,
            "base-sixty-number",
            f"YAML reads {raw} in base sixty: {value}",
            fix=f"put it in quotes: '{raw}'",
            edit=recipe.rewrite(path, f"'{raw}'"),
        )


def _text(recipe: CheckedRecipe, path: str, place: Place, value: str) -> Iterator[Finding]:
    inner = path.partition(".")
    if recipe.engine == "axolotl" and inner[0] in _HANDED_ON and inner[1] and not place.quoted:
        number = as_number(value)
        if number is not None and _EXPONENT.match(value):
            written = _with_dot_and_sign(value)
            yield recipe.error(
                path,
                "number-as-string",
                f"Axolotl's YAML reads {value} as text, and passes it on as text",
                fix=f"write {written}",
                edit=recipe.rewrite(path, written),
            )


def _with_dot_and_sign(number: str) -> str:
    """As YAML 1.1 wants an exponent: `1e-4` becomes `1.0e-4`."""
    mantissa, _, exponent = number.lower().partition("e")
    dotted = mantissa if "." in mantissa else f"{mantissa}.0"
    return f"{dotted}e{exponent if exponent.startswith(('+', '-')) else f'+{exponent}'}"


def _value_at(values: Any, path: str) -> Any:
    """The value at a dotted path; None where an overlay or override has put something else there."""
    for part in re.findall(r"[^.\[\]]+|\[\d+\]", path):
        if part.startswith("["):
            index = int(part[1:-1])
            values = values[index] if isinstance(values, list) and index < len(values) else None
        else:
            values = values.get(part) if isinstance(values, dict) else None
    return values
