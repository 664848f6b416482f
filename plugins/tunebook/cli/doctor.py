"""`tunebook doctor`: what this machine can run, what is in the way, and how to fix it."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from tunebook import paths
from tunebook.cli.parts import count_findings, overlay_option, print_finding
from tunebook.doctor.rules_environment import attention_in_use, is_published, wheel_of
from tunebook.doctor.run import Diagnosis, examine
from tunebook.recipes.overlays import resolve_named
from tunebook.redact import redact
from tunebook.text import gib

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tunebook.doctor.facts import Environment, Facts, Machine, Needs, Network
    from tunebook.types import Recipe

FORMAT = 1
"""Version of the JSON; it rises when a key changes its meaning or goes."""


@click.command("doctor")
@click.argument("recipe", required=False)
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
@overlay_option
@click.option("--json", "as_json", is_flag=True, help="Print facts and findings as JSON; sizes in bytes.")
@click.pass_context
def doctor(
    ctx: click.Context,
    recipe: str | None,
    overrides: tuple[str, ...],
    overlay_names: tuple[str, ...],
    as_json: bool,
) -> None:
    """Show what this machine can run, and what to fix first.

    Driver, GPUs, memory, disk, limits, network and tokens (whether there, never which); in each engine's
    environment versions, torch and flash-attn, which is run and compared where it can be. With RECIPE also
    whether that fits here. Exit status: 0 well (hints do not count), 1 findings, 2 wrong use.

    \b
    Example:
      tunebook doctor llamafactory/qwen3-32b/full_sft_csv_chat
    """
    root = paths.home() / "recipes"
    report = _examine(resolve_named(recipe, root, overlay_names, overrides).recipe if recipe else None)
    if as_json:
        click.echo(json.dumps(_plain(report), indent=2))
    else:
        _print(report)
    ctx.exit(0 if report.healthy else 1)


def _examine(recipe: Recipe | None) -> Diagnosis:
    """Show on stderr what has answered: importing torch takes seconds."""
    from rich.console import Console

    console = Console(stderr=True)
    answered: list[str] = []
    with console.status("asking the engines' environments what they are") as line:

        def done(name: str) -> None:
            answered.append(name)
            line.update(f"asking the engines' environments what they are; answered: {', '.join(answered)}")

        return examine(recipe, done)


def _plain(report: Diagnosis) -> dict[str, Any]:
    facts = report.facts
    plain: dict[str, Any] = {"format": FORMAT, **asdict(facts)}
    for shown, environment in zip(plain["environments"], facts.environments, strict=True):
        kind, why = attention_in_use(environment, facts.machine, _asked(facts, environment))
        shown["attention"] = {"kind": kind, "why": why}
        shown["flash"]["wheel"] = wheel_of(environment, facts.machine)
    if plain["needs"] is not None:
        plain["needs"]["values"] = redact(dict(facts.needs.values)) if facts.needs else {}
    plain["findings"] = [asdict(finding) for finding in report.findings]
    plain["healthy"] = report.healthy
    return plain


def _print(report: Diagnosis) -> None:
    lines = list(_lines(report.facts))
    width = max(len(name) for name, _ in lines)
    for name, text in lines:
        # Not wrapped: names of wheels are there to be copied.
        click.echo(f"{click.style(name.ljust(width), bold=True)}  {text}")
    click.echo()
    for finding in report.findings:
        print_finding(finding.where, finding.severity, finding.rule, finding.message, finding.fix)
    found = count_findings((one.severity for one in report.findings), ("error", "warning", "hint"))
    click.echo(f"{'well' if report.healthy else 'not well'}: {found or 'nothing found'}", err=True)


def _lines(facts: Facts) -> Iterator[tuple[str, str]]:
    yield from _machine_lines(facts.machine)
    yield from _network_lines(facts.network)
    for environment in facts.environments:
        yield from _environment_lines(facts, environment)
    if facts.needs is not None:
        yield "recipe", f"{facts.needs.recipe}: {_needs_text(facts.needs)}"


def _machine_lines(machine: Machine) -> Iterator[tuple[str, str]]:
    yield "system", f"{machine.system}, Python {machine.python}, {machine.cpus} CPUs"
    runs = f", runs CUDA up to {_version(machine.driver_cuda)}" if machine.driver_cuda else ""
    yield "driver", f"NVIDIA {machine.driver}{runs}" if machine.driver else "no NVIDIA driver"
    for number, gpu in enumerate(machine.gpus):
        capability = f", compute capability {_version(gpu.capability)}" if gpu.capability else ""
        used = f", {gib(gpu.used)} in use" if gpu.used is not None else ""
        yield f"GPU {number}", f"{gpu.name}, {gib(gpu.memory) if gpu.memory else '?'}{used}{capability}"
    memory = f"{gib(machine.memory)}" if machine.memory else "?"
    free = f", {gib(machine.memory_available)} available" if machine.memory_available else ""
    yield "memory", f"{memory}{free}"
    yield "disk", f"{gib(machine.disk_free)} free for {machine.disk_folder}"
    home = f", CUDA_HOME={machine.cuda_home}" if machine.cuda_home else ""
    yield "compilers", f"nvcc {_version(machine.nvcc) or 'none'}, g++ {_yes(machine.compiler)}{home}"
    locked = "unlimited" if machine.locked_memory is None else f"{machine.locked_memory // 1024} KiB"
    yield "limits", f"{machine.open_files or 'unlimited'} open files, {locked} of locked memory"
    yield "tokens", ", ".join(f"{name} {_yes(there)}" for name, there in machine.tokens.items())


def _network_lines(network: Network) -> Iterator[tuple[str, str]]:
    interfaces = ", ".join(f"{name} {address}" for name, address in network.interfaces.items())
    chosen = "".join(f", {name}={value}" for name, value in network.chosen.items())
    yield (
        "network",
        f"{network.host} is {', '.join(network.addresses) or '?'}; {interfaces or 'none'}{chosen}",
    )
    busy = f"in use: {', '.join(map(str, network.busy_ports))}" if network.busy_ports else "free"
    yield "ports", f"29500 to 29503 {busy}"
    answer = "not asked: HF_HUB_OFFLINE" if network.offline else network.hub_error or "answers"
    yield "hub", f"{network.hub}: {answer}"


def _environment_lines(facts: Facts, environment: Environment) -> Iterator[tuple[str, str]]:
    shown = ("llamafactory", "axolotl", "transformers", "peft", "trl", "accelerate", "deepspeed")
    versions = ", ".join(f"{n} {environment.versions[n]}" for n in shown if n in environment.versions)
    hook = f", hook {'on' if environment.hook else 'off'}" if environment.engine == "llamafactory" else ""
    yield environment.name, f"{environment.path}: Python {environment.python}{hook}"
    yield "", versions
    if environment.torch is None:
        yield "  torch", environment.error or environment.torch_error or "?"
        return
    build = f"CUDA {environment.cuda}" if environment.cuda else "CPU"
    abi = "" if environment.abi is None else f", cxx11abi{str(environment.abi).upper()}"
    nccl = f", NCCL {environment.nccl}" if environment.nccl else ""
    seen = "sees a GPU" if environment.cuda_available else "sees no GPU"
    yield "  torch", f"{environment.torch}, built for {build}{abi}{nccl}; {seen}"
    if environment.cuda_available:
        yield "  precision", f"bf16 {_yes(environment.bf16)}, TF32 {'on' if environment.tf32 else 'off'}"
    kind, why = attention_in_use(environment, facts.machine, _asked(facts, environment))
    yield "  attention", f"{kind}: {why}"
    yield "  flash-attn", _flash_text(facts, environment)


def _flash_text(facts: Facts, environment: Environment) -> str:
    flash = environment.flash
    if flash.version is None:
        wheel = wheel_of(environment, facts.machine)
        if wheel is None or environment.torch is None:
            return "not installed"
        seen = is_published(environment.torch, environment.cuda)
        return f"not installed; its wheel would be {wheel}{'' if seen else ', not seen among the releases'}"
    if flash.difference is not None:
        return f"{flash.version}, runs; differs from PyTorch's by {flash.difference:.3g} at most"
    return f"{flash.version}, {flash.error or flash.forward_error or 'loads; not run without a GPU'}"


def _needs_text(needs: Needs) -> str:
    if needs.gpu_bytes is None:
        return f"no estimate: {needs.unknown}"
    host = f", {gib(needs.host_bytes)} of host memory" if needs.host_bytes else ""
    return f"about {gib(needs.gpu_bytes)} a GPU on {needs.gpus}{host}, {gib(needs.disk_bytes)} of disk"


def _asked(facts: Facts, environment: Environment) -> str:
    needs = facts.needs
    return needs.attention if needs is not None and needs.engine == environment.engine else "auto"


def _version(version: tuple[int, int] | None) -> str:
    return ".".join(map(str, version)) if version else ""


def _yes(there: bool | None) -> str:
    return "yes" if there else "no"
