"""Settings that an engine refuses to take together, or without another: one table for each engine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from tunebook.checks.findings import Finding
    from tunebook.checks.subject import Subject
    from tunebook.types import EngineName

CONFLICT = "settings-conflict"
"""Rule of two settings that are refused together."""
MISSING = "setting-missing"
"""Rule of a setting that another one, or every run, needs."""


class Refusal(NamedTuple):
    """One thing that an engine refuses when it reads a recipe, before data or model are loaded."""

    rule: str
    key: str
    """Where it is shown."""
    when: Callable[[Subject], object]
    """Truthy where the engine refuses."""
    problem: str
    fix: str
    write: str | None = None
    """What `--fix` writes as the value of `key`; None where the mend is not mechanical."""


def check_refusals(subject: Subject) -> Iterator[Finding]:
    """Every row of the engine's table that the recipe meets."""
    for row in refusals(subject.engine):
        # An overlay by itself is checked for what stands in it, not for what it leaves to its recipes.
        if row.when(subject) and not (row.rule == MISSING and subject.partial):
            yield subject.finding(
                row.key,
                rule=row.rule,
                severity="error",
                message=row.problem,
                fix=row.fix,
                edit=subject.rewrite(row.key, row.write) if row.write is not None else None,
            )


def together(one: str, other: str, fix: str = "remove one of them") -> Refusal:
    """Return the row of two keys that exclude each other."""
    return Refusal(
        CONFLICT,
        one,
        lambda s: s.get(one) and s.get(other),
        f"`{one}` and `{other}` cannot both be set",
        fix,
    )


def nested(subject: Subject, key: str, inner: str) -> Any:
    """Return one value of a mapping in the recipe; None where there is no such mapping."""
    value = subject.get(key)
    return value.get(inner) if isinstance(value, dict) else None


def any_of(subject: Subject, keys: Iterable[str]) -> bool:
    """Whether one of `keys` has a value that counts as true."""
    return any(subject.get(key) for key in keys)


def refusals(engine: EngineName) -> tuple[Refusal, ...]:
    """Return the engine's table. A table imports `Refusal`, so it is imported here, late."""
    if engine == "llamafactory":
        from tunebook.checks.llamafactory_refusals import TABLE
    else:
        from tunebook.checks.axolotl_refusals import TABLE
    return TABLE
