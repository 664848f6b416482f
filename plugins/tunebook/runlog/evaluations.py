"""Reads evaluations: from `eval_metrics.jsonl`, and out of series that the engine logged."""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING, Any, NamedTuple

from tunebook.metrics.figures import TRAINER_FIGURES
from tunebook.runlog.records import EvaluatedExample, Evaluation, Note
from tunebook.runlog.tolerant_json import as_float, as_int, numbers_of, read_lines

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from pathlib import Path

    from tunebook.runlog.records import Series

_ABOUT_SPEED = frozenset(
    {
        *(figure.name for figure in TRAINER_FIGURES if figure.descriptive),
        *("model_preparation_time", "num_input_tokens_seen"),
    }
)


class ReadEvaluations(NamedTuple):
    """Evaluations and what was lost of their file."""

    evaluations: list[Evaluation]
    notes: list[Note]


def read_eval_metrics(path: Path, source: str) -> ReadEvaluations:
    """Read `eval_metrics.jsonl`; of a step that was evaluated again after a resume, the later line counts.

    Raises:
        OSError: The file cannot be read.
    """
    lines = read_lines(path)
    found: dict[tuple[str, int, bool], Evaluation] = {}
    bad, repeated = lines.bad, 0
    for line in lines.objects:
        evaluation = evaluation_of(line, source)
        if evaluation is None:
            bad += 1
            continue
        key = (evaluation.dataset, evaluation.step, evaluation.after_training)
        repeated += key in found
        found[key] = evaluation
    notes = []
    if bad:
        notes.append(Note(kind="lost", file=source, message=f"{bad} lines are damaged and were left out"))
    if repeated:
        message = f"{repeated} evaluations were made again after a resume; the later one counts"
        notes.append(Note(kind="resumed", file=source, message=message))
    return ReadEvaluations(list(found.values()), notes)


def evaluation_of(line: Mapping[str, Any], source: str) -> Evaluation | None:
    """The evaluation that a JSON object describes; None where it names no set and step."""
    dataset, step = line.get("dataset"), as_int(line.get("step"))
    if not isinstance(dataset, str) or step is None:
        return None
    reasons = line.get("unparsed_reasons")
    metrics = line.get("metric")
    return Evaluation(
        dataset=dataset,
        step=step,
        epoch=as_float(line.get("epoch")),
        values=numbers_of(line.get("values")),
        stderr=numbers_of(line.get("stderr")),
        n=as_int(line.get("n")),
        n_unparsed=as_int(line.get("n_unparsed")),
        unparsed_reasons={str(k): int(v) for k, v in numbers_of(reasons).items()},
        answers_cut=as_int(line.get("answers_cut")),
        mode=line["mode"] if isinstance(line.get("mode"), str) else None,
        metrics=tuple(str(name) for name in metrics) if isinstance(metrics, list) else (),
        select_by=line["select_by"] if isinstance(line.get("select_by"), str) else None,
        larger_is_better=line.get("larger_is_better") is not False,
        seconds=as_float(line.get("seconds")),
        tokens=as_int(line.get("tokens")),
        source=source,
        after_training=line.get("in_training") is False,
        signatures=_texts(line.get("signatures")),
    )


def _texts(value: object) -> dict[str, str]:
    """The texts of a mapping, by name; none of what is no mapping."""
    if not isinstance(value, dict):
        return {}
    return {str(name): text for name, text in value.items() if isinstance(text, str)}


def from_series(
    series: Mapping[str, Series], datasets: Collection[str], *, accuracy_counts_tokens: bool
) -> list[Evaluation]:
    """Evaluations out of logged `eval_...` series.

    Args:
        series: As the Trainer logged them.
        datasets: Names of evaluation sets, as far as they are known: `eval_<dataset>_<figure>`. Where
            none is known, names are found by the figure they all end in, `loss`.
        accuracy_counts_tokens: The engine's `accuracy` is LLaMA-Factory's `compute_accuracy`, which
            counts label tokens and no answers: it is called `token_accuracy`.
    """
    names = sorted(_dataset_names(series, datasets), key=len, reverse=True)
    epochs = _lookup(series.get("epoch"))
    found: dict[tuple[str, int], dict[str, float]] = {}
    sources: dict[tuple[str, int], str] = {}
    for name, one in series.items():
        if not name.startswith("eval_"):
            continue
        figure = name.removeprefix("eval_")
        dataset = next((d for d in names if figure.startswith(f"{d}_")), "")
        figure = figure.removeprefix(f"{dataset}_") if dataset else figure
        if figure == "accuracy" and accuracy_counts_tokens:
            figure = "token_accuracy"
        for step, value in zip(one.steps.tolist(), one.values.tolist(), strict=True):
            found.setdefault((dataset, step), {})[figure] = value
            sources[dataset, step] = one.source
    return [
        Evaluation(
            dataset=dataset,
            step=step,
            epoch=epochs.get(step),
            values={name: value for name, value in values.items() if name not in _ABOUT_SPEED},
            seconds=values.get("runtime"),
            source=sources[dataset, step],
        )
        for (dataset, step), values in found.items()
    ]


def from_results(
    results: Mapping[str, float], prefix: str, dataset: str, step: int, source: str
) -> list[Evaluation]:
    """Evaluations out of a results file, made after training.

    Args:
        results: Its numbers.
        prefix: `eval_`, or `predict_` of a file of predictions.
        dataset: What the set is called where the file names none.
        step: Of the weights.
        source: The file.
    """
    named = {name.removeprefix(prefix): value for name, value in results.items() if name.startswith(prefix)}
    sets = {name.removesuffix("_loss") for name in named if name.endswith("_loss") and name != "loss"}
    found: dict[str, dict[str, float]] = {}
    for name, value in named.items():
        one = next((one for one in sets if name.startswith(f"{one}_")), "")
        found.setdefault(one or dataset, {})[name.removeprefix(f"{one}_") if one else name] = value
    return [
        Evaluation(
            dataset=one,
            step=step,
            epoch=results.get("epoch"),
            values={name: value for name, value in values.items() if name not in _ABOUT_SPEED | {"samples"}},
            n=int(values["samples"]) if "samples" in values else None,
            seconds=values.get("runtime"),
            source=source,
            after_training=True,
        )
        for one, values in found.items()
        if set(values) - _ABOUT_SPEED - {"samples"}
    ]


def _dataset_names(series: Mapping[str, Series], datasets: Collection[str]) -> set[str]:
    by_loss = {
        name.removeprefix("eval_").removesuffix("_loss")
        for name in series
        if name.startswith("eval_") and name.endswith("_loss") and name != "eval_loss"
    }
    return by_loss | {name for name in datasets if any(s.startswith(f"eval_{name}_") for s in series)}


def _lookup(series: Series | None) -> dict[int, float]:
    if series is None:
        return {}
    return dict(zip(series.steps.tolist(), series.values.tolist(), strict=True))


# Reads `eval_records-<dataset>-<step>.jsonl`: every evaluated example with its verdicts.

_NAME = re.compile(r"eval_records-(?P<dataset>.+)-(?P<step>\d+)\.jsonl")


class ReadExamples(NamedTuple):
    """The examples of one evaluation and what was lost of their file."""

    examples: list[EvaluatedExample]
    notes: list[Note]


def record_files(folder: Path) -> dict[tuple[str, int], Path]:
    """(dataset, step) -> file, of all record files in a folder."""
    found = {}
    for path in sorted(folder.glob("eval_records-*.jsonl")):
        if match := _NAME.fullmatch(path.name):
            found[match["dataset"], int(match["step"])] = path
    return found


def read_examples(path: Path, source: str) -> ReadExamples:
    """Read one file of records; of an index that is there twice, the later line counts.

    Raises:
        OSError: The file cannot be read.
    """
    lines, bad = _by_index(path)
    notes = []
    if bad:
        notes.append(Note(kind="lost", file=source, message=f"{bad} records are damaged and were left out"))
    return ReadExamples([_example(lines[index], source) for index in sorted(lines)], notes)


def count_answers(path: Path, metric: str) -> Counter[tuple[str, str | None]]:
    """How often each (reference, parsed answer) is in a file of records; `metric` answers with classes.

    Raises:
        OSError: The file cannot be read.
    """
    counted: Counter[tuple[str, str | None]] = Counter()
    for line in _by_index(path)[0].values():
        score = line["scores"].get(metric)
        if isinstance(score, dict) and isinstance(score.get("reference"), str):
            parsed = score.get("parsed")
            counted[score["reference"], parsed if isinstance(parsed, str) else None] += 1
    return counted


def _by_index(path: Path) -> tuple[dict[int, dict[str, Any]], int]:
    """The whole records of a file by their index, and how many are damaged."""
    lines = read_lines(path)
    found: dict[int, dict[str, Any]] = {}
    bad = lines.bad
    for line in lines.objects:
        index = as_int(line.get("index"))
        # Written out: this is where the time goes for records by the hundred thousand.
        if (
            index is None
            or type(line.get("scores")) is not dict
            or as_int(line.get("step")) is None
            or type(line.get("dataset")) is not str
            or type(line.get("prompt")) is not str
            or type(line.get("prediction")) is not str
            or type(line.get("reference")) is not str
        ):
            bad += 1
        else:
            found[index] = line
    return found, bad


def _example(line: Mapping[str, Any], source: str) -> EvaluatedExample:
    """The example of a whole record."""
    index, step = as_int(line["index"]), as_int(line["step"])
    assert index is not None
    assert step is not None
    return EvaluatedExample(
        dataset=line["dataset"],
        step=step,
        index=index,
        prompt=line["prompt"],
        prediction=line["prediction"],
        reference=line["reference"],
        mode=str(line.get("mode", "")),
        scores={str(name): score for name, score in line["scores"].items() if isinstance(score, dict)},
        margin=as_float(line.get("margin")),
        answer_cut=line.get("answer_cut") is True,
        source=source,
        reference_tokens=as_int(line.get("reference_tokens")),
    )
