"""Rules about flash-attn: can it run here, is it there, does it load and compute right; and what is used."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from tunebook.doctor.facts import Finding
from tunebook.doctor.rules_environment import install, numbers
from tunebook.doctor.rules_machine import usable_gpus
from tunebook.doctor.wheel import RELEASES, SEEN, VERSION, is_published, wheel_name, wheel_url

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tunebook.doctor.facts import Environment, Machine, Needs, Severity

LEAST_CAPABILITY = (8, 0)
LEAST_CUDA = (11, 6)
LARGEST_DIFFERENCE = 0.05
"""Of two kernels in bf16: outputs are about 1, and its 8 bits leave steps of 0.008 there."""


class Attention(NamedTuple):
    """Which attention a run would use, and why."""

    kind: str
    why: str


def cannot_run(environment: Environment, machine: Machine) -> str | None:
    """Return why flash-attn cannot run in that environment on this machine; None where it can."""
    if not usable_gpus(machine):
        return "there is no GPU to run it on"
    for gpu in usable_gpus(machine):
        if gpu.capability is not None and gpu.capability < LEAST_CAPABILITY:
            major, minor = gpu.capability
            return f"{gpu.name} has compute capability {major}.{minor}; it needs 8.0 (Ampere)"
    if environment.torch is None:
        return "torch does not load"
    if environment.cuda is None:
        return "torch is built for the CPU"
    if numbers(environment.cuda) < LEAST_CUDA:
        return f"torch is built for CUDA {environment.cuda}; it needs 11.6"
    return None


def attention_in_use(environment: Environment, machine: Machine, asked: str) -> Attention:
    """Tell which attention a run in that environment uses.

    Args:
        environment: With the probe's answer.
        machine: What the node is.
        asked: As `Needs.attention`; auto where the recipe leaves it open.
    """
    if asked == "auto":
        return Attention("sdpa", "PyTorch's own; transformers takes it unless a recipe asks for another")
    if asked != "flash":
        return Attention(asked, "the recipe asks for it")
    reason = cannot_run(environment, machine)
    if reason is None and environment.flash.version is None:
        reason = "flash-attn is not installed"
    reason = reason or environment.flash.error or environment.flash.forward_error
    if reason is None:
        return Attention("flash", "the recipe asks for it, and it runs here")
    # transformers' is_flash_attn_2_available: LLaMA-Factory asks it before the model is loaded.
    seen = environment.flash.version is not None and environment.cuda_available
    if environment.engine == "llamafactory" and not seen:
        return Attention("sdpa", f"{reason}; LLaMA-Factory then takes PyTorch's with one line in the log")
    return Attention("none", f"{reason}; the run stops")


def judge_flash(environment: Environment, machine: Machine, needs: Needs | None) -> Iterator[Finding]:
    """Judge flash-attn in one environment; what a recipe asks for is graver."""
    asked = needs is not None and needs.engine == environment.engine and needs.attention == "flash"
    if environment.error is not None or (environment.torch is None and not asked):
        return
    flash, reason = environment.flash, cannot_run(environment, machine)
    missed: Severity = "warning" if asked else "hint"
    if reason is not None:
        yield _finding(environment, "flash-unfit", missed, f"flash-attn cannot run here: {reason}",
                       f"{_spell(environment, 'sdpa')}: PyTorch's attention runs everywhere")  # fmt: skip
    elif flash.version is None:
        yield _finding(
            environment, "flash-missing", missed, _missing(environment), _command(environment, machine)
        )
    elif flash.error is not None:
        yield _finding(
            environment,
            "flash-load",
            "error",
            f"flash-attn {flash.version} is installed and does not load: {flash.error}"
            + ("; it was built for another torch" if "undefined symbol" in flash.error else ""),
            _command(environment, machine),
        )
    elif flash.forward_error is not None:
        yield _finding(
            environment,
            "flash-forward",
            "error",
            f"flash-attn {flash.version} loads, and its forward pass fails: {flash.forward_error}",
            f"{_command(environment, machine)}; until then {_spell(environment, 'sdpa')}",
        )
    elif flash.difference is not None and not flash.difference <= LARGEST_DIFFERENCE:
        yield _finding(
            environment,
            "flash-differs",
            "error",
            f"flash-attn {flash.version} computes something else than PyTorch: they differ by "
            f"{flash.difference:.3g}",
            f"{_command(environment, machine)}; until then {_spell(environment, 'sdpa')}",
        )


def wheel_of(environment: Environment, machine: Machine) -> str | None:
    """Return the name of the wheel for that environment; None where none can be meant."""
    if not environment.torch or not environment.cuda or environment.abi is None or not environment.python:
        return None
    return wheel_name(
        environment.torch,
        environment.cuda,
        abi=environment.abi,
        python=environment.python,
        machine=machine.system.split()[-1],
    )


def _missing(environment: Environment) -> str:
    text = "flash-attn could run here and is not installed; PyTorch's attention is used"
    if environment.torch and not is_published(environment.torch, environment.cuda):
        seen = ", ".join(
            f"torch {'.'.join(map(str, oldest))} to {'.'.join(map(str, newest))} with CUDA {cuda}"
            for cuda, (oldest, newest) in SEEN.items()
        )
        text += (
            f". Wheels of {VERSION} were seen for {seen}; here is torch {environment.torch}: "
            f"look at {RELEASES} first"
        )
    return text


def _command(environment: Environment, machine: Machine) -> str:
    name = wheel_of(environment, machine)
    if name is None or environment.torch is None or not is_published(environment.torch, environment.cuda):
        return (
            f"{install(environment, 'flash-attn --no-build-isolation')} builds it with nvcc in 10 to 30 min"
        )
    return install(environment, wheel_url(name))


def _spell(environment: Environment, kind: str) -> str:
    key = "flash_attn" if environment.engine == "llamafactory" else "attn_implementation"
    return f"write {key}: {kind}"


def _finding(environment: Environment, rule: str, severity: Severity, message: str, fix: str) -> Finding:
    return Finding(rule=rule, severity=severity, where=environment.name, message=message, fix=fix)
