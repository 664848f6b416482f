"""A recipe in JSON, as the flat recipe that `tunebook` makes of it, each key at its place in the file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import PurePath
from typing import TYPE_CHECKING

from tunebook.checks.findings import Finding
from tunebook.errors import TunebookError
from tunebook.recipes import nested

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tunebook.checks.document import Document, Place
    from tunebook.checks.findings import Severity


def flat_document(document: Document) -> Document:
    """Return the flat form of a document that was read from JSON.

    Nothing of it can be mended: an edit would write YAML into the file.
    """
    try:
        flat = nested.flatten(document.values, name=PurePath(document.file).stem)
    except TunebookError as error:
        finding = _finding(document.file, "duplicate-key", error.problem, error.fix)
        return replace(document, values={}, places={}, findings=(*document.findings, finding))
    places = {
        flat_key: replace(place, key_span=None, value_span=None)
        for key, source in flat.sources.items()
        for flat_key, place in _renamed(document.places, source, key)
    }
    told = _finding(
        document.file,
        "json-recipe",
        "LLaMA-Factory's own command crashes on JSON; `tunebook train` writes YAML for it",
        "`tunebook cp` makes a YAML recipe of it",
        severity="hint",
    )
    return replace(document, values=flat.values, places=places, findings=(*document.findings, told))


def _renamed(places: Mapping[str, Place], source: str, key: str) -> list[tuple[str, Place]]:
    """The places of `source` and of all that is below it, under the name it has in the recipe."""
    below = (f"{source}.", f"{source}[")
    return [
        (key + name.removeprefix(source), place)
        for name, place in places.items()
        if name == source or name.startswith(below)
    ]


def _finding(file: str, rule: str, message: str, fix: str, *, severity: Severity = "error") -> Finding:
    return Finding(
        file=file,
        line=None,
        key=None,
        rule=rule,
        severity=severity,
        message=message,
        fix=fix,
    )
