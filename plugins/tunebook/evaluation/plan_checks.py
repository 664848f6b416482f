"""What must be right before `tunebook eval` starts an engine."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from tunebook import paths
from tunebook.checks.data import check_datasets
from tunebook.errors import TunebookError, join_errors

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from tunebook.data.registry import Registry
    from tunebook.engines import Engine
    from tunebook.evaluation.request import Request
    from tunebook.types import DatasetEntry


def check_sets(
    registry: Registry,
    entries: Mapping[str, DatasetEntry],
    values: Mapping[str, Any],
    request: Request,
) -> None:
    """Refuse data that cannot be evaluated as asked.

    Args:
        registry: Where the sets stand.
        entries: Those of them to look at.
        values: The evaluation recipe.
        request: What is asked.

    Raises:
        TunebookError: One for each fault.
    """
    limit = values.get("max_samples")
    errors = check_datasets(
        registry, entries, list(entries), max_rows=limit if isinstance(limit, int) else None
    )
    if request.method in ("answer", "generate"):
        errors += [
            TunebookError(
                f"--method {request.method}: {name} carries no metric that could judge an answer",
                fix=f'add a "metric" to its entry in {registry.path}, or use --method perplexity',
            )
            for name, entry in entries.items()
            if not any(spec.name != "perplexity" for spec in entry.metrics)
        ]
    if errors:
        raise join_errors(errors)


def refuse_no_hook(engine: Engine, environment: Path) -> None:
    """Refuse an environment whose engine would start without tunebook.

    Raises:
        TunebookError: Saying how to mend that.
    """
    if not engine.uses_startup_hook:
        return
    if os.environ.get("TUNEBOOK_HOOK") == "0":
        raise TunebookError(
            "TUNEBOOK_HOOK=0 keeps tunebook out of the engine, so nothing can be measured",
            fix="unset TUNEBOOK_HOOK",
        )
    if not paths.has_startup_hook(environment):
        raise TunebookError(
            f"{environment} has the engine but not tunebook, so nothing can be measured",
            fix=f"`{environment}/bin/python -m pip install tunebook`",
        )
