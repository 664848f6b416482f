"""Check one file: read it, merge overlays and overrides, and apply every rule."""

from __future__ import annotations

import functools
import json
import re
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import yaml

from tunebook.checks import axolotl, llamafactory
from tunebook.checks.arithmetic import check_arithmetic, effective_batch_fault
from tunebook.checks.best_model import check_best_model
from tunebook.checks.deepspeed import check_deepspeed
from tunebook.checks.document import Document, flat_document, read_document
from tunebook.checks.evaluation import check_evaluation
from tunebook.checks.findings import CheckResult, Finding, edited, in_order
from tunebook.checks.ignored import check_advice, check_ignored
from tunebook.checks.keys import check_keys
from tunebook.checks.memory_traps import check_context, check_memory_traps
from tunebook.checks.outputs import check_across, check_outputs, check_secrets
from tunebook.checks.packages import MISSING_PACKAGE, check_packages, check_versions
from tunebook.checks.quantization import check_adapters, check_quantization
from tunebook.checks.recipe import CheckedRecipe, EngineCommand
from tunebook.checks.refusal import MISSING, Refusal
from tunebook.checks.registry import check_data_files, check_registry, checker_of
from tunebook.checks.schedule import check_schedule
from tunebook.checks.templates import check_templates
from tunebook.checks.values import NULL_WORD, check_attention, check_values
from tunebook.checks.yaml_traps import INTERPOLATION, check_yaml_traps
from tunebook.engines.schema import load_schema
from tunebook.engines.supported import SUPPORTED, outside
from tunebook.errors import TunebookError, join_errors
from tunebook.recipes import catalog, engine_yaml, overlays
from tunebook.recipes.engine_yaml import read_text
from tunebook.types import EngineName, Recipe

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence


REFUSALS: Mapping[EngineName, tuple[Refusal, ...]] = {
    "llamafactory": llamafactory.TABLE,
    "axolotl": axolotl.TABLE,
}


def check_refusals(recipe: CheckedRecipe) -> Iterator[Finding]:
    """Every row of the engine's table that the recipe meets."""
    for row in REFUSALS[recipe.engine]:
        # An overlay by itself is checked for what it holds, not for what it leaves to its recipes.
        applies = recipe.since(row.since) and not recipe.since(row.until)
        if applies and row.when(recipe) and not (row.rule == MISSING and recipe.partial):
            yield recipe.error(
                row.key,
                row.rule,
                row.problem,
                fix=row.fix,
                edit=recipe.rewrite(row.key, row.write) if row.write is not None else None,
            )


# What these find depends on the version that a recipe is held against.
_OF_A_VERSION = frozenset(
    {
        *("unknown-key", "renamed-key", "other-command", "wrong-type", "bad-choice", "quoted-value"),
        *("boolean-word", "attention-name", "unknown-template", "removed-key"),
    }
)


def _of_another_version(finding: Finding, recipe: CheckedRecipe) -> Finding:
    """Of a version that no snapshot fits nothing is sure: no error of these rules, and no fix."""
    if recipe.schema["fits"] or finding.rule not in _OF_A_VERSION:
        return finding
    return replace(
        finding, edit=None, severity="warning" if finding.severity == "error" else finding.severity
    )


def check_held_against(recipe: CheckedRecipe) -> Iterator[Finding]:
    """`other-version`: the one line that says so."""
    out = outside(recipe.engine, {name: recipe.installed(name) for name in SUPPORTED[recipe.engine].ranges})
    if out and recipe.schema["fits"]:
        yield recipe.hint(None, "other-version", f"not in the range: {', '.join(out)}", fix=None)
    if not recipe.schema["fits"]:
        more = f"; not in the range: {', '.join(out)}" if out else ""
        yield recipe.hint(
            None,
            "other-version",
            f"held against {recipe.schema['held_against']}, and {recipe.schema['installed']} is installed: "
            f"what depends on the version is a warning, and --fix leaves it{more}",
            fix="`tunebook check --engine` asks the installed engine itself",
        )


RULES: tuple[Callable[[CheckedRecipe], Iterator[Finding]], ...] = (
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
    check_held_against,
)
"""Every rule of a recipe. Each looks at the merged recipe and yields what it finds."""


NOT_HERE = frozenset({"missing-model", "missing-data", "missing-registry", "missing-checkpoint"})
"""Rules that a recipe breaks on a laptop, and not on the machine that it is for."""


class Checked(NamedTuple):
    """A file's findings, and what the rules looked at; None where it could not be read that far."""

    result: CheckResult
    checked_recipe: CheckedRecipe | None = None
    recipe: Recipe | None = None
    """What `checked_recipe` was made from: overlays and overrides merged in."""


def check_recipe(
    name_or_path: str,
    home: Path,
    overlay_names: Sequence[str] = (),
    overrides: Sequence[str] = (),
    *,
    command: EngineCommand | None = None,
    gpus: int = 1,
    without_files: bool = False,
) -> Checked:
    """Check one recipe with its overlays and overrides.

    Args:
        name_or_path: As `recipes.find_recipe` takes it.
        home: The folder that holds `recipes/`.
        overlay_names: As `overlays.resolve` takes them.
        overrides: `key=value` arguments.
        command: The engine's command the file is for; None: the keys decide.
        gpus: GPUs that the arithmetic is for.
        without_files: Leave out what says that data, models and the like are not on this machine.

    Raises:
        TunebookError: There is no such recipe or overlay, or an override is no `key=value`.
    """
    root = home / "recipes"
    path = catalog.recipe_path(name_or_path, root)
    name = catalog.recipe_name(path, root)
    file = _shown(path)
    other = checker_of(path)
    if other is not None:
        return Checked(CheckResult(name=name, findings=in_order(list(other(path, file)))))
    look = functools.partial(
        _check_text, name, path, root, overlay_names, overrides, command=command, gpus=gpus
    )
    text = read_text(path)
    checked = look(text)
    before = {(finding.rule, finding.key) for finding in checked.result.errors}
    findings = []
    for finding in checked.result.findings:
        if finding.edit is not None and finding.file == file:
            # A fix that brings another fault, which has no fix of its own, is none.
            after = look(edited(text, [finding.edit])).result.errors
            if any(error.edit is None and (error.rule, error.key) not in before for error in after):
                finding = replace(finding, edit=None)
        if not (without_files and finding.rule in NOT_HERE):
            findings.append(finding)
    return checked._replace(result=replace(checked.result, findings=tuple(findings)))


def _check_text(
    name: str,
    path: Path,
    root: Path,
    overlay_names: Sequence[str],
    overrides: Sequence[str],
    text: str,
    *,
    command: EngineCommand | None,
    gpus: int,
) -> Checked:
    """Check what a recipe's file holds, or would hold after a fix."""
    file, home = _shown(path), root.parent
    engine = engine_of(path, root, text)
    if engine is None:
        broken = [one for one in read_document(text, "axolotl", file).findings if one.rule == "yaml-syntax"]
        listed = any(one.line is None for one in broken) and re.match(r"\s*(?:#.*\s*)*- \w+:", text)
        if listed and not any(key in text for key in catalog.MODEL_KEY.values()):
            broken = []  # a list of another tool, as KTransformers' rules among LLaMA-Factory's examples
        return Checked(CheckResult(name=name, findings=tuple(broken) or (unrecognised(text, file),)))
    document = read_document(text, engine, file)
    if path.suffix == ".json":
        document = flat_document(document)
    if not document.values:
        return Checked(CheckResult(name=name, findings=document.findings))
    header = {} if path.suffix == ".json" else catalog.read_header(text)
    recipe = Recipe(name=name, engine=engine, path=path, values=document.values, header=header)
    changed = [_overlay(overlays.find_overlay(overlay, recipe, root), engine) for overlay in overlay_names]
    findings = [finding for part in (document, *changed) for finding in part.findings]
    if any(not part.values for part in changed):
        return Checked(CheckResult(name=name, findings=in_order(findings)))
    resolved = overlays.resolve(recipe, root, overlay_names, overrides)
    places = dict(document.places)
    for part in changed:
        # A list is replaced whole, so the places of an earlier list's items are gone.
        replaced = tuple(f"{key}[" for key, value in part.values.items() if isinstance(value, list))
        places = {key: place for key, place in places.items() if not key.startswith(replaced)} | dict(
            part.places
        )
    overridden = frozenset(key for key, origin in resolved.origins.items() if origin == "override")
    checked_recipe = CheckedRecipe(
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
    findings += [finding for rule in RULES for finding in rule(checked_recipe)]
    # Whatever else is said of such a value is a shadow of it.
    nothing = {finding.key for finding in findings if finding.rule == NULL_WORD}
    findings = [
        _of_another_version(finding, checked_recipe)
        for finding in findings
        if finding.rule in (INTERPOLATION, NULL_WORD)
        or not (checked_recipe.interpolated(finding.key) or finding.key in nothing)
    ]
    return Checked(CheckResult(name=name, findings=in_order(findings)), checked_recipe, resolved.recipe)


def refuse_errors(result: CheckResult) -> list[str]:
    """Return the warnings and what the environment lacks, a line each, unless there are errors.

    Raises:
        TunebookError: There are; all of them are reported together.
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


def _shown(path: Path) -> str:
    """The path from the current folder, where that is shorter."""
    absolute, here = path.absolute(), Path.cwd()
    return str(absolute.relative_to(here)) if absolute.is_relative_to(here) else str(path)


def _overlay(path: Path, engine: EngineName) -> Document:
    return read_document(read_text(path), engine, _shown(path))


# What a file is: whose recipe, and for which of the engine's commands.


# Of a file with neither engine's model key: the share of its keys that an engine must know.
_MOSTLY = 0.6

_ACCELERATE = frozenset({"compute_environment", "distributed_type", "fsdp_config", "deepspeed_config"})
_NEWER = frozenset({"model", "train_dataset", "model_path"})


def engine_of(path: Path, root: Path, text: str) -> EngineName | None:
    """Return the engine a recipe is for; None where it is neither's.

    Decided by the folder, by the key of the base model, or by whose keys most of the file's are.

    Args:
        path: The file.
        root: The folder `recipes`.
        text: What the file holds. Its YAML may be broken, which is a finding as well.
    """
    if path.suffix == ".json":
        return catalog.read_recipe(path, root).engine
    if path.resolve().is_relative_to(root.resolve()):
        folder = path.resolve().relative_to(root.resolve()).parts[0]
        if folder in catalog.ENGINES:
            return folder
    keys = _keys(text)
    by_model = [engine for engine, key in catalog.MODEL_KEY.items() if key in keys]
    if len(by_model) == 1:
        return by_model[0]
    shares: dict[EngineName, float] = {
        engine: len(keys & set(load_schema(engine)["keys"])) / max(1, len(keys)) for engine in catalog.ENGINES
    }
    best = max(shares, key=lambda engine: shares[engine])
    if len(keys & _ACCELERATE) > 1:
        return None
    return best if shares[best] >= _MOSTLY and len(keys) > 1 else None


def unrecognised(text: str, file: str) -> Finding:
    """Return the finding for a file that is neither engine's recipe.

    An error where it has keys of an engine, and so was meant as a recipe; else a hint.
    """
    keys = _keys(text)
    meant = any(keys & set(load_schema(engine)["keys"]) for engine in catalog.ENGINES)
    if len(keys & _ACCELERATE) > 1:
        what, meant = "a configuration of accelerate, which is not checked", False
    elif keys & _NEWER:
        what, meant = "LLaMA-Factory's v1 form, which is not checked", False
    else:
        what = "neither engine's recipe"
    return Finding(
        file=file,
        rule="not-a-recipe",
        severity="error" if meant else "hint",
        message=f"{what}: it has neither `model_name_or_path` (LLaMA-Factory) nor `base_model` (Axolotl)",
        fix="name the base model by the key of the engine that is to train it" if meant else None,
    )


def command_of(engine: EngineName, values: Mapping[str, Any]) -> EngineCommand:
    """Return the engine's command, by the keys; a rule reports a file that both trains and exports."""
    if engine == "axolotl":
        return "train"
    keys: Mapping[str, Any] = load_schema(engine)["keys"]
    groups = [set(keys[key]["groups"]) for key in values if key in keys]
    if any(group == {"training"} for group in groups):
        return "train"
    if any(group == {"evaluation"} for group in groups):
        return "eval"
    if "export_dir" in values:
        return "export"
    # Only training has a dataset; the rest is in every command's arguments.
    return "train" if "dataset" in values or "do_train" in values else "chat"


def _keys(text: str) -> set[str]:
    """Keys at the top level, read without YAML, which may be broken; of `{...}` on one line with it."""
    if text.lstrip().startswith("{"):
        with suppress(yaml.YAMLError):
            root = engine_yaml.compose(text, "axolotl")
            return {str(key.value) for key, _ in root.value} if isinstance(root, yaml.MappingNode) else set()
    return set(re.findall(r"^([A-Za-z_][\w-]*)[ \t]*:", text, re.MULTILINE))


# The results of several files: what shows only between them, and how another program reads them.


def with_effective_batch(checked: Checked, wanted: int) -> Checked:
    """Return the result with an error where the effective batch is another than `wanted`."""
    fault = None if checked.checked_recipe is None else effective_batch_fault(checked.checked_recipe, wanted)
    if fault is None:
        return checked
    findings = in_order([*checked.result.findings, fault])
    return checked._replace(result=CheckResult(name=checked.result.name, findings=findings))


def with_clashes(checked: Sequence[Checked]) -> list[CheckResult]:
    """Return the results of files checked together, with what only shows between them."""
    clashes = list(check_across([one.checked_recipe for one in checked if one.checked_recipe is not None]))
    results = []
    for one in checked:
        recipe = one.checked_recipe
        own = [clash for clash in clashes if recipe is not None and clash.file == recipe.file]
        results.append(CheckResult(name=one.result.name, findings=in_order([*one.result.findings, *own])))
    return results


def as_json(results: Sequence[CheckResult]) -> str:
    """Return results as one JSON document."""
    keys = ("file", "line", "key", "rule", "severity", "message", "fix", "text")
    listed = [
        {
            "name": result.name,
            "clean": result.clean,
            "findings": [{key: getattr(finding, key) for key in keys} for finding in result.findings],
        }
        for result in results
    ]
    return json.dumps(listed, indent=2, ensure_ascii=False)
