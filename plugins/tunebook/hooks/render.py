"""Writes conversations as training did and as a server will: `python -m tunebook.hooks.render JOB.json LOG`.

No weights are loaded. The result goes into the job's `result`, as JSON.
"""

from __future__ import annotations

import json
import signal
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import TemplateError
from transformers import AutoTokenizer

from tunebook import files
from tunebook.errors import TunebookError
from tunebook.hooks.encoder import Encoder, WeightsToLoad
from tunebook.hooks.infer import engine_prints_to
from tunebook.hooks.loading import load_encoder
from tunebook.hooks.rows import spans
from tunebook.types import IGNORED

_TEMPLATE_SECONDS = 5
"""For one conversation; templates take milliseconds."""


def main() -> None:
    """Do a job; exit 0 done, 2 where the user must fix something."""
    job = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    with engine_prints_to(Path(sys.argv[2])) as (_, err), tempfile.TemporaryDirectory() as scratch:
        try:
            encoder = load_encoder(WeightsToLoad(**job["weights"]), thinking=None, scratch=Path(scratch))
            files.write_json(Path(job["result"]), _render(job, encoder))
        except TunebookError as error:
            print(f"error: {error}", file=err, flush=True)
            sys.exit(2)


def _render(job: Mapping[str, Any], encoder: Encoder) -> dict[str, Any]:
    saved = AutoTokenizer.from_pretrained(job["saved"])
    template = str(saved.chat_template or "")
    thinks = "enable_thinking" in template
    found = []
    for sample in job["samples"]:
        messages = sample["messages"]
        if sample["name"] == job["reasoning"] and not encoder.thinks:
            continue
        found.append(
            {
                "name": sample["name"],
                "messages": messages,
                "trained": _trained(encoder, messages),
                "served": _served(saved, messages, job, thinks=thinks) if template else {},
            }
        )
    return {
        "samples": found,
        "texts": {"trained": _texts(encoder.tokenizer, found), "served": _texts(saved, found)},
        "has_template": bool(template),
        "knows_thinking": thinks,
        "trained_eos": encoder.tokenizer.eos_token_id,
        "saved_eos": saved.eos_token_id,
        "saved_vocabulary": max([len(saved) - 1, *saved.get_vocab().values()]) + 1,
    }


def _trained(encoder: Encoder, messages: Sequence[Mapping[str, str]]) -> dict[str, Any]:
    ids, labels = encoder.conversation(messages)
    found = spans(labels)
    if not found or found[-1].start == 0:
        raise TunebookError(
            "the recipe's template marks no answer: nothing says where one begins",
            fix="set `train_on_inputs: false` (Axolotl) or `train_on_prompt: false` (LLaMA-Factory)",
        )
    span = found[-1]
    answer = [label for label in labels[span.start : span.end] if label != IGNORED]
    before, after = _around(encoder.tokenizer, answer, messages[-1]["content"])
    return {"ids": ids, "answer_start": span.start, "answer_prefix": before, "closing": after}


def _around(tokenizer: Any, answer: Sequence[int], content: str) -> tuple[str, list[int]]:
    """What training put before an answer's own text, and the tokens that it put after it."""
    text = tokenizer.decode(answer, skip_special_tokens=False)
    start = text.find(content)
    if start < 0:  # a template that strips reasoning out of an answer
        content = content.rpartition("</think>")[2].strip()
        start = text.find(content)
    # From the end, since the text of an answer may end in the middle of a token.
    for place in range(len(answer) + 1):
        if len(tokenizer.decode(answer[:place], skip_special_tokens=False)) >= start + len(content):
            return text[: max(start, 0)], list(answer[place:])
    return text[: max(start, 0)], []


def _served(
    tokenizer: Any, messages: Sequence[Mapping[str, str]], job: Mapping[str, Any], *, thinks: bool
) -> dict[str, Any]:
    """What a server makes of the conversation, in the ways it can be asked to; a refusal as its text."""
    options = job["chat_template_kwargs"]
    ways: dict[str, tuple[dict[str, Any], str | None]] = {"as served": (options, None)}
    if thinks:
        for value in (False, True):
            ways[f"enable_thinking={json.dumps(value)}"] = ({**options, "enable_thinking": value}, None)
    if job["default_system"] and messages[0]["role"] != "system":
        for way, (kwargs, _) in list(ways.items()):
            ways[f"{way} with the system prompt"] = (kwargs, job["default_system"])
    found: dict[str, Any] = {}
    for way, (kwargs, system) in ways.items():
        turns = [dict(turn) for turn in messages[:-1]]
        if system:
            turns.insert(0, {"role": "system", "content": system})
        found[way] = _written(
            tokenizer, turns, add_generation_prompt=True, tokenize=True, return_dict=False, **kwargs
        )
    whole = _written(tokenizer, [dict(turn) for turn in messages], tokenize=False, **options)
    return {"prompts": found, "whole": whole}


def _written(tokenizer: Any, turns: list[dict[str, str]], **options: Any) -> Any:
    """What the chat template makes of a conversation; a refusal as its text.

    Raises:
        TunebookError: It takes more time or memory than any conversation needs.
    """

    def too_long(*_: object) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, too_long)
    signal.alarm(_TEMPLATE_SECONDS)
    try:
        written = tokenizer.apply_chat_template(turns, **options)
        return written if isinstance(written, str) else list(written)
    except TemplateError as error:
        return str(error)
    except (TimeoutError, MemoryError, OverflowError, RecursionError) as error:
        why = f"takes more than {_TEMPLATE_SECONDS} s" if isinstance(error, TimeoutError) else "has no end"
        raise TunebookError(
            f"the saved chat template {why} ({str(error) or type(error).__name__})",
            fix="put the model's own template back: chat_template.jinja, or tokenizer_config.json",
        ) from error
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def _texts(tokenizer: Any, found: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    used = {identity for sample in found for identity in sample["trained"]["ids"]}
    for sample in found:
        for ids in sample["served"].get("prompts", {}).values():
            used |= set() if isinstance(ids, str) else set(ids)
    return {str(identity): tokenizer.decode([identity]) for identity in sorted(used)}


if __name__ == "__main__":
    main()
