"""The rows of an evaluation set as a server is asked them, built by the installed engine."""

from __future__ import annotations

from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunebook.data import registry as datasets
from tunebook.engines.axolotl.rules import DIRECTORY_KEY, NAMES_KEY
from tunebook.errors import TunebookError
from tunebook.lengths import asking
from tunebook.lengths.sets import (
    axolotl_request,
    axolotl_settings,
    axolotl_tokenizer,
    block_files,
    llamafactory_request,
    llamafactory_tokenizer,
    source_of,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tunebook.data.registry import Registry
    from tunebook.types import EngineName

_ALL_ROWS = ("streaming", "packing", "neat_packing", "train_on_prompt")
"""Keys of LLaMA-Factory with which evaluation rows hold no single answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """One row to be answered."""

    index: int
    """Row of the evaluation set, from 0, as the engine counts: rows that it leaves out have none."""
    source_row: int
    """Row of the data, from 1."""
    messages: list[dict[str, str]]
    """What is before the last answer, `{"role", "content"}` each; roles as OpenAI's API calls them."""
    prompt: str
    """The whole prompt as text to be tokenised, without a BOS that the tokenizer itself puts there."""
    shown: str
    """The end of the prompt, as records show it."""
    reference: str
    prompt_tokens: int | None
    """Of the engine's prompt; None where the model's tokenizer is not on this machine."""
    tokens: int | None
    """Of the whole row, before the engine cuts it."""


@dataclass(slots=True, kw_only=True)
class QuestionSet:
    """An evaluation set."""

    name: str
    questions: list[Question]
    left_out: Counter[str] = field(default_factory=Counter)
    """Rows that the engine does not evaluate, by reason."""
    tokenizer: str | None = None
    """The folder of the tokenizer that prompts were counted with."""
    length_limit: int = 0
    """Tokens of a row, at which the engine cuts it or leaves it out."""
    over_limit: int = 0
    """Rows that the engine cuts there; not known without a tokenizer."""
    stop: tuple[str, ...] = ()
    """Texts with which the template ends an answer, beside the tokenizer's own."""
    reasons: bool = False
    """Whether the template is one of LLaMA-Factory's for models that think."""


def read_questions(
    values: Mapping[str, Any],
    engine: EngineName,
    names: Sequence[str],
    *,
    home: Path,
    may_be_empty: bool = False,
) -> list[QuestionSet]:
    """Read evaluation sets of a recipe. The engine is started once for all of them, or not at all.

    Args:
        values: The recipe.
        engine: Whose it is.
        names: Registry entries that the recipe evaluates on.
        home: Where data is looked for that is not below the current folder.
        may_be_empty: Whether a set without any question is no error.

    Raises:
        TunebookError: The engine is not installed, a set cannot be read, or none of its rows can be asked.
    """
    job = (_llamafactory if engine == "llamafactory" else _axolotl)(values, names, home)
    found = []
    for name, answer in zip(names, asking.ask(job), strict=True):
        one = answer.values
        questions = [Question(index=index, **row) for index, row in enumerate(one["questions"])]
        left_out = Counter(reason for _, reason in one["left_out"])
        if not questions and not may_be_empty:
            reasons = ", ".join(f"{reason} ({count})" for reason, count in left_out.items())
            raise TunebookError(
                f"{name}: no row can be asked{f': {reasons}' if reasons else ''}",
                fix="check the data and its columns",
            )
        found.append(
            QuestionSet(
                name=name,
                questions=questions,
                left_out=left_out,
                tokenizer=None if job.tokenizer is None else str(job.tokenizer),
                length_limit=one["limit"],
                over_limit=sum((row.tokens or 0) > one["limit"] for row in questions),
                stop=tuple(one.get("stop", ())),
                reasons=bool(one.get("reasoning")),
            )
        )
    return found


def _llamafactory(values: Mapping[str, Any], names: Sequence[str], home: Path) -> asking.Job:  # noqa: ARG001
    if not values.get("eval_dataset"):
        raise TunebookError(
            "the recipe names no eval_dataset"
            + (": only the engine knows the rows that val_size holds out" if values.get("val_size") else ""),
            fix="name a set of the registry with --dataset",
        )
    for key in _ALL_ROWS:
        if values.get(key):
            raise TunebookError(
                f"`{key}: true` applies to the evaluation rows too: answer and prompt cannot be separated",
                fix=f"evaluate with {key}=false",
            )
    registry = datasets.load_registry(Path(str(values.get("dataset_dir", "data"))))
    settings = asking.llamafactory_settings(values)
    tokenizer: Path | None = None
    with suppress(TunebookError):  # the model may be on the server's machine only
        tokenizer = llamafactory_tokenizer(values)
        settings["model_name_or_path"] = str(tokenizer)
    drawn = {name: _drawn_before(values, registry, name) for name in names}
    used = dict.fromkeys([*names, *(one for earlier in drawn.values() for one in earlier)])
    sources = {name: source_of(registry.entry(name)) for name in used}
    requests = {name: llamafactory_request(source, draw=[]) for name, source in sources.items()}
    return asking.Job(
        engine="llamafactory",
        want="questions",
        settings=settings,
        sets=[{**requests[name], "draw": [requests[one] for one in drawn[name]]} for name in names],
        data=[[asking.contents(sources[one].files) for one in (*drawn[name], name)] for name in names],
        tokenizer=tokenizer,
    )


def _drawn_before(values: Mapping[str, Any], registry: Registry, name: str) -> list[str]:
    """The entries that `num_samples` draws from before an evaluation set, where rows are drawn from that too.

    The engine draws by numpy's global generator, for the training sets first: an entry's rows depend on
    those before it.
    """
    if not registry.entry(name).values.get("num_samples"):
        return []
    trained, evaluated = (_names(values.get(key)) for key in ("dataset", "eval_dataset"))
    before = [*trained, *evaluated[: evaluated.index(name)]]
    return [one for one in before if registry.entry(one).values.get("num_samples")]


def _axolotl(values: Mapping[str, Any], names: Sequence[str], home: Path) -> asking.Job:
    registry = datasets.load_registry(Path(str(values.get(DIRECTORY_KEY))))
    known = list(values.get(NAMES_KEY) or ())
    blocks = {}
    for name in names:
        registry.entry(name)
        blocks[name] = dict((values.get("test_datasets") or [])[known.index(name)])
    tokenizer: Path | None = None
    with suppress(TunebookError):  # the model may be on the server's machine only
        tokenizer = axolotl_tokenizer(values)
    return asking.Job(
        engine="axolotl",
        want="questions",
        settings=axolotl_settings(values, tokenizer),
        sets=[axolotl_request(name, block, "eval", home) for name, block in blocks.items()],
        data=[asking.contents(block_files(block, home)[0]) for block in blocks.values()],
        tokenizer=tokenizer,
    )


def _names(value: Any) -> list[str]:
    parts = value.split(",") if isinstance(value, str) else value if isinstance(value, list) else ()
    return [str(part).strip() for part in parts]
