"""Rules about the node and its network, whatever is installed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tunebook.doctor.facts import Finding
from tunebook.runs import provenance
from tunebook.text import gib

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tunebook.doctor.facts import Gpu, Machine, Network, Severity

_GIB = 2**30
LEAST_SHARED_MEMORY = _GIB
LEAST_OPEN_FILES = 4096
LEAST_DISK = 10 * _GIB


def usable_gpus(machine: Machine) -> tuple[Gpu, ...]:
    """Return the cards that a run would see.

    CUDA_VISIBLE_DEVICES is taken to number cards as nvidia-smi does, which CUDA itself does among cards of
    one kind, or with CUDA_DEVICE_ORDER=PCI_BUS_ID. Where it names them otherwise, the first ones are taken.
    """
    if machine.visible is None:
        return machine.gpus
    count = provenance.visible_gpus(len(machine.gpus), {"CUDA_VISIBLE_DEVICES": machine.visible})
    numbers = [number.strip() for number in machine.visible.split(",")[:count]]
    if all(number.isdigit() and int(number) < len(machine.gpus) for number in numbers):
        return tuple(machine.gpus[int(number)] for number in numbers)
    return machine.gpus[:count]


def judge_machine(machine: Machine) -> Iterator[Finding]:
    """Judge GPUs, memory, disk, limits and compilers."""
    yield from _gpus(machine)
    yield from _compilers(machine)
    if machine.disk_free < LEAST_DISK:
        yield _finding(
            "disk-low",
            "warning",
            f"{gib(machine.disk_free)} free for {machine.disk_folder}: one model may be more",
            "free some space, or set output_dir to a larger disk",
        )
    if machine.shared_memory is not None and machine.shared_memory < LEAST_SHARED_MEMORY:
        yield _finding(
            "shared-memory",
            "warning",
            f"the shared memory (/dev/shm) has {machine.shared_memory // 2**20} MiB: NCCL and the data "
            "loader's workers die with a bus error when it is full",
            "start the container with --shm-size=16g or --ipc=host",
        )
    if machine.open_files is not None and machine.open_files < LEAST_OPEN_FILES:
        yield _finding(
            "open-files",
            "hint",
            f"at most {machine.open_files} open files a process: many data workers may reach it",
            "ulimit -n 65536 before the run, or nofile in /etc/security/limits.conf",
        )
    if machine.infiniband and machine.locked_memory is not None:
        yield _finding(
            "locked-memory",
            "warning",
            f"at most {machine.locked_memory // 1024} KiB of locked memory: NCCL cannot register the "
            "buffers of InfiniBand",
            "ulimit -l unlimited before the run, memlock in limits.conf, or --ulimit memlock=-1 for Docker",
        )


def _gpus(machine: Machine) -> Iterator[Finding]:
    if not machine.gpus:
        yield _finding(
            "no-gpu",
            "hint",
            "no NVIDIA GPU: recipes run on the CPU, which is only of use for tiny models",
            "on a machine with a GPU install its driver, so that nvidia-smi lists it; in a container start "
            "with --gpus all",
        )
        return
    usable = usable_gpus(machine)
    if not usable:
        yield _finding(
            "gpus-hidden",
            "error",
            f"CUDA_VISIBLE_DEVICES={machine.visible!r} hides every one of the {len(machine.gpus)} GPUs",
            "unset CUDA_VISIBLE_DEVICES, or name cards from 0",
        )
    for number, gpu in enumerate(usable):
        if gpu.used is not None and gpu.memory and gpu.used > max(_GIB, gpu.memory // 20):
            yield _finding(
                "gpu-busy",
                "warning",
                f"GPU {number} ({gpu.name}) has {gib(gpu.used)} of {gib(gpu.memory)} in use",
                "nvidia-smi shows by whom (in a container it may show no process); wait, end it, or leave "
                "this card out with CUDA_VISIBLE_DEVICES",
            )
    if len({(gpu.name, gpu.memory) for gpu in usable}) > 1:
        yield _finding(
            "mixed-gpus",
            "warning",
            f"different GPUs: {', '.join(gpu.name for gpu in usable)}; each step waits for the slowest "
            "and must fit the smallest",
            "export CUDA_DEVICE_ORDER=PCI_BUS_ID, and choose cards of one kind with CUDA_VISIBLE_DEVICES",
        )


def _compilers(machine: Machine) -> Iterator[Finding]:
    if machine.cuda_home is not None and not machine.cuda_home_exists:
        yield _finding(
            "cuda-home",
            "warning",
            f"CUDA_HOME={machine.cuda_home} is no folder: what is compiled at run time fails",
            "unset CUDA_HOME, or set it to the toolkit's folder (the one that holds bin/nvcc)",
        )
    if machine.gpus and machine.nvcc is None:
        yield _finding(
            "no-nvcc",
            "hint",
            "no nvcc: flash-attn cannot be built here, nor DeepSpeed's optimizer for the CPU",
            "take a ready wheel, or install the CUDA toolkit of torch's CUDA version and set CUDA_HOME to it",
        )
    if machine.gpus and not machine.compiler:
        yield _finding(
            "no-compiler",
            "warning",
            "no g++: Triton's and DeepSpeed's kernels are compiled at run time",
            "apt-get install g++",
        )


def judge_network(network: Network) -> Iterator[Finding]:
    """Judge the own name, the ports and the hub."""
    unresolved = not network.addresses
    if not network.chosen and (unresolved or all(a.startswith("127.") for a in network.addresses)):
        to = "nothing" if unresolved else ", ".join(network.addresses)
        name = network.default_interface or next(iter(network.interfaces), "eth0")
        yield Finding(
            rule="own-name",
            severity="hint",
            where="network",
            message=f"{network.host} resolves to {to}: gloo listens there, and no other node can reach it; "
            "a single node is not affected",
            fix=f"for a joint job over nodes: export GLOO_SOCKET_IFNAME={name} NCCL_SOCKET_IFNAME={name}, "
            "and give the master by its IP address",
        )
    for variable, name in network.chosen.items():
        # NCCL takes several, prefixes, and `=` or `^` before them.
        plain = name.lstrip("=^").split(",")[0]
        if network.interfaces and not any(known.startswith(plain) for known in [*network.interfaces, "lo"]):
            yield Finding(
                rule="interface",
                severity="error",
                where="network",
                message=f"{variable}={name}, and there is no such interface with an address",
                fix=f"set it to one of: {', '.join(network.interfaces)}",
            )
    if network.busy_ports:
        first = 29500 in network.busy_ports
        yield Finding(
            rule="ports",
            severity="warning" if first else "hint",
            where="network",
            message=f"in use: port {', '.join(map(str, network.busy_ports))}"
            + ("; torchrun's usual one is among them" if first else ""),
            fix=f"export MASTER_PORT={network.free_port} (free now); see who has one with ss -ltnp",
        )
    if network.hub_error is not None:
        yield Finding(
            rule="hub",
            severity="warning",
            where="network",
            message=f"{network.hub} does not answer ({network.hub_error}): models and data must be here "
            "already",
            fix="export HF_HUB_OFFLINE=1 to use what is cached without waiting, or HF_ENDPOINT for a mirror, "
            "or HTTPS_PROXY for a proxy",
        )


def _finding(rule: str, severity: Severity, message: str, fix: str) -> Finding:
    return Finding(rule=rule, severity=severity, where="machine", message=message, fix=fix)
