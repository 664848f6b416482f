"""The records that gatherers fill in and rules read. Sizes are bytes; None is what could not be found out."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tunebook.types import EngineName

Severity = Literal["error", "warning", "hint"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that is in the way, or is worth knowing, with its fix."""

    rule: str
    """Id; docs/doctor.md explains each."""
    severity: Severity
    """An error stops a run, a warning makes it slow or fragile, a hint asks for nothing today."""
    where: str
    """`machine`, `network`, the name of an environment's folder, or the recipe."""
    message: str
    fix: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """One card, as nvidia-smi shows it."""

    name: str
    memory: int | None
    used: int | None
    capability: tuple[int, int] | None
    """Compute capability, e.g. (8, 0)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """The node itself, without any environment."""

    system: str
    """E.g. `Linux 6.1.0 x86_64`."""
    python: str
    cpus: int
    """That this process may use."""
    memory: int | None
    memory_available: int | None
    disk_free: int
    """Of the folder that runs write to."""
    disk_folder: str
    shared_memory: int | None
    """Size of `/dev/shm`."""
    driver: str | None
    driver_cuda: tuple[int, int] | None
    """The newest CUDA that the driver runs."""
    gpus: tuple[Gpu, ...]
    visible: str | None
    """`CUDA_VISIBLE_DEVICES`."""
    nvcc: tuple[int, int] | None
    """Version of the CUDA compiler on PATH or below CUDA_HOME."""
    cuda_home: str | None
    """The variable, where it is set."""
    cuda_home_exists: bool
    compiler: bool
    """Whether there is a g++."""
    open_files: int | None
    """Soft limit; None for no limit."""
    locked_memory: int | None
    """Soft limit in bytes; None for no limit."""
    infiniband: bool
    tokens: Mapping[str, bool]
    """Whether each is there, by its variable's name; never its value."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """What several processes and the hub need of the network."""

    host: str
    addresses: tuple[str, ...]
    """What the own name resolves to."""
    interfaces: Mapping[str, str]
    """IPv4 address by name, without the loopback."""
    default_interface: str | None
    """The one with the default route."""
    chosen: Mapping[str, str]
    """GLOO_SOCKET_IFNAME and NCCL_SOCKET_IFNAME, where set."""
    busy_ports: tuple[int, ...]
    free_port: int
    hub: str
    """The address that was tried."""
    hub_error: str | None
    """Why it did not answer; None where it did, or was not asked."""
    offline: bool
    """HF_HUB_OFFLINE is set: nothing was asked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Flash:
    """The package flash-attn in one environment."""

    version: str | None
    error: str | None = None
    """What importing it raised."""
    forward_error: str | None = None
    """What its forward pass on the GPU raised; None where it ran, or there was nothing to run it on."""
    difference: float | None = None
    """Largest absolute difference from PyTorch's attention in bf16, on random inputs of unit variance."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Environment:
    """One engine's environment, as its own Python describes it."""

    name: str
    """Of its folder."""
    path: str
    engine: EngineName
    python: str | None
    versions: Mapping[str, str]
    tested: Mapping[str, str]
    """Versions in `constraints/`, where they are at hand."""
    unmet: tuple[str, ...] = ()
    """Requirements of the engine that what is installed does not meet."""
    hook: bool = False
    """Whether our start-up file is there and not switched off."""
    hook_off: bool = False
    """TUNEBOOK_HOOK=0 is set."""
    has_pip: bool = False
    error: str | None = None
    """Why its Python said nothing."""
    torch: str | None = None
    torch_error: str | None = None
    cuda: str | None = None
    """CUDA that torch was built for; None for a CPU build."""
    abi: bool | None = None
    """torch was built with the C++11 ABI."""
    cuda_available: bool = False
    architectures: tuple[str, ...] = ()
    """That torch has kernels for, e.g. `sm_80`."""
    bf16: bool | None = None
    """Whether the first GPU computes in bf16; None without one."""
    tf32: bool | None = None
    """Whether fp32 matrix products use TF32 unless a recipe says otherwise; None without a GPU."""
    nccl: str | None = None
    flash: Flash = field(default_factory=lambda: Flash(version=None))


@dataclass(frozen=True, slots=True, kw_only=True)
class Needs:
    """What one recipe asks of this node."""

    recipe: str
    engine: EngineName
    model: str
    values: Mapping[str, Any]
    gpus: int
    """That the estimate was made for."""
    gpu_bytes: float | None = None
    """Per GPU, likely; None where the model is not known."""
    gpu_bytes_low: float | None = None
    host_bytes: float = 0.0
    disk_bytes: float = 0.0
    """The checkpoints that are kept at once and the final model."""
    offload: bool = False
    """DeepSpeed's optimizer on the CPU is compiled on this machine."""
    attention: str = "sdpa"
    """That the recipe asks for: flash, sdpa, eager or auto."""
    unknown: str | None = None
    """Why there is no estimate."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """Everything that was found out."""

    machine: Machine
    network: Network
    environments: tuple[Environment, ...]
    needs: Needs | None = None
