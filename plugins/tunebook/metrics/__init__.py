"""Metrics: pure functions from text to figures. No torch, no engine.

`load` finds a metric by name. Modules are imported only when asked for, so this one costs nothing.
"""

from __future__ import annotations

import importlib
from dataclasses import replace

# By name: the module `json` of this package becomes an attribute of it once it is imported.
from json import loads
from typing import TYPE_CHECKING

from tunebook import extensions
from tunebook.errors import TunebookError
from tunebook.types import METRIC_OPTIONS, Metric

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from tunebook.types import MetricSpec

GROUP = "tunebook.metrics"

BUILT_IN = {
    "yes_no": "tunebook.metrics.yes_no",
    "gsm8k": "tunebook.metrics.gsm8k",
    "exact_match": "tunebook.metrics.exact_match",
    "multiple_choice": "tunebook.metrics.multiple_choice",
    "classification": "tunebook.metrics.classification",
    "json": "tunebook.metrics.json",
    "tool_calls": "tunebook.metrics.tool_calls",
    "rouge": "tunebook.metrics.rouge",
    "bleu": "tunebook.metrics.bleu",
    "chrf": "tunebook.metrics.chrf",
}


def fit(metric: Metric, references: Sequence[str], where: str) -> Metric:
    """Return a metric that takes its classes from the data with those of `references`; others as they are.

    Raises:
        TunebookError: The references are no classes; `where` names their set.
    """
    if metric.fit is None:
        return metric
    try:
        return metric.fit(references)
    except ValueError as error:
        raise TunebookError(
            f"{where}: {metric.short_name}: {error}", fix='correct the data, or its "metric"'
        ) from error


def fitted(
    asked: Iterable[tuple[Metric, MetricSpec]], references: Sequence[str], where: str
) -> tuple[tuple[Metric, MetricSpec], ...]:
    """Fit each metric, as `fit` does, and name it so in its options."""
    found = ((fit(metric, references, where), spec) for metric, spec in asked)
    return tuple((metric, replace(spec, name=metric.name)) for metric, spec in found)


def names() -> tuple[str, ...]:
    """Names of the built-in metrics and of those that installed packages offer.

    Raises:
        TunebookError: Two metrics have one name.
    """
    return (*BUILT_IN, *extensions.installed(GROUP, built_in=BUILT_IN))


def installed() -> Iterator[Metric]:
    """Yield every metric that has a name, the built-in ones first, without those that fail to load."""
    for name in names():
        try:
            yield load(name)
        except TunebookError:
            continue


def load(name: str) -> Metric:
    """Return the metric of that name.

    Args:
        name: A built-in metric, its own options after it as JSON; an entry point of group
            `tunebook.metrics`, or
            `package.module:function`, where the function is `f(prediction, reference)` and returns a
            `Score`, a dict of figures, a number or a bool. An attribute that is a `Metric` is taken as
            it is, under this name.

    Raises:
        TunebookError: There is none, its import fails, or two have one name.
    """
    base, brace, options = name.partition("{")
    if brace:
        return _configured(name, base, brace + options)
    if ":" in name:
        return _as_metric(name, extensions.load_reference(name))
    if name in BUILT_IN:
        metric = importlib.import_module(BUILT_IN[name]).METRIC
        assert isinstance(metric, Metric)
        return metric
    points = extensions.installed(GROUP, built_in=BUILT_IN)
    if name not in points:
        raise TunebookError(
            f"there is no metric {name!r}",
            fix=f"use one of {', '.join(sorted([*BUILT_IN, *points]))}, or package.module:function",
        )
    return _as_metric(name, extensions.load_entry_point(points[name]))


def _configured(name: str, base: str, options: str) -> Metric:
    if base not in METRIC_OPTIONS:
        raise TunebookError(f"the metric {base!r} has no options of its own", fix=f"write {base!r} alone")
    try:
        metric = importlib.import_module(BUILT_IN[base]).configured(loads(options))
    except (ValueError, AttributeError) as error:
        raise TunebookError(
            f"the metric {name[:200]!r}: {error}",
            fix=f"correct {' or '.join(METRIC_OPTIONS[base])}; docs/metrics.md shows them",
        ) from error
    assert isinstance(metric, Metric)
    return metric


def load_asked(specs: Iterable[MetricSpec]) -> tuple[tuple[Metric, MetricSpec], ...]:
    """Return the metrics that a registry entry asks for, with their options.

    Those that read no answer are left out: see `MetricSpec.reads_answers`.

    Raises:
        TunebookError: As for `load`.
    """
    return tuple((load(spec.name), spec) for spec in specs if spec.reads_answers)


def _as_metric(name: str, found: Metric | Callable[..., object]) -> Metric:
    if isinstance(found, Metric):
        # Records name their metric, and whoever reads them loads it by that name.
        return replace(found, name=name)
    if not callable(found):
        raise TunebookError(
            f"the metric {name!r} is a {type(found).__name__}, neither a function nor a Metric",
            fix="name a function f(prediction, reference)",
        )
    from tunebook.metrics.user import metric_of_function

    return metric_of_function(name, found)
