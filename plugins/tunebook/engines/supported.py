"""The versions that tunebook is made for: one table for the documents, `doctor`, `check` and the tests."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tunebook.types import EngineName

NAMES: Mapping[EngineName, str] = {"llamafactory": "LLaMA-Factory", "axolotl": "Axolotl"}
"""Engines as their makers write them."""

PYTHON = ">=3.11,<3.14"


class Supported(NamedTuple):
    """What of one engine is supported."""

    ranges: Mapping[str, str]
    """Distribution -> the versions that it may have, as pip writes a range."""
    pinned: Mapping[str, str]
    """Distribution -> the version that `make setup` installs, and all tests run on."""


SUPPORTED: Mapping[EngineName, Supported] = {
    "llamafactory": Supported(
        # Up to its main branch, which calls itself 0.9.6.dev0.
        ranges={"llamafactory": ">=0.9.4,<0.9.7", "transformers": ">=4.57,<5.9"},
        pinned={"llamafactory": "0.9.5", "transformers": "5.5.4"},
    ),
    "axolotl": Supported(
        # Each release of Axolotl asks for one version of transformers.
        ranges={"axolotl": ">=0.16.1,<0.20", "transformers": ">=5.5,<5.17"},
        pinned={"axolotl": "0.19.0", "transformers": "5.16.1"},
    ),
}


def outside(engine: EngineName, versions: Mapping[str, str]) -> list[str]:
    """Return those of the installed `versions` that are out of their range, each with the range.

    >>> outside("axolotl", {"axolotl": "0.20.0", "torch": "2.13.0"})
    ['axolotl 0.20.0 (made for >=0.16.1,<0.20)']
    """
    ranges = SUPPORTED[engine].ranges
    return [
        f"{name} {versions[name]} (made for {wanted})"
        for name, wanted in ranges.items()
        if versions.get(name) and not within(versions[name], wanted)
    ]


def within(version: str, wanted: str) -> bool:
    """Whether a version lies in a range.

    >>> within("0.10.0", ">=0.9.4,<0.20"), within("4.57.1", ">=4.57,<5.9"), within("0.20.0", "<0.20")
    (True, True, False)
    """
    here = _numbers(version)
    tests = {">=": lambda other: here >= other, "<": lambda other: here < other}
    return all(tests[part.rstrip("0123456789.")](_numbers(part.lstrip("<>="))) for part in wanted.split(","))


def _numbers(version: str) -> tuple[int, ...]:
    numbers: list[int] = []
    for part in version.partition("+")[0].split("."):
        if not part.isdigit():
            break  # .dev0 and the like: of the release that it leads to
        numbers.append(int(part))
    while numbers and numbers[-1] == 0:
        numbers.pop()
    return tuple(numbers)
