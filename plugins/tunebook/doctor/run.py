"""Gathers all facts, the slow ones at once, and puts them before the rules."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tunebook.doctor import environments, machine, network
from tunebook.doctor.facts import Facts, Finding
from tunebook.doctor.needs import needs_of
from tunebook.doctor.rules_environment import judge_environment, judge_flash
from tunebook.doctor.rules_machine import judge_machine, judge_network, usable_gpus
from tunebook.doctor.rules_recipe import judge_recipe

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tunebook.types import EngineName, Recipe

_ENGINES: tuple[EngineName, ...] = ("llamafactory", "axolotl")
_GRAVEST_FIRST = ("error", "warning", "hint")


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What was found out and what it means."""

    facts: Facts
    findings: tuple[Finding, ...]
    """The gravest first."""

    @property
    def healthy(self) -> bool:
        """Whether there is nothing but hints."""
        return all(finding.severity == "hint" for finding in self.findings)


def examine(recipe: Recipe | None, done: Callable[[str], None]) -> Report:
    """Look at this machine, and at what a recipe needs of it.

    Args:
        recipe: Resolved; without one both engines' environments are looked at.
        done: Called, from several threads, with the name of each part that has been looked at.

    Raises:
        TunebookError: A variable names an environment without its engine, or the recipe cannot be read.
    """
    found = environments.find([recipe.engine] if recipe else _ENGINES)
    output = Path(str(recipe.values.get("output_dir") or "output")) if recipe else Path("output")
    with ThreadPoolExecutor(max_workers=2) as pool:
        node = pool.submit(machine.gather, output)
        net = pool.submit(network.gather)
        asked = environments.ask_all(found, done)
        needs = needs_of(recipe, len(usable_gpus(node.result()))) if recipe else None
        facts = Facts(machine=node.result(), network=net.result(), environments=asked, needs=needs)
    return Report(facts=facts, findings=judge(facts))


def judge(facts: Facts) -> tuple[Finding, ...]:
    """Return what every rule says of these facts, the gravest first."""
    found = sorted(_judge(facts), key=lambda finding: _GRAVEST_FIRST.index(finding.severity))
    return tuple(found)


def _judge(facts: Facts) -> Iterator[Finding]:
    if not facts.environments and facts.needs is None:
        yield Finding(
            rule="no-engine",
            severity="error",
            where="machine",
            message="neither LLaMA-Factory nor Axolotl is installed",
            fix="make setup or make setup-axolotl in a checkout, or set TUNEBOOK_LLAMAFACTORY_ENV or "
            "TUNEBOOK_AXOLOTL_ENV to an environment that has one",
        )
    if facts.needs is not None:
        yield from judge_recipe(facts, facts.needs)
    yield from judge_machine(facts.machine)
    for environment in facts.environments:
        yield from judge_environment(environment, facts.machine)
        yield from judge_flash(environment, facts.machine, facts.needs)
    yield from judge_network(facts.network)
