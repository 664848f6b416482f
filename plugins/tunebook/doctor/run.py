"""Gathers all facts, the slow ones at once, and puts them before the rules."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from tunebook import memory
from tunebook.doctor import environments, machine
from tunebook.doctor.facts import Facts, Finding, Needs
from tunebook.doctor.rules_environment import judge_environment, judge_flash
from tunebook.doctor.rules_machine import judge_machine, judge_network, usable_gpus
from tunebook.doctor.rules_recipe import judge_recipe
from tunebook.errors import TunebookError
from tunebook.memory.from_recipe import read_run
from tunebook.recipes.catalog import ENGINES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tunebook.memory import MemoryEstimate, Setup
    from tunebook.types import Recipe

_GRAVEST_FIRST = ("error", "warning", "hint")


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnosis:
    """What was found out and what it means."""

    facts: Facts
    findings: tuple[Finding, ...]
    """The gravest first."""

    @property
    def healthy(self) -> bool:
        """Whether there is nothing but hints."""
        return all(finding.severity == "hint" for finding in self.findings)


def examine(recipe: Recipe | None, done: Callable[[str], None]) -> Diagnosis:
    """Look at this machine, and at what a recipe needs of it.

    Args:
        recipe: Resolved; without one both engines' environments are looked at.
        done: Called, from several threads, with the name of each part that has been looked at.

    Raises:
        TunebookError: A variable names an environment without its engine, or the recipe cannot be read.
    """
    found = environments.find([recipe.engine] if recipe else ENGINES)
    output = Path(str(recipe.values.get("output_dir") or "output")) if recipe else Path("output")
    with ThreadPoolExecutor(max_workers=2) as pool:
        node = pool.submit(machine.gather_machine, output)
        net = pool.submit(machine.gather_network)
        asked = environments.ask_all(found, done)
        needs = needs_of(recipe, len(usable_gpus(node.result()))) if recipe else None
        facts = Facts(machine=node.result(), network=net.result(), environments=asked, needs=needs)
    return Diagnosis(facts=facts, findings=judge(facts))


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


# What one recipe asks of a node: GPU memory, host memory and disk, by `tunebook.memory`'s estimate.

_LLAMAFACTORY_ATTENTION = {"fa2": "flash", "fa3": "flash", "disabled": "eager", "sdpa": "sdpa"}


def needs_of(recipe: Recipe, gpus: int) -> Needs:
    """Estimate what a resolved recipe needs on a node with that many GPUs; 0 is taken for one.

    Raises:
        TunebookError: The recipe names no model, or a DeepSpeed file that cannot be read.
    """
    run = read_run(recipe)
    gpus = max(1, gpus)
    known = Needs(
        recipe=recipe.name,
        engine=recipe.engine,
        model=run.model,
        values=recipe.values,
        gpus=gpus,
        offload="optimizer" in (run.arguments.get("offload") or ()),
        attention=_attention(recipe),
    )
    try:
        setup = memory.read_setup(**run.arguments, gpus=gpus)
        found = memory.estimate_setup(memory.read_shape(memory.find_config(run.model)), setup)
    except TunebookError as error:
        return replace(known, unknown=error.problem)
    return replace(
        known,
        gpu_bytes=found.total,
        gpu_bytes_low=found.low,
        host_bytes=found.host,
        disk_bytes=disk_bytes(recipe, found, setup),
    )


def disk_bytes(recipe: Recipe, found: MemoryEstimate, setup: Setup) -> float:
    """Return the bytes of the checkpoints that are kept and of the one that is being written.

    An old checkpoint goes when the new one is whole, so one more than `save_total_limit` is on disk then.
    Without that limit two are counted: the run keeps all of them, and how many is not known here.
    """
    weights = 4 if setup.dtype in {"amp", "fp32"} else 2
    model = found.params * weights if setup.full else found.adapter_file
    checkpoint = model + (0 if recipe.values.get("save_only_model") else found.optimizer_file)
    kept = int(recipe.values.get("save_total_limit") or 1)
    return float(checkpoint * kept + max(checkpoint, model))


def _attention(recipe: Recipe) -> str:
    values = recipe.values
    if recipe.engine == "llamafactory":
        return _LLAMAFACTORY_ATTENTION.get(str(values.get("flash_attn")), "auto")
    named = str(values.get("attn_implementation") or "")
    if values.get("flash_attention") or named.startswith("flash_attention"):
        return "flash"
    return "eager" if values.get("eager_attention") or named == "eager" else named or "auto"
