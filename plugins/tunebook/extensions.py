"""What others add: entry points and `package.module:function` references, loaded by name.

There is one group, `tunebook.metrics`. A name that is taken twice and an import that fails stop the run: a
plugin that is skipped in silence is a wrong result.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Collection, Mapping
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

from tunebook.errors import TunebookError


def installed(group: str, *, built_in: Collection[str] = ()) -> Mapping[str, EntryPoint]:
    """Entry points of a group by name; nothing is imported.

    Args:
        built_in: Names that are ours and may not be taken.

    Raises:
        TunebookError: Two packages offer one name, or a package offers a built-in one.
    """
    found: dict[str, EntryPoint] = {}
    for point in entry_points(group=group):
        other = found.get(point.name)
        # One distribution can be found twice, e.g. by an editable install's two metadata folders.
        if other is not None and other.value == point.value:
            continue
        if point.name in built_in or other is not None:
            owner = "tunebook itself" if other is None else _package(other)
            raise TunebookError(
                f"two entry points of group {group!r} are named {point.name!r}: "
                f"one of {_package(point)} and one of {owner}",
                fix=f"rename the one in {_package(point)}, or uninstall that package",
            )
        found[point.name] = point
    return found


def load_entry_point(point: EntryPoint) -> Any:
    """Import what an entry point names.

    Raises:
        TunebookError: The import fails or the attribute is missing; the cause is chained.
    """
    return _imported(point.value, f"entry point {point.name!r} of {_package(point)}")


def load_reference(reference: str) -> Any:
    """Import `package.module:attribute`; the working directory is searched too, as by `python -m`.

    Raises:
        TunebookError: The reference has another form, the import fails or the attribute is missing.

    >>> load_reference("fractions:Fraction").__name__
    'Fraction'
    """
    module, colon, attribute = reference.partition(":")
    if not (module and colon and attribute):
        raise TunebookError(
            f"{reference!r} does not name a function",
            fix="write it as package.module:function, e.g. my_package.metrics:my_score",
        )
    here = str(Path.cwd())
    if here not in sys.path:
        # Appended, so that a file of the user's cannot hide an installed package.
        sys.path.append(here)
    return _imported(reference, f"{reference!r}")


def _imported(reference: str, what: str) -> Any:
    module, _, attribute = reference.partition(":")
    try:
        found: Any = importlib.import_module(module)
    except Exception as error:
        raise TunebookError(
            f"{what} cannot be imported: {type(error).__name__}: {error}",
            fix=f"make `python -c 'import {module}'` work in this environment ({sys.prefix})",
        ) from error
    for name in attribute.split("."):
        try:
            found = getattr(found, name)
        except AttributeError as error:
            raise TunebookError(
                f"{what} cannot be imported: module {module!r} has no {attribute!r}",
                fix=f"correct the name after the colon, or define it in {getattr(found, '__file__', module)}",
            ) from error
    return found


def _package(point: EntryPoint) -> str:
    return point.dist.name if point.dist is not None else point.value
