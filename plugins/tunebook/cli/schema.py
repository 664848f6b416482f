"""`tunebook schema`: an engine's recipe keys as JSON Schema, for editors."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, cast

import click

from tunebook.engines.schema import load_schema

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tunebook.types import EngineName

_NAMES = {"lf": "llamafactory", "llamafactory": "llamafactory", "axolotl": "axolotl"}


@click.command("schema")
@click.argument("engine", type=click.Choice(list(_NAMES)))
def schema(engine: str) -> None:
    """Print JSON Schema of an engine's recipes, for editors.

    Editors complete keys and mark slips by it. It is of the installed version of the engine, or of the
    nearest that is known. The first line of a recipe tells the editor:
    `# yaml-language-server: $schema=lf.schema.json`

    \b
    Example:
      tunebook schema lf > lf.schema.json
    """
    click.echo(json.dumps(json_schema(cast("EngineName", _NAMES[engine])), indent=1, ensure_ascii=False))


def json_schema(engine: EngineName) -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of an engine's recipes."""
    found = load_schema(engine)
    keys = dict(found["keys"])
    for added in found.get("plugins", {}).values():
        keys |= added
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"Recipe of {found['held_against']}",
        "type": "object",
        # Of Axolotl any plugin may bring keys of its own.
        "additionalProperties": engine == "axolotl",
        "properties": {key: _property(value) for key, value in sorted(keys.items())},
        "required": sorted(key for key, value in keys.items() if value.get("required")),
    }


def _property(key: Mapping[str, Any]) -> dict[str, Any]:
    made: dict[str, Any] = {}
    types = [kind for kind in key.get("types", ()) if kind != "null"]
    if types and "any" not in types:
        # A key without a value is YAML's null, which both engines take for "not set".
        made["type"] = [*types, "null"]
    if key.get("choices") and set(types) <= {"string"}:
        made["enum"] = [*key["choices"], None]
    if "default" in key:
        made["default"] = key["default"]
    if key.get("deprecated"):
        made["deprecated"] = True
    groups = ", ".join(key.get("groups", ()))
    about = [
        f"{groups} arguments" if groups else "",
        f"default: {key['default']}" if "default" in key else "",
    ]
    made["description"] = "; ".join(one for one in about if one) or "see the engine's documentation"
    return made
