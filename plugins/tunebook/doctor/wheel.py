"""Which file of flash-attn's releases fits an environment, by name alone."""

from __future__ import annotations

import re

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
