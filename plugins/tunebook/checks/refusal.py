"""What a refusal is: a row of the tables in `llamafactory` and `axolotl`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from tunebook.checks.recipe import CheckedRecipe

CONFLICT = "settings-conflict"
"""Rule of two settings that are refused together."""
MISSING = "setting-missing"
"""Rule of a setting that another one, or every run, needs."""


class Refusal(NamedTuple):
    """One thing that an engine refuses when it reads a recipe, before data or model are loaded."""

    rule: str
    key: str
    """Where it is shown."""
    when: Callable[[CheckedRecipe], object]
    """Truthy where the engine refuses."""
    problem: str
    fix: str
    write: str | None = None
    """What `--fix` writes as the value of `key`; None where the fix is not mechanical."""
    since: str = "0"
    """The engine's first version that refuses it, of those that are supported."""
    until: str = "999"
    """The first version that takes it again."""


def together(one: str, other: str, fix: str = "remove one of them") -> Refusal:
    """Return the row of two keys that exclude each other."""
    return Refusal(
        CONFLICT,
        one,
        lambda s: s.get(one) and s.get(other),
        f"`{one}` and `{other}` cannot both be set",
        fix,
    )


def nested(recipe: CheckedRecipe, key: str, inner: str) -> Any:
    """Return one value of a mapping in the recipe; None where there is no such mapping."""
    value = recipe.get(key)
    return value.get(inner) if isinstance(value, dict) else None


def any_of(recipe: CheckedRecipe, keys: Iterable[str]) -> bool:
    """Whether one of `keys` has a value that counts as true."""
    return any(recipe.get(key) for key in keys)
