"""Rules about one engine's environment: its versions, and whether its torch can use this machine's GPUs."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from tunebook.checks.packages import bad_pairs
from tunebook.doctor.facts import Finding
from tunebook.doctor.rules_machine import usable_gpus
from tunebook.engines.supported import PYTHON, outside, within

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from tunebook.doctor.facts import Environment, Machine, Needs, Severity


QWEN3 = (4, 51)
"""The first transformers with Qwen3."""

_OF_INTEREST = ("torch", "transformers", "peft", "trl", "accelerate", "datasets", "deepspeed", "bitsandbytes")


def judge_environment(environment: Environment, machine: Machine) -> Iterator[Finding]:
    """Judge one environment."""
    if environment.error is not None:
        yield _finding(
            environment,
            "environment",
            "error",
            environment.error,
            f"try {environment.path}/bin/python -c 'import torch'; make it anew with {_setup(environment)}",
        )
    elif environment.torch_error is not None:
        yield _finding(
            environment,
            "torch-import",
            "error",
            f"torch does not load: {environment.torch_error}",
            install(environment, f"--reinstall torch=={environment.versions.get('torch', '')}".rstrip("=")),
        )
    yield from _versions(environment)
    yield from _hook(environment)
    if environment.torch is not None and usable_gpus(machine):
        yield from _gpu(environment, machine)


def install(environment: Environment, what: str) -> str:
    """Return the command that installs `what` there; environments made by uv have no pip."""
    python = f"{environment.path}/bin/python"
    if environment.has_pip:
        return f"{python} -m pip install {what.replace('--reinstall', '--force-reinstall')}"
    return f"uv pip install --python {python} {what}"


def numbers(version: str) -> tuple[int, int]:
    """Return the first two numbers of a version; zeros where there are none."""
    found = re.match(r"(\d+)\.(\d+)", version)
    return (int(found[1]), int(found[2])) if found else (0, 0)


def _versions(environment: Environment) -> Iterator[Finding]:
    if environment.python is not None and not within(environment.python, PYTHON):
        yield _finding(
            environment,
            "python",
            "error",
            f"Python {environment.python}; tunebook needs 3.11, 3.12 or 3.13",
            _setup(environment),
        )
    for unmet in environment.unmet:
        name = unmet.split()[0]
        yield _finding(
            environment,
            "requirement",
            "error",
            f"{environment.engine} asks for another: {unmet}",
            install(environment, _constrained(environment, name)),
        )
    for condition, problem, fix in bad_pairs(environment.engine, environment.versions):
        only = f" (runs with {condition})" if condition and condition not in problem else ""
        yield _finding(environment, "bad-versions", "warning", f"{problem}{only}", fix)
    out = outside(environment.engine, environment.versions)
    if out:
        yield _finding(
            environment,
            "out-of-range",
            "warning",
            f"tunebook was not tried on {', '.join(out)}",
            f"where something fails, {_setup(environment)}",
        )
    differing = _untested(environment.versions, environment.tested)
    if differing:
        yield _finding(
            environment,
            "untested-versions",
            "hint",
            f"others than those tested: {', '.join(differing)}",
            f"where something fails, first {_setup(environment)}",
        )


def _untested(versions: Mapping[str, str], tested: Mapping[str, str]) -> list[str]:
    return [
        f"{name} {versions[name]} (tested: {tested[name]})"
        for name in _OF_INTEREST
        if name in versions and name in tested and versions[name].split("+")[0] != tested[name]
    ]


def _hook(environment: Environment) -> Iterator[Finding]:
    if environment.engine != "llamafactory" or environment.hook:
        return
    if environment.hook_off:
        message, fix = "TUNEBOOK_HOOK=0 is set", "unset TUNEBOOK_HOOK"
    else:
        message, fix = (
            "our start-up file is not there",
            install(environment, "--reinstall --no-deps tunebook"),
        )
    yield _finding(
        environment, "hook", "warning", f"{message}: evaluation in LLaMA-Factory reports no metrics", fix
    )


def _gpu(environment: Environment, machine: Machine) -> Iterator[Finding]:
    """Whether torch can use the cards that nvidia-smi shows."""
    if environment.cuda is None:
        yield _finding(
            environment,
            "cpu-torch",
            "error",
            f"torch {environment.torch} is built for the CPU, and there is a GPU",
            install(environment, "--reinstall torch --index-url https://download.pytorch.org/whl/"
                    f"{_index(machine)}"),
        )  # fmt: skip
        return
    built = numbers(environment.cuda)
    # Within one major version older drivers run newer builds (CUDA's minor version compatibility).
    if machine.driver_cuda is not None and machine.driver_cuda[0] < built[0]:
        yield _finding(
            environment,
            "driver",
            "error",
            f"torch is built for CUDA {environment.cuda}, the driver {machine.driver} runs up to "
            f"{machine.driver_cuda[0]}.{machine.driver_cuda[1]}",
            f"install a newer driver, or {install(environment, '--reinstall torch --index-url')} "
            f"https://download.pytorch.org/whl/{_index(machine)}",
        )
    elif not environment.cuda_available:
        yield _finding(
            environment,
            "cuda",
            "error",
            "nvidia-smi lists a GPU, and torch sees none",
            f"{environment.path}/bin/python -c 'import torch; torch.cuda.init()' says why; a driver that "
            "was updated needs a restart of the machine",
        )
    for gpu in {gpu.name: gpu for gpu in usable_gpus(machine)}.values():
        if gpu.capability and environment.architectures and not has_kernels(
            gpu.capability, environment.architectures
        ):  # fmt: skip
            yield _finding(
                environment,
                "no-kernels",
                "error",
                f"torch {environment.torch} has no kernels for {gpu.name} (compute capability "
                f"{gpu.capability[0]}.{gpu.capability[1]}); it has {', '.join(environment.architectures)}",
                "install a torch built for that card: builds for CUDA 12.6 still have those of older cards",
            )
    if machine.nvcc is not None and machine.nvcc[0] != built[0]:
        yield _finding(
            environment,
            "nvcc-version",
            "hint",
            f"nvcc is of CUDA {machine.nvcc[0]}.{machine.nvcc[1]}, torch of {environment.cuda}: extensions "
            "refuse to be built",
            f"set CUDA_HOME to a toolkit of CUDA {built[0]}",
        )
    yield from _precision(environment, machine)


def _precision(environment: Environment, machine: Machine) -> Iterator[Finding]:
    older = [gpu.name for gpu in usable_gpus(machine) if gpu.capability and gpu.capability < (8, 0)]
    if older:
        yield _finding(
            environment,
            "no-bf16",
            "hint",
            f"{older[0]} computes neither in bf16 nor in TF32: that takes compute capability 8.0",
            "write fp16: true and bf16: false in recipes",
        )
    elif environment.tf32 is False:
        yield _finding(
            environment,
            "tf32",
            "hint",
            "products of fp32 matrices are computed without TF32; runs in bf16 are hardly concerned",
            "write tf32: true in recipes that train in fp32",
        )


def has_kernels(capability: tuple[int, int], architectures: tuple[str, ...]) -> bool:
    """Whether code for one of `architectures` runs on a card of that compute capability.

    Machine code (`sm_`) runs within its major version, from its minor version on; portable code (`compute_`)
    on every later card.
    """
    for name in architectures:
        found = re.fullmatch(r"(sm|compute)_(\d+)(\d)[af]?", name)
        if found is None:
            continue
        built = (int(found[2]), int(found[3]))
        if built <= capability and (found[1] == "compute" or built[0] == capability[0]):
            return True
    return False


def _index(machine: Machine) -> str:
    major = machine.driver_cuda[0] if machine.driver_cuda else 13
    return "cu130" if major >= 13 else "cu126"


def _constrained(environment: Environment, name: str) -> str:
    return f"{name}=={environment.tested[name]}" if name in environment.tested else name


def _setup(environment: Environment) -> str:
    return "make setup" if environment.engine == "llamafactory" else "make setup-axolotl"


def _finding(environment: Environment, rule: str, severity: Severity, message: str, fix: str) -> Finding:
    return Finding(rule=rule, severity=severity, where=environment.name, message=message, fix=fix)


# Rules about flash-attn: can it run here, is it there, does it load and compute right; and what is used.

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


# Which file of flash-attn's releases fits an environment, by name.

VERSION = "2.8.3"
"""The release that is proposed."""
RELEASES = "https://github.com/Dao-AILab/flash-attention/releases"
SEEN: dict[int, tuple[tuple[int, int], tuple[int, int]]] = {12: ((2, 4), (2, 9)), 13: ((2, 9), (2, 10))}
"""The oldest and newest torch that wheels of `VERSION` were seen for, by CUDA; there may be others since."""

_PLAIN = re.compile(r"(\d+)\.(\d+)")


def wheel_name(
    torch: str,
    cuda: str,
    *,
    abi: bool,
    python: str,
    version: str = VERSION,
    machine: str = "x86_64",
) -> str:
    """Return the name of the wheel, as flash-attn's own setup.py composes it from release 2.7 on.

    Args:
        torch: `torch.__version__`, e.g. `2.5.1+cu124`.
        cuda: `torch.version.cuda`, e.g. `12.4`; only its first number counts.
        abi: `torch._C._GLIBCXX_USE_CXX11_ABI`.
        python: E.g. `3.11.7`.
        version: Of flash-attn, 2.7 or later: older names hold the minor number of CUDA too.
        machine: As `platform.machine()`; `x86_64` or `aarch64`.

    Raises:
        ValueError: One of the versions cannot be read.
    """
    major, minor = _numbers(torch)
    interpreter = "cp{}{}".format(*_numbers(python))
    build = f"cu{_numbers(cuda)[0]}torch{major}.{minor}cxx11abi{str(abi).upper()}"
    return f"flash_attn-{version}+{build}-{interpreter}-{interpreter}-linux_{machine}.whl"


def wheel_url(name: str) -> str:
    """Return where a wheel of that name is published."""
    return f"{RELEASES}/download/v{name.split('-')[1].split('+')[0]}/{name}"


def is_published(torch: str, cuda: str | None) -> bool:
    """Whether wheels of `VERSION` were seen for this torch and its CUDA."""
    seen = SEEN.get(_numbers(cuda)[0]) if cuda else None
    return seen is not None and seen[0] <= _numbers(torch) <= seen[1]


def _numbers(version: str) -> tuple[int, int]:
    found = _PLAIN.match(version)
    if found is None:
        raise ValueError(f"no version: {version!r}")
    return int(found[1]), int(found[2])
