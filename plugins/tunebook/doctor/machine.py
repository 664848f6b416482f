"""Gathers what the node is: GPUs, memory, disk, limits, compilers, tokens and network. Starts no torch."""

from __future__ import annotations

import fcntl
import netrc
import os
import platform
import re
import resource
import shutil
import socket
import struct
import subprocess
import urllib.error
import urllib.request
from contextlib import suppress
from pathlib import Path

from tunebook import files, paths
from tunebook.doctor.facts import Gpu, Machine, Network
from tunebook.redact import redact_text

_MIB = 2**20
# Of the table's head; drivers differ in the middle word.
_DRIVER_CUDA = r"CUDA (?:UMD )?Version: *(\d+)\.(\d+)"
_FIELDS = "name,memory.total,memory.used,compute_cap,driver_version"


def gather_machine(disk_folder: Path) -> Machine:
    """Look at this machine. Nothing is started but nvidia-smi and nvcc, each for at most 15 s.

    Args:
        disk_folder: Where runs write; need not exist.
    """
    meminfo = _meminfo()
    gpus, driver = parse_gpus(
        _output(["nvidia-smi", f"--query-gpu={_FIELDS}", "--format=csv,noheader,nounits"])
    )
    cuda_home = os.environ.get("CUDA_HOME") or os.environ.get("CUDA_PATH")
    return Machine(
        system=f"{platform.system()} {platform.release()} {platform.machine()}",
        python=platform.python_version(),
        cpus=len(os.sched_getaffinity(0)),
        memory=_within_cgroup(meminfo.get("MemTotal")),
        memory_available=_within_cgroup(meminfo.get("MemAvailable")),
        disk_free=files.free_bytes(disk_folder),
        disk_folder=str(disk_folder),
        shared_memory=shutil.disk_usage("/dev/shm").total if Path("/dev/shm").is_dir() else None,  # noqa: S108
        driver=driver,
        driver_cuda=_version_in(_DRIVER_CUDA, _output(["nvidia-smi"])) if driver else None,
        gpus=gpus,
        visible=os.environ.get("CUDA_VISIBLE_DEVICES"),
        nvcc=_nvcc(cuda_home),
        cuda_home=cuda_home,
        cuda_home_exists=cuda_home is not None and Path(cuda_home).is_dir(),
        compiler=shutil.which("g++") is not None,
        open_files=_limit(resource.RLIMIT_NOFILE),
        locked_memory=_limit(resource.RLIMIT_MEMLOCK),
        infiniband=any(Path("/sys/class/infiniband").glob("*")),
        tokens={"HF_TOKEN": _has_hub_token(), "WANDB_API_KEY": _has_wandb_key()},
    )


def parse_gpus(text: str) -> tuple[tuple[Gpu, ...], str | None]:
    """Read nvidia-smi's table of `_FIELDS`, in CSV without units, into cards and the driver's version."""
    gpus, driver = [], None
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.split(",")]
        if len(cells) != 5:
            continue
        name, memory, used, capability, driver = cells
        gpus.append(
            Gpu(
                name=name,
                memory=_mib(memory),
                used=_mib(used),
                capability=_version_in(r"^(\d+)\.(\d+)$", capability),
            )
        )
    return tuple(gpus), driver


def _mib(cell: str) -> int | None:
    return int(cell) * _MIB if cell.isdigit() else None  # "[N/A]"


def _version_in(pattern: str, text: str) -> tuple[int, int] | None:
    found = re.search(pattern, text)
    return (int(found[1]), int(found[2])) if found else None


def _nvcc(cuda_home: str | None) -> tuple[int, int] | None:
    below = Path(cuda_home) / "bin" / "nvcc" if cuda_home else None
    program = str(below) if below is not None and below.is_file() else "nvcc"
    return _version_in(r"release (\d+)\.(\d+)", _output([program, "--version"]))


def _meminfo() -> dict[str, int]:
    found = {}
    with suppress(OSError):
        for line in Path("/proc/meminfo").read_text().splitlines():
            name, _, size = line.partition(":")
            if size.endswith("kB"):
                found[name] = int(size.split()[0]) * 1024
    return found


def _within_cgroup(size: int | None) -> int | None:
    """A container may use less than the machine has."""
    for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        with suppress(OSError, ValueError):
            limit = int(Path(path).read_text())
            return limit if size is None else min(size, limit)
    return size


def _limit(kind: int) -> int | None:
    soft = resource.getrlimit(kind)[0]
    return None if soft == resource.RLIM_INFINITY else soft


def _has_hub_token() -> bool:
    # huggingface_hub/constants.py
    file = Path(os.environ.get("HF_TOKEN_PATH", paths.hub_home() / "token")).expanduser()
    named = any(os.environ.get(name) for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"))
    return named or (file.is_file() and file.stat().st_size > 0)


def _has_wandb_key() -> bool:
    if os.environ.get("WANDB_API_KEY"):
        return True
    with suppress(OSError, netrc.NetrcParseError):
        return netrc.netrc().authenticators("api.wandb.ai") is not None
    return False


def _output(argv: list[str]) -> str:
    """What a program prints; empty where there is none, it fails or it hangs."""
    try:
        done = subprocess.run(argv, capture_output=True, text=True, errors="replace", timeout=15, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout if done.returncode == 0 else ""


# The network: the own name, interfaces, the ports of torchrun, the hub.

PORTS = range(29500, 29504)
"""What torchrun, DeepSpeed and accelerate listen on by default, and the next three."""
HUB_SECONDS = 4.0

_SIOCGIFADDR = 0x8915  # linux/sockios.h
_TRUE = ("1", "on", "yes", "true")  # huggingface_hub/constants.py


def gather_network(ports: range = PORTS) -> Network:
    """Look at the network; asks the hub once, for at most `HUB_SECONDS`, unless HF_HUB_OFFLINE is set."""
    hub = os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")
    offline = os.environ.get("HF_HUB_OFFLINE", "").lower() in _TRUE
    host = socket.gethostname()
    return Network(
        host=host,
        addresses=_addresses(host),
        interfaces=_interfaces(),
        default_interface=_default_interface(),
        chosen={
            name: os.environ[name]
            for name in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME")
            if os.environ.get(name)
        },
        busy_ports=tuple(port for port in ports if not _is_free(port)),
        free_port=_any_free_port(),
        hub=redact_text(hub),
        hub_error=None if offline else redact_text(_hub_error(hub) or "") or None,
        offline=offline,
    )


def _addresses(host: str) -> tuple[str, ...]:
    with suppress(OSError):
        found = socket.getaddrinfo(host, None, socket.AF_INET, socket.SOCK_STREAM)
        return tuple(dict.fromkeys(str(entry[4][0]) for entry in found))
    return ()


def _interfaces() -> dict[str, str]:
    found = {}
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        for _, name in socket.if_nameindex():
            # One without an IPv4 address is an error.
            with suppress(OSError):
                request = struct.pack("256s", name.encode()[:15])
                address = socket.inet_ntoa(fcntl.ioctl(probe, _SIOCGIFADDR, request)[20:24])
                if not address.startswith("127."):
                    found[name] = address
    return found


def _default_interface() -> str | None:
    with suppress(OSError):
        for line in Path("/proc/net/route").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[1] == "00000000":
                return fields[0]
    return None


def _is_free(port: int) -> bool:
    with socket.socket() as listener:
        # As torch's store does: a port that only waits out an ended connection can be had.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("", port))
        except OSError:
            return False
    return True


def _any_free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("", 0))
        return int(listener.getsockname()[1])


def _hub_error(hub: str) -> str | None:
    try:
        # A proxy of the environment is used, as the engines' own downloads do.
        with urllib.request.urlopen(f"{hub}/api/models?limit=1", timeout=HUB_SECONDS):  # noqa: S310
            return None
    except urllib.error.HTTPError as error:
        # A refusal is an answer, unless the server itself is ill.
        return f"HTTP {error.code}" if error.code >= 500 else None
    except (OSError, ValueError) as error:
        return str(getattr(error, "reason", error))
