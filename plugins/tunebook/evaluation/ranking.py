"""All models on one set, the best first, and their figures over training."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    Result = Mapping[str, Any]

_OTHERS = ("loss", "perplexity", "unparsed_rate", "generation_cut_rate")


class RankedModel(NamedTuple):
    """One model in its place."""

    rank: int
    label: str
    kind: str
    step: int
    value: float | None
    """Of the figure that is ranked by; None where it is not finite."""
    interval: tuple[float, float] | None
    n: int
    records: str
    """The file of its records, which is unique."""


class SetRanking(NamedTuple):
    """One set."""

    dataset: str
    figure: str
    larger_is_better: bool
    models: list[RankedModel]


def rank(results: Sequence[Result]) -> list[SetRanking]:
    """Rank the results of each set by the figure that its metric selects by; equals share a rank.

    Args:
        results: As `finalise.as_data` makes them.
    """
    sets: dict[str, list[Result]] = {}
    for result in results:
        sets.setdefault(result["dataset"], []).append(result)
    return [_of_set(dataset, members) for dataset, members in sets.items()]


def _of_set(dataset: str, members: Sequence[Result]) -> SetRanking:
    figure, larger = members[0]["select_by"], bool(members[0]["larger_is_better"])
    sign = -1 if larger else 1

    def place(result: Result) -> tuple[bool, float, int]:
        value = result["values"].get(figure)
        return (value is None, 0.0 if value is None else sign * value, result["model"]["step"])

    ranked: list[RankedModel] = []
    for number, result in enumerate(sorted(members, key=place), 1):
        value = result["values"].get(figure)
        tied = ranked and ranked[-1].value == value
        bounds = result["intervals"].get(figure)
        ranked.append(
            RankedModel(
                rank=ranked[-1].rank if tied else number,
                label=result["model"]["label"],
                kind=result["model"]["kind"],
                step=result["model"]["step"],
                value=value,
                interval=(bounds[0], bounds[1]) if bounds else None,
                n=result["n"],
                records=result["records"],
            )
        )
    return SetRanking(dataset, figure, larger, ranked)


def markdown(ranking: SetRanking, results: Sequence[Result]) -> str:
    """Render one set: the ranking, and every figure of every model by step.

    Args:
        ranking: Of the set.
        results: All of them.
    """
    better = "larger" if ranking.larger_is_better else "smaller"
    lines = [
        f"# {ranking.dataset}",
        "",
        f"By `{ranking.figure}`; {better} is better. Intervals are 95 %.",
        "",
        f"| | model | {ranking.figure} | 95 % interval | n |",
        "|--:|---|--:|---|--:|",
    ]
    lines += [
        f"| {one.rank} | {one.label} | {number(one.value)} | {interval(one.interval)} | {one.n:,} |"
        for one in ranking.models
    ]
    members = [result for result in results if result["dataset"] == ranking.dataset]
    members.sort(key=lambda result: (result["model"]["run"] or "", result["model"]["step"]))
    names = figure_names(ranking, members)
    lines += [
        "",
        "## Over training",
        "",
        "| model | step | " + " | ".join(names) + " |",
        "|---|--:|" + "--:|" * len(names),
    ]
    for result in members:
        cells = " | ".join(number(result["values"].get(name)) for name in names)
        lines.append(f"| {result['model']['label']} | {result['model']['step']} | {cells} |")
    return "\n".join(lines) + "\n"


def figure_names(ranking: SetRanking, members: Sequence[Result]) -> list[str]:
    """The figures of a set in reading order: first what the models are ranked by, last what qualifies it."""
    every = dict.fromkeys(name for result in members for name in result["values"])
    middle = [name for name in every if name not in (*_OTHERS, ranking.figure)]
    last = [name for name in _OTHERS if name in every and name != ranking.figure]
    return [ranking.figure, *middle, *last]


def number(value: float | None) -> str:
    """A figure for a table."""
    return "not defined" if value is None else f"{value:.4f}"


def interval(bounds: tuple[float, float] | None) -> str:
    """An interval for a table."""
    return "-" if bounds is None else f"{bounds[0]:.4f} to {bounds[1]:.4f}"
