"""Findings about prompts, beginnings of answers and stop tokens, from what both sides wrote."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from tunebook.verification.align import first_difference
from tunebook.verification.findings import Finding

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

_AS_SERVED = "as served"


def prompt_findings(
    rendered: Mapping[str, Any], *, changed: bool, default_system: str | None
) -> list[Finding]:
    """Compare each conversation's prompt: what stood before the answer in training, and what is sent.

    Args:
        rendered: The result of `hooks.render`.
        changed: Whether the saved chat template is another than training saved.
        default_system: The system prompt that training put where a row had none.
    """
    if not rendered["has_template"]:
        return [
            Finding(
                check="prompts",
                level="differs",
                message="the saved tokenizer has no chat template: a server cannot write a prompt at all",
                fix="save the tokenizer of a model with one, or give the server the template (vLLM: "
                "--chat-template FILE)",
            )
        ]
    remedy = _remedy(rendered, changed=changed, default_system=default_system)
    return [_prompt(sample, rendered, remedy) for sample in rendered["samples"]]


def _prompt(sample: Mapping[str, Any], rendered: Mapping[str, Any], remedy: str) -> Finding:
    check = f"prompt: {sample['name']}"
    served = sample["served"]["prompts"][_AS_SERVED]
    if isinstance(served, str):
        return Finding(
            check=check, level="note", message=f"the chat template refuses it ({served}); training wrote it"
        )
    trained = trained_prompt(sample)
    place = first_difference(trained, served)
    if place is None:
        return Finding(check=check, level="equal", message=f"{len(trained)} tokens, all equal")
    texts = rendered["texts"]
    left = repr(texts["trained"][str(trained[place])]) if place < len(trained) else "the answer"
    right = repr(texts["served"][str(served[place])]) if place < len(served) else "nothing more"
    return Finding(
        check=check,
        level="differs",
        message=f"differs at token {place}: training had {left}, a server sends {right} "
        f"({len(trained)} tokens against {len(served)})",
        fix=remedy,
    )


def trained_prompt(sample: Mapping[str, Any]) -> list[int]:
    """What stood before the answer in training."""
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
                f"{_in_words(way, default_system)}; that mends single turns, but not every conversation: for "
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


def answer_findings(rendered: Mapping[str, Any]) -> Iterator[Finding]:
    """Look at what training put between the prompt and an answer's own text."""
    prefixes = {sample["trained"]["answer_prefix"] for sample in rendered["samples"]} - {""}
    if not prefixes:
        yield Finding(check="answer", level="equal", message="what was trained begins with the answer itself")
        return
    prefix = max(prefixes, key=len)
    told = f"the model was taught to write {prefix!r} before its answer"
    known = any(
        prefix + sample["messages"][-1]["content"] in sample["served"].get("whole", "")
        for sample in rendered["samples"]
    )
    if known:
        yield Finding(check="answer", level="note", message=f"{told}, as the chat template does itself")
    else:
        yield Finding(
            check="answer",
            level="differs",
            message=f"{told}, and the saved chat template does not know that: it comes out as text, and is "
            "missing from the history of a conversation",
            fix="let the server take it off (vLLM: --reasoning-parser), or train with "
            "`enable_thinking: false` or a template that does not think",
        )


def stop_findings(
    rendered: Mapping[str, Any], generation_eos: Sequence[int] | None, place: str
) -> Iterator[Finding]:
    """Compare what training put behind an answer with what ends a generation.

    Args:
        rendered: The result of `hooks.render`.
        generation_eos: `eos_token_id` of the generation settings; None where there are none.
        place: The file they stand in, for messages.
    """
    sample = rendered["samples"][0]
    texts, closing = rendered["texts"]["trained"], sample["trained"]["closing"]
    if not closing:
        yield Finding(
            check="stop tokens",
            level="differs",
            message="training put nothing behind an answer: the model was not taught to stop",
            fix="train with a template that closes a turn",
        )
        return
    shown = ", ".join(f"{texts[str(identity)]!r} ({identity})" for identity in closing)
    saved = rendered["saved_eos"]
    stops = set(generation_eos or ()) | ({saved} if saved is not None else set())
    if not stops & set(closing):
        yield Finding(
            check="stop tokens",
            level="differs",
            message=f"training closed answers with {shown}, but generation ends at "
            f"{sorted(stops) or 'nothing'}",
            fix=f'write `"eos_token_id": {closing[0]}` into {place}',
        )
    elif generation_eos is not None and not set(generation_eos) & set(closing):
        yield Finding(
            check="stop tokens",
            level="differs",
            message=f"training closed answers with {shown}; {place} ends at {list(generation_eos)}: vLLM "
            "also minds the tokenizer's, transformers does not stop",
            fix=f'write `"eos_token_id": {json.dumps([closing[0], *generation_eos])}` into {place}',
        )
    else:
        yield Finding(check="stop tokens", level="equal", message=f"answers were closed with {shown}")
