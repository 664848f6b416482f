"""Run by path in an engine's own environment: prints its torch and flash-attn as one line of JSON.

It must not import tunebook, which that environment may hold in another version or not at all.
"""

from __future__ import annotations

import importlib
import json
import math
import re
import sys
from importlib import metadata
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

MARK = "tunebook-probe: "
"""Begins the line: what packages print while they are imported is not ours to stop."""


def main(engine: str) -> None:
    """Print what this environment is."""
    found: dict[str, Any] = {
        "python": "{}.{}.{}".format(*sys.version_info[:3]),
        "unmet": _unmet(engine),
        "has_pip": find_spec("pip") is not None,
        "flash": {"version": _version("flash-attn")},
    }
    try:
        import torch
    except Exception as error:  # noqa: BLE001  # whatever it is, it is the answer
        found["torch_error"] = _short(error)
    else:
        found |= _torch(torch)
        if found["flash"]["version"] is not None:
            found["flash"] |= _flash(torch)
    print(MARK + json.dumps(found))


def _torch(torch: Any) -> dict[str, Any]:
    available = torch.cuda.is_available()
    return {
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "abi": torch._C._GLIBCXX_USE_CXX11_ABI,
        "cuda_available": available,
        "architectures": torch.cuda.get_arch_list() if available else _built_for(torch),
        # Not `is_bf16_supported`, which counts emulation in, and whose arguments differ between versions.
        "bf16": torch.cuda.get_device_capability() >= (8, 0) if available else None,
        "tf32": _told(lambda: bool(torch.backends.cuda.matmul.allow_tf32)) if available else None,
        "nccl": _told(lambda: ".".join(map(str, torch.cuda.nccl.version()))) if available else None,
    }


def _told(ask: Callable[[], Any]) -> Any:
    """What is good to know and comes and goes with torch's versions; None where it is not known."""
    try:
        return ask()
    except Exception:  # noqa: BLE001
        return None


def _built_for(torch: Any) -> list[str]:
    # `get_arch_list` is empty where no GPU can be used; the build knows all the same.
    flags = torch._C._cuda_getArchFlags() if hasattr(torch._C, "_cuda_getArchFlags") else None
    return str(flags).split() if flags else []


def _flash(torch: Any) -> dict[str, Any]:
    try:
        attention = importlib.import_module("flash_attn").flash_attn_func
    except Exception as error:  # noqa: BLE001  # an undefined symbol, a missing library, a removed name
        return {"error": _short(error)}
    if not torch.cuda.is_available():
        return {}
    try:
        generator = torch.Generator("cuda").manual_seed(0)
        # Rows, positions, heads, width: a length that is no multiple of a block.
        query, key, value = (
            torch.randn(2, 200, 4, 64, device="cuda", dtype=torch.bfloat16, generator=generator)
            for _ in range(3)
        )
        flash = attention(query, key, value, causal=True)
        plain = torch.nn.functional.scaled_dot_product_attention(
            *(tensor.transpose(1, 2) for tensor in (query, key, value)), is_causal=True
        ).transpose(1, 2)
        difference = (flash.float() - plain.float()).abs().max().item()
    except Exception as error:  # noqa: BLE001  # "only supports Ampere GPUs or newer", no kernel image
        return {"forward_error": _short(error)}
    if not math.isfinite(difference):
        return {"forward_error": "its outputs are not finite"}
    return {"difference": difference}


def _unmet(engine: str) -> list[str]:
    try:
        from packaging.requirements import Requirement
    except ImportError:
        return []
    found = []
    for line in metadata.requires(engine) or ():
        requirement = Requirement(line)
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        installed = _version(requirement.name)
        if installed is None:
            found.append(f"{requirement.name} is not installed")
        elif not requirement.specifier.contains(installed, prereleases=True):
            found.append(f"{requirement.name} {installed}, not {requirement.specifier}")
    return found


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _short(error: Exception) -> str:
    return re.sub(r"\s+", " ", f"{type(error).__name__}: {error}").strip()[:300]


if __name__ == "__main__":
    main(sys.argv[1])
