"""An evaluation set as it is put to a server: which of its rows, and what is measured on the answers."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from tunebook import metrics
from tunebook.errors import TunebookError
from tunebook.evaluation.records import SetHeader, SetRow
from tunebook.runs import provenance
from tunebook.scoring.subset import seeded_subset

if TYPE_CHECKING:
    from tunebook.data.registry import Registry
    from tunebook.evaluation.questions import Question, QuestionSet
    from tunebook.types import MetricSpec

_NOT_KNOWN = "loss and perplexity are not known: a server gives answers alone"


@dataclass(frozen=True, slots=True, kw_only=True)
class AskedSet:
    """One evaluation set, ready to be asked."""

    name: str
    header: SetHeader
    rows: list[SetRow]
    questions: dict[int, Question]
    """Those that are asked, by row."""
    data: dict[str, Any]
    """What the rows are, for people and for keys."""


def asked_set(
    label: str,
    members: list[str],
    specs: tuple[MetricSpec, ...],
    found: list[QuestionSet],
    registry: Registry,
    max_samples: int | None,
) -> AskedSet:
    """Put an evaluation set together.

    Args:
        label: What it is called.
        members: The registry entries that it is made of.
        specs: What is measured on it.
        found: The questions of each member.
        registry: Of the recipe.
        max_samples: Rows of a fixed, seeded part; None for all.

    Raises:
        TunebookError: A metric cannot use a reference.
    """
    loaded = [(metrics.load(spec.name), spec) for spec in specs if spec.name != "perplexity"]
    questions: list[Question] = []
    for one in found:
        questions += [replace(question, index=len(questions) + question.index) for question in one.questions]
    for question in questions:
        for metric, _ in loaded:
            try:
                metric.score("", question.reference)
            except ValueError as err:
                raise TunebookError(
                    f"{label}, row {question.index}: {metric.name} cannot use the reference "
                    f"{question.reference[:80]!r}: {err}",
                    fix=f'mend the row, or remove "{metric.name}" from the dataset\'s "metric"',
                ) from err
    limits = [spec.max_samples for _, spec in loaded]
    numbers = [limit for limit in limits if limit is not None]
    everything = range(len(questions))
    measured = set(seeded_subset(everything, max_samples))
    scored = measured & set(seeded_subset(everything, max(numbers) if len(numbers) == len(limits) else None))
    rows = [
        SetRow(
            index=one.index, prompt=one.shown, reference=one.reference, prompt_tokens=one.prompt_tokens,
            answer_cut=False, measured=False, scored=True,
        )
        for one in questions
        if one.index in scored
    ]  # fmt: skip
    header = SetHeader(
        dataset=label,
        metrics=tuple(spec for _, spec in loaded),
        mode="generate",
        classes_of=None,
        max_new_tokens=max(spec.max_new_tokens or metric.default_max_new_tokens for metric, spec in loaded),
        loss_batch_size=0,
        rows=len(rows),
        notes=(_NOT_KNOWN,),
    )
    data = {name: provenance.dataset_facts(registry.entry(name)) for name in members}
    return AskedSet(
        name=label,
        header=header,
        rows=rows,
        questions={one.index: one for one in questions if one.index in scored},
        data=data,
    )


def about_rows(found: list[QuestionSet]) -> list[str]:
    """Return what is to be said of the rows of a set, a line each."""
    lines = []
    for one in found:
        lines += [f"{count} rows left out: {reason}" for reason, count in one.left_out.items()]
        if one.over_limit:
            lines.append(
                f"{one.over_limit} rows are above the engine's limit of {one.length_limit} tokens, where "
                "it cuts them; the server is sent them whole"
            )
        if one.tokenizer is None:
            lines.append("the model's tokenizer is not on this machine: prompts are not counted before")
    return lines
