"""Plans an evaluation through a server: the questions, and the names under which answers are kept."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunebook import engines, metrics, paths
from tunebook.data.registry import load_registry
from tunebook.errors import Faults, TunebookError
from tunebook.evaluation.models import is_run
from tunebook.evaluation.plan import JOURNAL, EvalUnit
from tunebook.evaluation.questions import read_questions
from tunebook.evaluation.records import (
    Candidate,
    SetHeader,
    SetRow,
    digest,
    journal_key,
    result_name,
    settings_words,
)
from tunebook.evaluation.shots_data import with_shots
from tunebook.recipes import overlays
from tunebook.recipes.catalog import find_recipe, read_recipe
from tunebook.runs import provenance
from tunebook.runs.folder import FOLDER
from tunebook.scoring.subset import seeded_subset
from tunebook.training.resolve import locate

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tunebook.data.registry import Registry
    from tunebook.evaluation.questions import Question, QuestionSet
    from tunebook.evaluation.shots import ShotsRequest
    from tunebook.types import MetricSpec, Recipe


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointRequest:
    """What a user asks of a server."""

    source: str
    """A run or a recipe, of which sets, rows, system prompts and thinking are used."""
    url: str
    output: Path
    model: str | None = None
    """None: the only one that the server has."""
    label: str | None = None
    """What people call the model; None for its name and the server's."""
    datasets: tuple[str, ...] = ()
    overrides: tuple[str, ...] = ()
    max_samples: int | None = None
    completions: bool = False
    """Send the prompt as text for the model to continue, not as messages."""
    send_options: bool = True
    """Send `chat_template_kwargs` where the recipe has any."""
    shots: ShotsRequest | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointPlan:
    """Everything that is known before the first request."""

    request: EndpointRequest
    recipe: Recipe
    run_label: str
    sets: list[AskedSet]
    options: dict[str, Any]
    """`chat_template_kwargs` that put the template into the recipe's mode."""
    stop: list[str]
    """Texts that end an answer; sent only with --completions."""
    shots: dict[str, Any] | None
    """The examples before each question."""
    notes: list[str]


def plan_endpoint(request: EndpointRequest) -> EndpointPlan:
    """Read the sets of a run or recipe as questions.

    Raises:
        TunebookError: There is no such run or recipe, or a set cannot be asked.
    """
    home = paths.home()
    recipe, run_label = _recipe(request, home)
    engine = engines.load(recipe.engine)
    values, labels = engine.evaluation(recipe.values, datasets=request.datasets or None, home=home)
    sets: list[AskedSet] = []
    notes: list[str] = []
    shots = None
    if request.shots is not None:
        made = with_shots(request.shots, recipe.values, values, recipe.engine, home=home)
        values, shots = made.values, made.shots.as_data()
        notes += made.notes
    registry = load_registry(Path(str(values[engine.registry_key])))
    judged = {}
    for label in labels:
        members = [label] if label in registry.values else label.split("+")
        if any(spec.reads_answers for spec in registry.entry(members[0]).metrics):
            judged[label] = members
        else:
            notes.append(
                f"{label}: carries no metric that judges answers, and a server gives no loss: left out"
            )
    if not judged:
        raise TunebookError(
            f"{recipe.path}: none of its sets has a metric that judges answers",
            fix='add a "metric" to an entry of the registry, and name the entry with --dataset',
        )
    names = list(dict.fromkeys(name for members in judged.values() for name in members))
    read = {one.name: one for one in read_questions(values, recipe.engine, names, home=home)}
    for label, members in judged.items():
        specs = registry.entry(members[0]).metrics
        found = [read[name] for name in members]
        if request.completions and recipe.engine == "axolotl" and found[0].tokenizer is None:
            raise TunebookError(
                "--completions sends whole prompts, and the chat template that writes them is part of a "
                "tokenizer that is not on this machine",
                fix="download it, and name its folder: tokenizer_config=FOLDER",
            )
        sets.append(asked_set(label, members, specs, found, registry, request.max_samples))
        notes += [f"{label}: {line}" for line in about_rows(found)]
    options, stop = _template_options(recipe, values, read[names[0]])
    return EndpointPlan(
        request=request,
        recipe=replace(recipe, values=values),
        run_label=run_label,
        sets=sets,
        options=options,
        stop=stop,
        shots=shots,
        notes=notes,
    )


def unit_of(
    plan: EndpointPlan, asked: AskedSet, *, model: str, served: str | None, options: bool
) -> EvalUnit:
    """Return where answers are kept, and the name of the result.

    Args:
        plan: From `plan_endpoint`.
        asked: One of its sets.
        model: The model's name at the server.
        served: Its weights, where the server says what they are.
        options: Whether the server takes `chat_template_kwargs`.
    """
    request = plan.request
    host = request.url.partition("://")[2].partition("/")[0]
    label = request.label or f"{model} at {host}"
    candidate = Candidate(label=label, kind="endpoint", path=request.url, base=model, run=None, step=0)
    deciding: dict[str, Any] = {
        "label": request.label,
        "served": served,
        "data": asked.data,
        "api": "completions" if request.completions else "chat",
        "chat_template_kwargs": plan.options if options else None,
        "max_new_tokens": asked.header.max_new_tokens,
        "max_samples": request.max_samples,
        # Not the recipe: what it decides is in the questions themselves.
        "questions": digest({"asked": [[one.messages, one.prompt] for one in asked.questions.values()]}),
    }
    words = settings_words(
        method=None, max_samples=request.max_samples, shots=plan.shots["n"] if plan.shots else 0
    )
    name = result_name(
        recipe=plan.recipe.name, run_label=plan.run_label, dataset=asked.name, candidate=candidate,
        settings=words, digest=digest(deciding),
    )  # fmt: skip
    about = {
        "engine": plan.recipe.engine,
        "recipe": {"name": plan.recipe.name},
        "data": asked.data,
        "endpoint": {
            "url": request.url,
            "model": model,
            "served": served,
            "api": deciding["api"],
            "chat_template_kwargs": deciding["chat_template_kwargs"],
            "temperature": 0,
        },
        "max_samples": request.max_samples,
        "shots": plan.shots,
    }
    journal = request.output / JOURNAL / journal_key(candidate, asked.name, deciding)
    return EvalUnit(candidate, asked.name, journal.absolute(), name, about)


def _recipe(request: EndpointRequest, home: Path) -> tuple[Recipe, str]:
    root = home / "recipes"
    folder = Path(request.source)
    run_label = ""
    if is_run(folder):
        recipe, run_label = read_recipe(folder / FOLDER / "recipe.yaml", root), folder.absolute().name
    elif folder.is_dir():
        raise TunebookError(
            f"{folder}: is not the output_dir of a run that tunebook started",
            fix="name the recipe with the sets to ask: the model is the server's",
        )
    else:
        recipe = find_recipe(request.source, root)
    recipe = overlays.resolve(recipe, root, (), request.overrides).recipe
    engine = engines.load(recipe.engine)
    values = dict(recipe.values)
    # The model and its sharding are the server's.
    kept = {key: value for key, value in values.items() if key not in ("deepspeed", "fsdp_config")}
    models = {key: kept.pop(key) for key in engine.model_keys if key in kept}
    faults = Faults()
    located, _ = locate(kept, engine, (home,), faults)
    faults.refuse()
    for key, value in models.items():
        beside = home / str(value)
        located[key] = str(beside) if isinstance(value, str) and beside.is_dir() else value
    return replace(recipe, values=located), run_label


def _template_options(
    recipe: Recipe, values: Mapping[str, Any], asked: QuestionSet
) -> tuple[dict[str, Any], list[str]]:
    """What puts a server's chat template into the recipe's mode, and what ends an answer."""
    if recipe.engine == "axolotl":
        return dict(values.get("chat_template_kwargs") or {}), []
    off = asked.reasons and not values.get("enable_thinking", True)
    return ({"enable_thinking": False} if off else {}), list(asked.stop)


_NOT_KNOWN = "loss and perplexity are not known: a server gives only answers"


@dataclass(frozen=True, slots=True, kw_only=True)
class AskedSet:
    """One evaluation set, ready to be asked of a server."""

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
        label: The name of the set.
        members: The registry entries that it consists of.
        specs: What is measured on it.
        found: The questions of each member.
        registry: Of the recipe.
        max_samples: Rows of a fixed, seeded part; None for all.

    Raises:
        TunebookError: A metric cannot use a reference.
    """
    loaded = metrics.load_asked(specs)
    questions: list[Question] = []
    for one in found:
        questions += [replace(question, index=len(questions) + question.index) for question in one.questions]
    loaded = metrics.fitted(loaded, [question.reference for question in questions], label)
    for question in questions:
        for metric, _ in loaded:
            try:
                metric.score("", question.reference)
            except ValueError as err:
                raise TunebookError(
                    f"{label}, row {question.index}: {metric.name} cannot use the reference "
                    f"{question.reference[:80]!r}: {err}",
                    fix=f'fix the row, or remove "{metric.name}" from the dataset\'s "metric"',
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
    """Return what the user should know of the rows of a set, a line each."""
    lines = []
    for one in found:
        lines += [f"{count} rows left out: {reason}" for reason, count in one.left_out.items()]
        if one.over_limit:
            lines.append(
                f"{one.over_limit} rows are above the engine's limit of {one.length_limit} tokens, where "
                "it cuts them; the server gets them uncut"
            )
        if one.tokenizer is None:
            lines.append("the model's tokenizer is not on this machine: prompt lengths are not known")
    return lines
