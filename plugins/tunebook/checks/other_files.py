"""Files beside a recipe: batch scripts, DeepSpeed configurations and dataset registries."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

from tunebook.checks.deepspeed import config_faults, read_config
from tunebook.checks.findings import Finding
from tunebook.checks.registry import entry_faults
from tunebook.data.registry import REGISTRY_FILE, load_registry
from tunebook.errors import TunebookError
from tunebook.recipes import nested
from tunebook.recipes.engine_yaml import read_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

SCRIPTS = frozenset({".sh", ".slurm", ".sbatch"})
"""Suffixes of batch scripts."""

_DIRECTIVE = re.compile(r"^#SBATCH\s+(.*)")
_VARIABLE = re.compile(r"\$\{?[A-Za-z_]\w*\}?|\$\(")


def checker_of(path: Path) -> Callable[[Path, str], Iterator[Finding]] | None:
    """Return what checks a file that is no recipe; None for a recipe."""
    if path.suffix in SCRIPTS:
        return check_script
    if path.suffix == ".json":
        if path.name == REGISTRY_FILE:
            return check_registry_file
        return None if nested.is_recipe(read_config(path)[0]) else check_json
    return None


def check_script(path: Path, file: str) -> Iterator[Finding]:
    """`sbatch-variable`: SLURM reads its lines before any shell does."""
    started = False
    for number, line in enumerate(read_text(path).splitlines(), 1):
        directive = _DIRECTIVE.match(line)
        if directive is None:
            started = started or bool(line.strip() and not line.startswith("#"))
            continue
        variable = _VARIABLE.search(directive[1].partition(" #")[0])
        if variable:
            yield _finding(
                file, number, "sbatch-variable", line,
                f"SLURM fills in no variables here: {variable[0]} is taken as it stands",
                "write the value out, or give it to sbatch on the command line",
            )  # fmt: skip
        elif started:
            yield _finding(
                file, number, "sbatch-late", line,
                "SLURM reads no #SBATCH line after the first command",
                "move it up, below #!/bin/bash",
            )  # fmt: skip


def check_json(path: Path, file: str) -> Iterator[Finding]:
    """`deepspeed-config`."""
    config, fault = read_config(path)
    if fault is not None:
        yield _finding(file, None, "deepspeed-config", None, fault, "mend it")
        return
    lines = read_text(path).splitlines()
    for key, message, fix in config_faults(config):
        last = key.rpartition(".")[2]
        number = next((number for number, line in enumerate(lines, 1) if f'"{last}"' in line), None)
        text = None if number is None else lines[number - 1]
        yield _finding(file, number, "deepspeed-config", text, f"{key}: {message}", fix)


def check_registry_file(path: Path, file: str) -> Iterator[Finding]:
    """The rules of a registry, for each of its entries."""
    try:
        registry = load_registry(path)
    except TunebookError as error:
        yield _finding(file, None, "missing-registry", None, error.problem, error.fix)
        return
    lines = read_text(path).splitlines()
    for name in registry.values:
        opening = f"{json.dumps(name, ensure_ascii=False)}:"
        number = next((number for number, line in enumerate(lines, 1) if opening in line), None)
        text = None if number is None else lines[number - 1]
        try:
            entry = registry.entry(name)
        except TunebookError as error:
            yield _finding(file, number, "registry-key", text, error.problem, error.fix)
            continue
        # Which stage will read an entry is not known here, and pretraining needs the least.
        for rule, severity, message, fix in entry_faults(entry, stage="pt"):
            # Data is made or downloaded for the run that needs it.
            found = _finding(file, number, rule, text, f"{name}: {message}", fix)
            yield found if rule != "missing-data" and severity == "error" else _lighter(found, rule)


def _lighter(finding: Finding, rule: str) -> Finding:
    return Finding(
        file=finding.file,
        line=finding.line,
        key=None,
        rule=rule,
        severity="hint" if rule == "missing-data" else "warning",
        message=finding.message,
        fix=finding.fix,
        text=finding.text,
    )


def _finding(
    file: str, line: int | None, rule: str, text: str | None, message: str, fix: str | None
) -> Finding:
    return Finding(
        file=file,
        line=line,
        key=None,
        rule=rule,
        severity="error",
        message=message,
        fix=fix,
        text=None if text is None else text.strip(),
    )
