"""Findings about prompts, beginnings of answers and stop tokens, from conversations that both sides wrote."""

from __future__ import annotations

import json
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from tunebook.data.rows import iter_rows
from tunebook.errors import TunebookError
from tunebook.inference.conversations import conversation_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path


_AS_SERVED = "as served"

_QUESTION = {"role": "user", "content": "Is 6 greater than 4? Answer Yes or No."}
_ANSWER = {"role": "assistant", "content": "Yes"}
_SYSTEM = {"role": "system", "content": "Answer in one word."}
_MORE = {"role": "user", "content": "And 3 than 8?"}
_LAST = {"role": "assistant", "content": "No"}
_REASONED = {"role": "assistant", "content": "<think>\nSix is more than four.\n</think>\n\nYes"}

SAMPLES: tuple[dict[str, Any], ...] = (
    {"name": "one turn", "messages": [_QUESTION, _ANSWER]},
    {"name": "system prompt", "messages": [_SYSTEM, _QUESTION, _ANSWER]},
    {"name": "two turns", "messages": [_QUESTION, _ANSWER, _MORE, _LAST]},
    {"name": "system prompt, two turns", "messages": [_SYSTEM, _QUESTION, _ANSWER, _MORE, _LAST]},
    {"name": "reasoning in the first answer", "messages": [_QUESTION, _REASONED, _MORE, _LAST]},
)
"""Without tools. The last is written only for models that were trained to think."""
REASONING = "reasoning in the first answer"

_ROWS = 20

Level = Literal["equal", "note", "differs", "unknown"]


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifyFinding:
    """One thing that was compared."""

    check: str
    level: Level
    """`unknown`: nothing says what training used. Only `differs` makes the command exit 1."""
    message: str
    fix: str | None = None
    """What to do; set where the level is `differs`."""


def prompt_findings(
    rendered: Mapping[str, Any], *, changed: bool, default_system: str | None
) -> list[VerifyFinding]:
    """Compare each conversation's prompt: what came before the answer in training, and what is sent.

    Args:
        rendered: The result of `hooks.render`.
        changed: Whether the saved chat template is another than training saved.
        default_system: The system prompt that training used where a row had none.
    """
    if not rendered["has_template"]:
        return [
            VerifyFinding(
                check="prompts",
                level="differs",
                message="the saved tokenizer has no chat template: a server cannot write a prompt at all",
                fix="save the tokenizer of a model with one, or give the server the template (vLLM: "
                "--chat-template FILE)",
            )
        ]
    remedy = _remedy(rendered, changed=changed, default_system=default_system)
    return [_prompt(sample, rendered, remedy) for sample in rendered["samples"]]


def _prompt(sample: Mapping[str, Any], rendered: Mapping[str, Any], remedy: str) -> VerifyFinding:
    check = f"prompt: {sample['name']}"
    served = sample["served"]["prompts"][_AS_SERVED]
    if isinstance(served, str):
        return VerifyFinding(
            check=check, level="note", message=f"the chat template refuses it ({served}); training wrote it"
        )
    trained = trained_prompt(sample)
    place = first_difference(trained, served)
    if place is None:
        return VerifyFinding(check=check, level="equal", message=f"{len(trained)} tokens, all equal")
    texts = rendered["texts"]
    left = repr(texts["trained"][str(trained[place])]) if place < len(trained) else "the answer"
    right = repr(texts["served"][str(served[place])]) if place < len(served) else "nothing more"
    return VerifyFinding(
        check=check,
        level="differs",
        message=f"differs at token {place}: training had {left}, a server sends {right} "
        f"({len(trained)} tokens against {len(served)})",
        fix=remedy,
    )


def trained_prompt(sample: Mapping[str, Any]) -> list[int]:
    """What came before the answer in training."""
    trained = sample["trained"]
    return list(trained["ids"][: trained["answer_start"]])


def _remedy(rendered: Mapping[str, Any], *, changed: bool, default_system: str | None) -> str:
    """The way of asking that makes every prompt equal that is not; else what is left to do."""
    ways = [way for way in rendered["samples"][0]["served"]["prompts"] if way != _AS_SERVED]
    for way in ways:
        if all(_fits(sample, way) for sample in rendered["samples"]):
            return _in_words(way, default_system)
    if changed:
        return "the saved chat template was changed after training: put the one back that training saved"
    for way in ways:
        if _fits(rendered["samples"][0], way):
            return (
                f"{_in_words(way, default_system)}; that fixes single turns, but not every conversation: for "
                "those, send prompts as token ids, or train with the template that the server uses"
            )
    return (
        "give the server a chat template that writes what training did (vLLM: --chat-template FILE), or "
        "train with the template that belongs to the model"
    )


def _fits(sample: Mapping[str, Any], way: str) -> bool:
    prompts = sample["served"]["prompts"]
    served = prompts.get(way, prompts.get(way.removesuffix(" with the system prompt")))
    return isinstance(served, str) or served == trained_prompt(sample)


def _in_words(way: str, default_system: str | None) -> str:
    option, _, system = way.partition(" with the system prompt")
    parts = []
    if option != _AS_SERVED:
        value = json.loads(option.partition("=")[2])
        parts.append(f"serve with chat_template_kwargs={json.dumps({'enable_thinking': value})}")
    if system or way.endswith("with the system prompt"):
        parts.append(
            f"send the system prompt {json.dumps(default_system, ensure_ascii=False)} with each request"
        )
    return " and ".join(parts)


def answer_findings(rendered: Mapping[str, Any]) -> Iterator[VerifyFinding]:
    """Look at what training put between the prompt and an answer's own text."""
    prefixes = {sample["trained"]["answer_prefix"] for sample in rendered["samples"]} - {""}
    if not prefixes:
        yield VerifyFinding(
            check="answer", level="equal", message="what was trained begins with the answer itself"
        )
        return
    prefix = max(prefixes, key=len)
    begins = f"the model was trained to write {prefix!r} before its answer"
    known = any(
        prefix + sample["messages"][-1]["content"] in sample["served"].get("whole", "")
        for sample in rendered["samples"]
    )
    if known:
        yield VerifyFinding(
            check="answer", level="note", message=f"{begins}, as the chat template does itself"
        )
    else:
        yield VerifyFinding(
            check="answer",
            level="differs",
            message=f"{begins}, and the saved chat template does not know that: it comes out as text, and is "
            "missing from the history of a conversation",
            fix="let the server remove it (vLLM: --reasoning-parser), or train with "
            "`enable_thinking: false` or a template that does not think",
        )


def stop_findings(
    rendered: Mapping[str, Any], generation_eos: Sequence[int] | None, place: str
) -> Iterator[VerifyFinding]:
    """Compare what training put after an answer with what ends a generation.

    Args:
        rendered: The result of `hooks.render`.
        generation_eos: `eos_token_id` of the generation settings; None where there are none.
        place: Their file, for messages.
    """
    sample = rendered["samples"][0]
    texts, closing = rendered["texts"]["trained"], sample["trained"]["closing"]
    if not closing:
        yield VerifyFinding(
            check="stop tokens",
            level="differs",
            message="training put nothing after an answer: the model was not trained to stop",
            fix="train with a template that closes a turn",
        )
        return
    shown = ", ".join(f"{texts[str(identity)]!r} ({identity})" for identity in closing)
    saved = rendered["saved_eos"]
    stops = set(generation_eos or ()) | ({saved} if saved is not None else set())
    if not stops & set(closing):
        yield VerifyFinding(
            check="stop tokens",
            level="differs",
            message=f"training closed answers with {shown}, but generation ends at "
            f"{sorted(stops) or 'nothing'}",
            fix=f'write `"eos_token_id": {closing[0]}` into {place}',
        )
    elif generation_eos is not None and not set(generation_eos) & set(closing):
        yield VerifyFinding(
            check="stop tokens",
            level="differs",
            message=f"training closed answers with {shown}; {place} ends at {list(generation_eos)}: vLLM "
            "also stops at the tokenizer's, transformers does not stop",
            fix=f'write `"eos_token_id": {json.dumps([closing[0], *generation_eos])}` into {place}',
        )
    else:
        yield VerifyFinding(check="stop tokens", level="equal", message=f"answers were closed with {shown}")


def read_samples(path: Path) -> list[dict[str, Any]]:
    """Read conversations from a file in any shape that `tunebook infer` reads; the first 20 rows.

    Raises:
        TunebookError: The file cannot be read, or holds no rows.
    """
    found = []
    for number, row in enumerate(iter_rows(path), 1):
        conversation = conversation_of(row, f"{path}, row {number}")
        answer = {"role": "assistant", "content": conversation.reference or _ANSWER["content"]}
        found.append({"name": f"{path.name}, row {number}", "messages": [*conversation.messages, answer]})
        if number == _ROWS:
            break
    if not found:
        raise TunebookError(f"{path}: holds no rows", fix="write one conversation a row into it")
    return found


class Pair(NamedTuple):
    """One line of an alignment; None on the side that has no such token."""

    trained: int | None
    served: int | None

    @property
    def equal(self) -> bool:
        """Whether both sides have this token."""
        return self.trained == self.served


def align(trained: Sequence[int], served: Sequence[int]) -> list[Pair]:
    """Align two lists of token ids by their longest common runs.

    >>> [tuple(pair) for pair in align([1, 2, 3], [1, 3])]
    [(1, 1), (2, None), (3, 3)]
    """
    pairs: list[Pair] = []
    for _, begin, end, other, until in SequenceMatcher(None, trained, served, autojunk=False).get_opcodes():
        left, right = list(trained[begin:end]), list(served[other:until])
        width = max(len(left), len(right))
        padding: list[int | None] = [None] * width
        pairs += [
            Pair(a, b)
            for a, b in zip(
                [*left, *padding][:width] if left else padding,
                [*right, *padding][:width] if right else padding,
                strict=True,
            )
        ]
    return pairs


def first_difference(trained: Sequence[int], served: Sequence[int]) -> int | None:
    """Return the position at which two lists begin to differ; None where they are equal.

    >>> first_difference([1, 2], [1, 2, 3])
    2
    """
    for place, (left, right) in enumerate(zip(trained, served, strict=False)):
        if left != right:
            return place
    return None if len(trained) == len(served) else min(len(trained), len(served))
