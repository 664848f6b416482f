"""Rules about one recipe on this node: memory, disk, precision, compilers and tokens that it takes."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from tunebook.doctor.facts import Finding
from tunebook.doctor.rules_environment import QWEN3, install, numbers
from tunebook.doctor.rules_machine import usable_gpus
from tunebook.text import gib

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tunebook.doctor.facts import Environment, Facts, Machine, Needs, Severity

_GATED = re.compile(r"^(google/gemma|meta-llama/)", re.IGNORECASE)


def judge_recipe(facts: Facts, needs: Needs) -> Iterator[Finding]:
    """Judge one recipe; every finding names it."""
    machine = facts.machine
    environment = next((one for one in facts.environments if one.engine == needs.engine), None)
    if environment is None:
        yield _finding(needs, "no-engine", "error", f"{needs.engine} is not installed", _install(needs))
    elif "qwen3" in needs.model.lower() and numbers(environment.versions.get("transformers", "9.0")) < QWEN3:
        yield _finding(
            needs,
            "qwen3",
            "error",
            f"{needs.model} needs transformers 4.51 or newer",
            install(environment, "'transformers>=4.51'"),
        )
    yield from _memory(needs, machine, environment)
    yield from _disk_and_host(needs, machine)
    yield from _precision(needs, machine)
    yield from _tokens(needs, machine)
    if needs.offload and usable_gpus(machine) and not (machine.nvcc and machine.compiler):
        yield _finding(
            needs,
            "offload-compiler",
            "error",
            "its optimizer is offloaded: DeepSpeed compiles Adam for the CPU, and "
            f"{'there is no g++' if machine.nvcc else 'there is no nvcc'}",
            "install g++ and the CUDA toolkit of torch's CUDA version, and set CUDA_HOME to it",
        )


def _memory(needs: Needs, machine: Machine, environment: Environment | None) -> Iterator[Finding]:
    if needs.gpu_bytes is None or needs.gpu_bytes_low is None:
        yield _finding(
            needs,
            "no-estimate",
            "hint",
            f"its memory is not known: {needs.unknown}",
            "tunebook estimate RECIPE --config PATH takes the model's config.json",
        )
        return
    estimate = f"the estimate is {gib(needs.gpu_bytes)} a GPU on {needs.gpus}"
    smaller = f"tunebook estimate {needs.recipe} --gpus {needs.gpus} says what saves how much"
    if not usable_gpus(machine) or (environment is not None and environment.cuda is None):
        if machine.memory_available is not None and needs.gpu_bytes_low > machine.memory_available:
            yield _finding(
                needs,
                "memory",
                "error",
                f"no GPU can be used, and {gib(machine.memory_available)} of memory are free: {estimate}",
                "train it on a machine with GPUs",
            )
        return
    sizes = [gpu.memory for gpu in usable_gpus(machine) if gpu.memory is not None]
    if sizes and needs.gpu_bytes > min(sizes):
        # Below the lower end of the interval no published measurement of such an estimate was found to fit.
        surely = needs.gpu_bytes_low > min(sizes)
        yield _finding(
            needs,
            "memory",
            "error" if surely else "warning",
            f"{'does not fit' if surely else 'may not fit'} a GPU of {gib(min(sizes))}: {estimate}",
            smaller,
        )


def _disk_and_host(needs: Needs, machine: Machine) -> Iterator[Finding]:
    if machine.memory is not None and needs.host_bytes > machine.memory:
        yield _finding(
            needs,
            "host-memory",
            "error",
            f"offloads {gib(needs.host_bytes)} to host memory, and the machine has {gib(machine.memory)}",
            "offload less, divide over more nodes, or train adapters",
        )
    if needs.disk_bytes > machine.disk_free:
        yield _finding(
            needs,
            "disk",
            "error",
            f"keeps {gib(needs.disk_bytes)} of checkpoints and model, and {machine.disk_folder} has "
            f"{gib(machine.disk_free)} free",
            "set output_dir to a larger disk, save_total_limit: 1, or save_only_model: true",
        )


def _precision(needs: Needs, machine: Machine) -> Iterator[Finding]:
    older = [gpu for gpu in usable_gpus(machine) if gpu.capability is not None and gpu.capability < (8, 0)]
    if older and needs.values.get("bf16") is True:
        yield _finding(
            needs,
            "bf16",
            "error",
            f"asks for bf16, which {older[0].name} does not compute in",
            "set bf16: false and fp16: true",
        )
    if older and needs.values.get("tf32") is True:
        yield _finding(
            needs,
            "tf32",
            "error",
            f"asks for TF32, which {older[0].name} does not have",
            "take tf32 out of the recipe",
        )


def _tokens(needs: Needs, machine: Machine) -> Iterator[Finding]:
    if _GATED.match(needs.model) and not machine.tokens.get("HF_TOKEN"):
        yield _finding(
            needs,
            "hub-token",
            "warning",
            f"{needs.model} needs its licence accepted on the hub, and there is no token",
            "accept the licence on the model's page, then export HF_TOKEN=... or hf auth login",
        )
    to = needs.values.get("report_to")
    wandb = "wandb" in str(to) or needs.values.get("use_wandb") or needs.values.get("wandb_project")
    if wandb and not machine.tokens.get("WANDB_API_KEY"):
        yield _finding(
            needs,
            "wandb-key",
            "warning",
            "reports to W&B, and there is no key: a run without a terminal stops at the question for it",
            "export WANDB_API_KEY=... or wandb login, or WANDB_MODE=offline",
        )


def _install(needs: Needs) -> str:
    return "make setup" if needs.engine == "llamafactory" else "make setup-axolotl"


def _finding(needs: Needs, rule: str, severity: Severity, message: str, fix: str) -> Finding:
    return Finding(rule=rule, severity=severity, where=needs.recipe, message=message, fix=fix)
