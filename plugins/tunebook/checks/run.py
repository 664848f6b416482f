"""Check one file: read it, merge what changes it, and ask every rule."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from tunebook.checks.adapters import check_adapters
from tunebook.checks.advice import check_advice
from tunebook.checks.arithmetic import check_arithmetic
from tunebook.checks.attention import check_attention
from tunebook.checks.best_model import check_best_model
from tunebook.checks.context import check_context
from tunebook.checks.deepspeed import check_deepspeed
from tunebook.checks.document import Document, read_document
from tunebook.checks.evaluation import check_evaluation
from tunebook.checks.findings import CheckResult, Finding, in_order
from tunebook.checks.ignored import check_ignored
from tunebook.checks.json_recipe import flat_document
from tunebook.checks.keys import check_keys
from tunebook.checks.memory_traps import check_memory_traps
from tunebook.checks.other_files import checker_of
from tunebook.checks.outputs import check_outputs
from tunebook.checks.packages import MISSING_PACKAGE, check_packages
from tunebook.checks.quantization import check_quantization
from tunebook.checks.recognise import command_of, engine_of, nobodys
from tunebook.checks.refusals import check_refusals
from tunebook.checks.registry import check_data_files, check_registry
from tunebook.checks.schedule import check_schedule
from tunebook.checks.secrets import check_secrets
from tunebook.checks.subject import Command, Subject
from tunebook.checks.templates import check_templates
from tunebook.checks.values import check_values
from tunebook.checks.versions import check_versions
from tunebook.checks.yaml_traps import check_yaml_traps
from tunebook.errors import TunebookError, join_errors
from tunebook.recipes import catalog, overlays
from tunebook.recipes.engine_yaml import read_text
from tunebook.types import EngineName, Recipe

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

RULES: tuple[Callable[[Subject], Iterator[Finding]], ...] = (
    check_keys,
    check_values,
    check_yaml_traps,
    check_secrets,
    check_registry,
    check_data_files,
    check_templates,
    check_evaluation,
    check_best_model,
    check_schedule,
    check_memory_traps,
    check_quantization,
    check_context,
    check_attention,
    check_adapters,
    check_refusals,
    check_ignored,
    check_deepspeed,
    check_outputs,
    check_versions,
    check_packages,
    check_advice,
    check_arithmetic,
)
"""Every rule of a recipe. Each looks at the merged recipe and yields what it finds."""


class Checked(NamedTuple):
    """A file's findings, and what the rules looked at; None where it could not be read that far."""

    result: CheckResult
    subject: Subject | None


def check_recipe(
    name_or_path: str,
    home: Path,
    overlay_names: Sequence[str] = (),
    overrides: Sequence[str] = (),
    *,
    command: Command | None = None,
    gpus: int = 1,
) -> Checked:
    """Check one recipe with its overlays and overrides.

    Args:
        name_or_path: As `recipes.find_recipe` takes it.
        home: The folder that holds `recipes/`.
        overlay_names: As `overlays.resolve` takes them.
        overrides: `key=value` arguments.
        command: The engine's command the file is for; None to tell it by the keys.
        gpus: GPUs that the arithmetic is for.

    Raises:
        TunebookError: There is no such recipe or overlay, or an override is no `key=value`.
    """
    root = home / "recipes"
    path = _find(name_or_path, root)
    name = catalog.recipe_name(path, root)
    file = _shown(path)
    other = checker_of(path)
    if other is not None:
        return Checked(CheckResult(name=name, findings=in_order(list(other(path, file)))), None)
    text = read_text(path)
    engine = engine_of(path, root, text)
    if engine is None:
        return Checked(CheckResult(name=name, findings=(nobodys(text, file),)), None)
    document = read_document(text, engine, file)
    if path.suffix == ".json":
        document = flat_document(document)
    if not document.values:
        return Checked(CheckResult(name=name, findings=document.findings), None)
    recipe = Recipe(name=name, engine=engine, path=path, values=document.values, header={})
    changed = [_overlay(overlays.find_overlay(overlay, recipe, root), engine) for overlay in overlay_names]
    findings = [finding for part in (document, *changed) for finding in part.findings]
    if any(not part.values for part in changed):
        return Checked(CheckResult(name=name, findings=in_order(findings)), None)
    resolved = overlays.resolve(recipe, root, overlay_names, overrides)
    places = dict(document.places)
    for part in changed:
        # A list is replaced whole, so the places of an earlier list's items are gone.
        replaced = tuple(f"{key}[" for key, value in part.values.items() if isinstance(value, list))
        places = {key: place for key, place in places.items() if not key.startswith(replaced)} | dict(
            part.places
        )
    overridden = frozenset(key for key, origin in resolved.origins.items() if origin == "override")
    subject = Subject(
        engine=engine,
        command=command or command_of(engine, resolved.recipe.values),
        file=file,
        values=resolved.recipe.values,
        places={key: place for key, place in places.items() if key not in overridden},
        overridden=overridden,
        folders=tuple(dict.fromkeys([Path.cwd(), home, *path.resolve().parents])),
        home=home,
        gpus=gpus,
    )
    findings += [finding for rule in RULES for finding in rule(subject)]
    return Checked(CheckResult(name=name, findings=in_order(findings)), subject)


def refuse_errors(result: CheckResult) -> list[str]:
    """Return the warnings and what the environment lacks, a line each, unless there are errors.

    Raises:
        TunebookError: There are; all of them are told together.
    """
    errors = [
        TunebookError(f"{_where(finding)}{finding.message}", fix=finding.fix or "see docs/check.md")
        for finding in result.errors
    ]
    if errors:
        raise join_errors(errors)
    warnings = [
        finding
        for finding in result.findings
        if finding.severity == "warning" or finding.rule == MISSING_PACKAGE
    ]
    return [f"warning: {_where(finding)}{finding.message}; fix: {finding.fix}" for finding in warnings]


def _where(finding: Finding) -> str:
    place = finding.file if finding.line is None else f"{finding.file}:{finding.line}"
    return f"{place}: {finding.key}: " if finding.key else f"{place}: "


def _find(name_or_path: str, root: Path) -> Path:
    path = Path(name_or_path).expanduser()
    return path if path.is_file() else catalog.find_recipe(name_or_path, root).path


def _shown(path: Path) -> str:
    """The path from the current folder, where that is shorter."""
    absolute, here = path.absolute(), Path.cwd()
    return str(absolute.relative_to(here)) if absolute.is_relative_to(here) else str(path)


def _overlay(path: Path, engine: EngineName) -> Document:
    return read_document(read_text(path), engine, _shown(path))
