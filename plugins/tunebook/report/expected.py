"""Compares what a recipe's header promises with what was measured."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, NamedTuple

from tunebook.report.records import Expected, Figure, Verdict

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tunebook.report.records import Best

_NUMBER = r"-?\d+(?:\.\d+)?(?:e-?\d+)?"
_CLAIM = re.compile(
    rf"(?:(?P<dataset>[\w.-]+)/)?(?P<figure>[A-Za-z][\w-]*)\s*"
    rf"(?:(?P<least>>=|>|at least|above)\s*(?P<floor>{_NUMBER})"
    rf"|(?:=|:|of|about)?\s*(?P<value>{_NUMBER})(?:\s*(?:\+/-|\+-|±)\s*(?P<tolerance>{_NUMBER}))?)"
)


class Claim(NamedTuple):
    """`dataset/figure value +/- tolerance`, or `figure >= value`."""

    text: str
    dataset: str | None
    figure: str
    low: float
    high: float | None
    """None for a claim with no upper end."""


def claims(text: str) -> list[Claim]:
    """The claims in the `expected:` line of a recipe.

    >>> [claim.figure for claim in claims("demo_test/macro_f1 0.95 +/- 0.03, accuracy >= 0.9, seed 42.")]
    ['macro_f1', 'accuracy']
    """
    found = []
    for match in _CLAIM.finditer(text):
        if match["figure"] in {"seed", "step", "steps", "epoch", "epochs", "in", "n", "of", "about", "or"}:
            continue
        if match["floor"]:
            low, high = float(match["floor"]), None
        else:
            value, tolerance = float(match["value"]), float(match["tolerance"] or 0)
            low, high = value - tolerance, value + tolerance
        found.append(Claim(match[0].strip(), match["dataset"], match["figure"], low, high))
    return found


def compare(text: str | None, best: Sequence[Best]) -> tuple[Expected, ...]:
    """Each claim beside the figure of that name at the best step.

    Args:
        text: The `expected:` line; None where the recipe has none or is not known.
        best: The best evaluation of each dataset.
    """
    if not text:
        return ()
    if text.strip().lower().startswith("not measured"):
        return ()
    found = claims(text)
    if not found:
        reason = "the recipe makes no claim in numbers"
        return (Expected(text=text, measured=None, verdict="not comparable", reason=reason),)
    return tuple(_verdict(claim, best) for claim in found)


def _verdict(claim: Claim, best: Sequence[Best]) -> Expected:
    measured = _measured(claim, best)
    if measured is None:
        where = f"{claim.dataset}/{claim.figure}" if claim.dataset else claim.figure
        reason = f"this run has no figure {where}"
        return Expected(text=claim.text, measured=None, verdict="not measured", reason=reason)
    verdict, reason = _judge(claim, measured)
    return Expected(text=claim.text, measured=measured, verdict=verdict, reason=reason)


def _judge(claim: Claim, measured: Figure) -> tuple[Verdict, str]:
    value, interval = measured.value, measured.interval
    ceiling = math.inf if claim.high is None else claim.high
    if claim.low <= value <= ceiling:
        return "met", "the value lies within the claim"
    if interval is not None and interval.low <= ceiling and interval.high >= claim.low:
        side = "below" if value < claim.low else "above"
        return "within error", f"the value is {side} the claim, its 95 % interval reaches it"
    measure = "value" if interval is None else "whole 95 % interval"
    if value < claim.low:
        return "missed", f"the {measure} is below the claim"
    return "above", f"the {measure} is above the claim"


def _measured(claim: Claim, best: Sequence[Best]) -> Figure | None:
    for one in best:
        if claim.dataset in (None, one.figure.dataset):
            for figure in (one.figure, *one.beside):
                if claim.figure.lower().replace("-", "_") == figure.name.lower():
                    return figure
    return None
