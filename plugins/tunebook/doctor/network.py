"""Gathers what the network gives: the own name, interfaces, the ports of torchrun, the hub."""

from __future__ import annotations

import fcntl
import os
import socket
import struct
import urllib.error
import urllib.request
from contextlib import suppress
from pathlib import Path

from tunebook.doctor.facts import Network

PORTS = range(29500, 29504)
"""What torchrun, DeepSpeed and accelerate listen on unless told otherwise, and the next three."""
HUB_SECONDS = 4.0

_SIOCGIFADDR = 0x8915  # linux/sockios.h
_TRUE = ("1", "on", "yes", "true")  # huggingface_hub/constants.py


def gather(ports: range = PORTS) -> Network:
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
        hub=hub,
        hub_error=None if offline else _hub_error(hub),
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
