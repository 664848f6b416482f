"""The installed engine's own parser, asked about recipes: its verdict stands beside ours."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunebook import paths, redact
from tunebook.checks.findings import in_order
from tunebook.engines.supported import NAMES
from tunebook.inference.output import run_module

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tunebook.checks.findings import Finding
    from tunebook.checks.recipe import CheckedRecipe
    from tunebook.checks.run import Checked
    from tunebook.types import EngineName

RULE = "engine-verdict"
_LONGEST = 1000


def with_verdicts(checked: Sequence[Checked]) -> list[Checked]:
    """Return the results with what the engine says of each recipe. Each engine is started once.

    Overlays and files that are no recipe are not asked about.

    Raises:
        TunebookError: The engine is not installed, or cannot be started.
    """
    whole = list(checked)
    engines: dict[EngineName, list[int]] = {}
    for place, one in enumerate(whole):
        if one.checked_recipe is not None and not one.checked_recipe.partial:
            engines.setdefault(one.checked_recipe.engine, []).append(place)
    for engine, places in engines.items():
        recipes = [recipe for place in places if (recipe := whole[place].checked_recipe) is not None]
        version = paths.installed_versions(paths.engine_environment(engine), [engine]).get(engine, "")
        for place, recipe, said in zip(places, recipes, _ask(engine, recipes), strict=True):
            found = _finding(recipe, f"{NAMES[engine]} {version}", said)
            result = whole[place].result
            findings = in_order([*result.findings, found])
            whole[place] = whole[place]._replace(result=type(result)(name=result.name, findings=findings))
    return whole


def _finding(recipe: CheckedRecipe, engine: str, verdict: dict[str, Any]) -> Finding:
    said = verdict["said"]
    if said is None:
        return recipe.hint(None, RULE, f"{engine}'s own parser takes it", fix=None)
    said = redact.redact_text(said if len(said) <= _LONGEST else f"{said[:_LONGEST]} ...")
    if verdict["here"]:
        return recipe.warning(
            None, RULE, f"on this machine {engine} refuses it: {said}", fix="check it where it is to run"
        )
    return recipe.error(None, RULE, f"{engine} refuses it: {said}", fix="change what it names")


def _ask(engine: EngineName, recipes: Sequence[CheckedRecipe]) -> list[dict[str, Any]]:
    with tempfile.TemporaryDirectory(prefix="tunebook-verdict-") as folder:
        answer = Path(folder) / "answer.json"
        listed = [_asked(recipe) for recipe in recipes]
        run_module(
            "tunebook.hooks.parser_probe",
            {"engine": engine, "answer": str(answer), "recipes": listed},
            engine,
        )
        verdicts: list[dict[str, Any]] = json.loads(answer.read_text(encoding="utf-8"))
    return verdicts


def _asked(recipe: CheckedRecipe) -> dict[str, Any]:
    values = dict(recipe.values)
    file = values.get("deepspeed")
    found = recipe.locate(file) if isinstance(file, str) and file else None
    if found is not None:
        values["deepspeed"] = str(found.resolve())
    # Dates and the like, which JSON lacks, are no value of a key.
    plain = json.loads(json.dumps(values, default=str))
    distributed = recipe.gpus > 1 or bool(values.get("deepspeed"))
    return {"values": plain, "command": recipe.command, "gpus": recipe.gpus, "distributed": distributed}
