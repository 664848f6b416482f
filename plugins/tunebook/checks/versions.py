"""Versions that are known not to work together, read from the engine's environment without starting it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from tunebook.checks.findings import Finding
    from tunebook.checks.subject import Subject
    from tunebook.types import EngineName

PACKAGES = ("transformers", "torch", "torchaudio", "torchvision")
"""Distributions the pairs below are about."""


def bad_pairs(engine: EngineName, versions: Mapping[str, str]) -> list[tuple[str, str, str]]:
    """Return (condition, problem, fix) for each pair known to be bad.

    Args:
        engine: Whose environment it is.
        versions: Installed versions by distribution.

    Returns:
        `condition` is the `key: value` of a recipe that it takes, or empty where every run is concerned.
    """
    found = []
    transformers = versions.get("transformers", "")
    if engine == "llamafactory" and transformers == "5.6.0":
        found.append(
            (
                "flash_attn: fa2",
                "transformers 5.6.0 breaks flash_attn: fa2 (LLaMA-Factory issue 10610)",
                "pip install -c constraints/llamafactory.txt 'tunebook[llamafactory]'",
            )
        )
    if engine == "llamafactory" and transformers == "4.57.0":
        found.append(("", "LLaMA-Factory excludes transformers 4.57.0", "install another version of it"))
    builds = {name: re.search(r"\+(cu\d+|cpu|rocm[\d.]+)$", versions.get(name, "")) for name in PACKAGES[1:]}
    named = {name: match[1] for name, match in builds.items() if match}
    if len(set(named.values())) > 1:
        listed = ", ".join(f"{name} {build}" for name, build in named.items())
        found.append(("", f"built for different CUDA versions: {listed}", "install all from one index"))
    return found


def check_versions(subject: Subject) -> Iterator[Finding]:
    """`bad-versions`, of the environment that `tunebook train` would use."""
    if subject.environment is None:
        return
    versions = {name: subject.installed(name) for name in PACKAGES}
    for condition, problem, fix in bad_pairs(subject.engine, versions):
        key, _, value = condition.partition(": ")
        if condition and str(subject.get(key)) != value:
            continue
        yield subject.finding(
            key or None,
            rule="bad-versions",
            severity="warning",
            message=f"{subject.environment.name}: {problem}",
            fix=fix,
        )
