"""What is found out once about an evaluation set: its rows, its references, how it can be measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tunebook import metrics
from tunebook.errors import TunebookError
from tunebook.hooks.decoding import Detokenizer
from tunebook.hooks.rows import AnswerRow, read_rows
from tunebook.scoring.subset import seeded_subset
from tunebook.types import MEDIA, Figure, Metric, MetricMode, MetricSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineWords:
    """How the engine calls the settings that our messages name, the limit it works under, its collator."""

    length_key: str
    prompt_loss_key: str
    length_limit: int
    """Tokens per row."""
    answer_header: tuple[int, ...] = ()
    """Token ids before every answer, as the engine's template writes them; empty: found by comparing
    rows."""
    collator: Any = None
    """Makes batches of rows with pictures and the like; see `collate_media`. None: such rows are refused."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationSet:
    """One evaluation set and what is measured on it. Without metrics: only loss and perplexity."""

    name: str
    metrics: tuple[tuple[Metric, MetricSpec], ...]
    beside: Mapping[str, Figure] | None = None
    """For a set of preferences: what the engine's own evaluation reports, by name without `eval_`. It stays
    as it is, and answers are measured beside it. None: our evaluation is the only one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A set, ready to be evaluated any number of times."""

    chosen: EvaluationSet
    dataset: Any
    """The engine's tokenised rows."""
    detokenizer: Detokenizer
    rows: list[AnswerRow]
    """What is known of each row of `dataset`."""
    references: list[str]
    """By row."""
    mode: MetricMode
    """`generate` as soon as one metric of the set needs it."""
    scored: list[int]
    """Rows that metrics are computed on, ascending."""
    class_ids: list[list[int]]
    """For each class of `classes_of`, the token ids it may begin with; empty without classes."""
    classes_of: Metric | None
    """The metric whose classes are looked up in the logits."""
    max_new_tokens: int
    notes: tuple[str, ...]
    """What the user has to know about this set, one line each."""
    collator: Any = None
    """The engine's, where rows have pictures, videos or sounds."""

    @property
    def metrics(self) -> list[Metric]:
        """The set's metrics, without their options."""
        return [metric for metric, _ in self.chosen.metrics]

    def prompt(self, index: int) -> str:
        """The prompt of a row, or its end, as text."""
        ids = self.dataset[index]["input_ids"]
        return self.detokenizer.prompt(ids[: self.rows[index].answer.start])


def prepare(chosen: EvaluationSet, dataset: Any, detokenizer: Detokenizer, words: EngineWords) -> Prepared:
    """Read a set once and decide how it is measured.

    Raises:
        TunebookError: The rows cannot be evaluated, or a reference is unusable for a metric.
    """
    media = _media_of(dataset)
    if media and (words.collator is None or chosen.beside is not None):
        raise TunebookError(
            f"{chosen.name}: its rows have {', '.join(media)}, which our evaluation would leave out",
            fix=f'take "metric" out of the registry entry {chosen.name}: the engine then evaluates it alone',
        )
    rows = read_rows(
        dataset,
        name=chosen.name,
        stop_ids=detokenizer.stop_ids,
        length_limit=words.length_limit,
        header=words.answer_header,
        prompt_loss_key=words.prompt_loss_key,
        cut_at_limit=chosen.beside is None,
    )
    references = [detokenizer.answer(row.answer_ids) for row in rows]
    chosen = replace(
        chosen,
        metrics=metrics.fitted(
            chosen.metrics, [references[row.index] for row in rows if not row.cut], chosen.name
        ),
    )
    usable = [row.index for row in rows if _references_usable(chosen, row, references[row.index])]
    notes = _note_cut_rows(chosen, rows, words)
    mode, note = _mode(chosen, rows, references, detokenizer)
    classes_of = next((metric for metric, _ in chosen.metrics if metric.classes), None)
    class_ids: list[list[int]] = []
    if classes_of and _are_bare(classes_of, rows, references):
        class_ids = _class_ids(classes_of, [rows[index] for index in usable], references, detokenizer)
        if not class_ids:
            note.append(
                f"{chosen.name}: {classes_of.name}: no token tells the set's classes apart, so AUROC, "
                "average precision, Brier score and calibration are left out"
            )
    return Prepared(
        chosen=chosen,
        dataset=dataset,
        detokenizer=detokenizer,
        rows=rows,
        references=references,
        mode=mode,
        scored=_subset(usable, chosen) if mode == "generate" else usable,
        class_ids=class_ids,
        classes_of=classes_of,
        max_new_tokens=max(
            (spec.max_new_tokens or metric.default_max_new_tokens for metric, spec in chosen.metrics),
            default=0,
        ),
        notes=(*notes, *note),
        collator=words.collator if media else None,
    )


def _media_of(dataset: Any) -> list[str]:
    """The columns of a set in which a row has pictures, videos or sounds."""
    columns = getattr(dataset, "column_names", None) or ()
    if "example" in columns:  # under Axolotl, which keeps them in the conversation
        return ["example"]
    found = [column for column in MEDIA if column in columns]
    return [column for column in found if any(dataset[column])]


def _mode(
    chosen: EvaluationSet, rows: Sequence[AnswerRow], references: Sequence[str], detokenizer: Detokenizer
) -> tuple[MetricMode, list[str]]:
    """Whether every metric can be read off the answer positions of these rows.

    A teacher-forced argmax is the greedy answer only where the answer is the first thing supervised. After
    a reasoning that the data wrote, the model is given what it would have had to find out.
    """
    mode: MetricMode = "answer"
    notes = []
    for metric, spec in chosen.metrics:
        direct = _is_direct_set(metric, rows, references, detokenizer)
        if spec.mode == "answer" and not direct:
            why = (
                "the supervised text does not begin with the answer"
                if metric.classes
                else "its predictions are free text"
            )
            raise TunebookError(
                f'{chosen.name}: {metric.name} has "mode": "answer", but {why}, so a teacher-forced answer '
                "would not be what the model says",
                fix='remove "mode", or set "mode": "generate", in the dataset\'s "metric"; with '
                "`tunebook eval`, leave --method answer out",
            )
        # Trained on preferences, a model may well say something before the answer.
        if spec.mode == "generate" or not direct or (chosen.beside is not None and spec.mode is None):
            mode = "generate"
            if metric.classes and spec.mode is None and chosen.beside is None:
                notes.append(
                    f"{chosen.name}: {metric.name} generates its answers, because the supervised text does "
                    "not begin with the answer; loss and perplexity come from the answer positions"
                )
    return mode, notes


def _is_direct_set(
    metric: Metric, rows: Sequence[AnswerRow], references: Sequence[str], detokenizer: Detokenizer
) -> bool:
    """Whether in every row that is not cut the first supervised token already is the answer."""
    if not metric.classes:
        return False
    known: dict[tuple[int, str], bool] = {}  # a class answer has few spellings: decide each once
    for row in rows:
        if row.cut:
            continue
        key = (row.answer_ids[0], references[row.index])
        if key not in known:
            first = metric.score(detokenizer.answer([key[0]]), key[1])
            known[key] = first.parsed is not None and first.parsed == first.reference
        if not known[key]:
            return False
    return True


def _are_bare(metric: Metric, rows: Sequence[AnswerRow], references: Sequence[str]) -> bool:
    """Whether in every row that is not cut the supervised text is a class and nothing else.

    Then its first token says which one, where the classes begin differently, also where it has several.
    """
    texts = {references[row.index] for row in rows if not row.cut}
    return all(metric.score(text, text).rule == "bare" for text in texts)


def _references_usable(chosen: EvaluationSet, row: AnswerRow, reference: str) -> bool:
    """Whether every metric can read the reference. A cut row is left unscored; any other is an error."""
    for metric, _ in chosen.metrics:
        try:
            metric.score("", reference)
        except ValueError as err:
            if row.cut:
                return False
            raise TunebookError(
                f"{chosen.name}, row {row.index}: {metric.name} cannot use the reference "
                f"{reference[:80]!r}: {err}",
                fix=f'fix the row, or remove "{metric.name}" from the dataset\'s "metric"',
            ) from err
    return True


def _class_ids(
    metric: Metric, rows: Sequence[AnswerRow], references: Sequence[str], detokenizer: Detokenizer
) -> list[list[int]]:
    """Token ids that only one class may begin with, by class; empty where a class has none of its own.

    They are those that the set's own labels begin with, in whatever language. Where a class is spelt as the
    metric knows it, its other spellings count as well, also of a class that does not occur in the set.
    """
    found: dict[str, set[int]] = {name: set() for name in metric.classes}
    for row in rows:
        name = metric.score("", references[row.index]).reference
        if name in found:
            found[name].add(row.answer_ids[0])
    spelt = {name: detokenizer.first_ids(words) for name, words in metric.classes.items()}
    if all(ids & spelt[name] for name, ids in found.items() if ids):
        found = {name: ids | spelt[name] for name, ids in found.items()}
    own = [
        sorted(ids.difference(*(other for one, other in found.items() if one != name)))
        for name, ids in found.items()
    ]
    return own if all(own) else []


def _subset(usable: list[int], chosen: EvaluationSet) -> list[int]:
    """The rows to generate for: all, or a fixed pseudo-random subset of the largest `max_samples`."""
    limits = [spec.max_samples for _, spec in chosen.metrics]
    sizes = [limit for limit in limits if limit is not None]
    return seeded_subset(usable, max(sizes) if sizes and len(sizes) == len(limits) else None)


def _note_cut_rows(chosen: EvaluationSet, rows: Sequence[AnswerRow], words: EngineWords) -> list[str]:
    cut = [row.index for row in rows if row.cut]
    if not cut:
        return []
    some = ", ".join(map(str, cut[:5])) + (", ..." if len(cut) > 5 else "")
    return [
        (
            f"warning: {chosen.name}: {len(cut)} of {len(rows)} rows lost part of the answer or of the "
            f"assistant header at {words.length_key} = {words.length_limit} (rows {some}); they are "
            f"evaluated as they are; raise {words.length_key} or filter the data"
        )
    ]
