"""A YAML file read together with the place of every key and value in it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

import yaml

from tunebook.checks.findings import Finding
from tunebook.errors import TunebookError
from tunebook.recipes import engine_yaml, nested

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from tunebook.types import EngineName


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a key and its value are. Lines count from 1, columns from 0."""

    file: str
    line: int
    key_span: tuple[int, int] | None
    """Columns of the key within `line`; None for an item of a list."""
    value_line: int
    value_span: tuple[int, int] | None
    """Columns of a scalar on one line, quotes included; None for anything longer."""
    raw: str | None
    """The scalar's text as written, without its quotes; None for a mapping or a list."""
    quoted: bool
    text: str
    """The line of the key, without its indentation."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """One file: what the engine reads out of it, and where."""

    file: str
    lines: tuple[str, ...]
    values: Mapping[str, Any]
    places: Mapping[str, Place]
    """By dotted key with list positions, e.g. `datasets[0].type`."""
    findings: tuple[Finding, ...]
    """What is wrong with the file as YAML; with an error among them `values` may be empty."""


def read_document(text: str, engine: EngineName, file: str) -> Document:
    """Read `text` as `engine` reads it. Faults of the YAML become findings; nothing is raised for them."""
    lines = tuple(text.splitlines())
    try:
        root = engine_yaml.compose(text, engine)
    except yaml.YAMLError as err:
        return _broken(file, lines, _syntax_finding(err, lines, file))
    if not isinstance(root, yaml.MappingNode):
        what = "holds no keys" if root is None else "is no mapping"
        fix = "write `key: value` lines into it"
        return _broken(
            file, lines, Finding(file=file, rule="yaml-syntax", message=f"the file {what}", fix=fix)
        )
    findings = list(_duplicates(root, engine, lines, file))
    places = dict(_places(root, "", lines, file))
    try:
        values = engine_yaml.construct(root, engine)
    except yaml.YAMLError as err:
        return _broken(file, lines, _syntax_finding(err, lines, file))
    return Document(
        file=file,
        lines=lines,
        values={str(key): value for key, value in values.items()},
        places=places,
        findings=tuple(findings),
    )


def _broken(file: str, lines: tuple[str, ...], finding: Finding) -> Document:
    return Document(file=file, lines=lines, values={}, places={}, findings=(finding,))


def _syntax_finding(err: yaml.YAMLError, lines: tuple[str, ...], file: str) -> Finding:
    mark = getattr(err, "problem_mark", None)
    number = None if mark is None else min(mark.line, len(lines) - 1)
    text = lines[number] if number is not None and lines else ""
    problem = getattr(err, "problem", None) or "cannot be read"
    # Libyaml reports a tab at the line after it, or where the token that follows begins.
    near = lines[max(0, (number or 0) - 1) : (number or 0) + 1]
    tabbed = next((line for line in near if "\t" in line[: len(line) - len(line.lstrip())]), None)
    if tabbed is not None or "'\\t'" in problem:
        problem, fix = "a tab where YAML wants spaces", "indent with spaces"
        text = tabbed or text
    else:
        problem, fix = f"is no YAML: {problem}", "write `key: value` with a space after the colon"
    return Finding(
        file=file,
        line=None if number is None else lines.index(text) + 1,
        rule="yaml-syntax",
        message=problem,
        fix=fix,
        text=text.strip() or None,
    )


def _duplicates(root: yaml.Node, engine: EngineName, lines: tuple[str, ...], file: str) -> Iterator[Finding]:
    for node in engine_yaml.duplicates(root):
        number = node.start_mark.line
        effect = (
            "LLaMA-Factory stops at it" if engine == "llamafactory" else "Axolotl takes the last, in silence"
        )
        yield Finding(
            file=file,
            line=number + 1,
            key=node.value,
            rule="duplicate-key",
            message=f"{node.value} is there twice; {effect}",
            fix="delete one of the two lines",
            text=lines[number].strip(),
        )


def _places(
    node: yaml.MappingNode, prefix: str, lines: tuple[str, ...], file: str
) -> Iterator[tuple[str, Place]]:
    for key, value in node.value:
        if not isinstance(key, yaml.ScalarNode) or key.tag == "tag:yaml.org,2002:merge":
            continue
        name = f"{prefix}{key.value}"
        yield name, _place(key, value, lines, file)
        yield from _below(value, name, lines, file)


def _below(node: yaml.Node, name: str, lines: tuple[str, ...], file: str) -> Iterator[tuple[str, Place]]:
    if isinstance(node, yaml.MappingNode):
        yield from _places(node, f"{name}.", lines, file)
    elif isinstance(node, yaml.SequenceNode):
        for number, item in enumerate(node.value):
            yield f"{name}[{number}]", _place(None, item, lines, file)
            yield from _below(item, f"{name}[{number}]", lines, file)


def _place(key: yaml.ScalarNode | None, value: yaml.Node, lines: tuple[str, ...], file: str) -> Place:
    start, end = value.start_mark, value.end_mark
    scalar = value if isinstance(value, yaml.ScalarNode) else None
    at = value if key is None else key
    return Place(
        file=file,
        line=at.start_mark.line + 1,
        key_span=None if key is None else (key.start_mark.column, key.end_mark.column),
        value_line=start.line + 1,
        value_span=(start.column, end.column) if scalar is not None and start.line == end.line else None,
        raw=None if scalar is None else scalar.value,
        quoted=scalar is not None and scalar.style in ("'", '"'),
        text=lines[at.start_mark.line].strip(),
    )


# A recipe in JSON, as the flat recipe that `tunebook` makes of it, each key at its place in the file.


def flat_document(document: Document) -> Document:
    """Return the flat form of a document that was read from JSON.

    Nothing of it can be edited: an edit would write YAML into the file.
    """
    try:
        flat = nested.flatten(document.values, name=PurePath(document.file).stem)
    except TunebookError as error:
        finding = Finding(file=document.file, rule="duplicate-key", message=error.problem, fix=error.fix)
        return replace(document, values={}, places={}, findings=(*document.findings, finding))
    places = {
        flat_key: replace(place, key_span=None, value_span=None)
        for key, source in flat.sources.items()
        for flat_key, place in _renamed(document.places, source, key)
    }
    written = Finding(
        file=document.file,
        rule="json-recipe",
        severity="hint",
        message="LLaMA-Factory's own command crashes on JSON; `tunebook train` writes YAML for it",
        fix="`tunebook cp` makes a YAML recipe of it",
    )
    return replace(document, values=flat.values, places=places, findings=(*document.findings, written))


def _renamed(places: Mapping[str, Place], source: str, key: str) -> list[tuple[str, Place]]:
    """The places of `source` and of all that is below it, under the name it has in the recipe."""
    below = (f"{source}.", f"{source}[")
    return [
        (key + name.removeprefix(source), place)
        for name, place in places.items()
        if name == source or name.startswith(below)
    ]
