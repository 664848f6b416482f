"""Tool calls: which tools an answer calls, with which arguments.

Reads the forms in which chat templates write calls: those of LLaMA-Factory's tool formats, and of the
templates that come with Qwen, Hermes, Llama, Mistral, GLM and MiniMax models, which Axolotl uses.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from tunebook.metrics.json import canonical, embedded, f1_of, fields, parse
from tunebook.metrics.response import shown
from tunebook.types import UNPARSED, Figure, Metric, Score


class Call(NamedTuple):
    """One call."""

    name: str
    arguments: Any
    """As JSON has them, usually an object."""


class CallsReading(NamedTuple):
    """What was read, and how."""

    calls: tuple[Call, ...]
    rule: str | None
    """None exactly when it is unclear what was called; `no_call` where nothing is."""
    reason: str | None


_ACTION = re.compile(
    r"Action:\s*([\w.-]+)\s*Action Input:\s*(.*?)(?=\n\s*Action:|\n\s*Observation:|\Z)", re.DOTALL
)
_TAGGED = re.compile(r"<tool_call>(.*?)(?:</tool_call>|(?=<tool_call>)|\Z)", re.DOTALL)
_FUNCTION = re.compile(r"<function=\s*([^\s<>]+?)\s*>(.*?)</function>", re.DOTALL)
_PARAMETER = re.compile(r"<parameter=(.*?)>(.*?)</parameter>", re.DOTALL)
_INVOKE = re.compile(r"<invoke name=\"(.*?)\">(.*?)</invoke>", re.DOTALL)
_NAMED_PARAMETER = re.compile(r"<parameter name=\"(.*?)\">(.*?)</parameter>", re.DOTALL)
_KEY_VALUE = re.compile(r"<arg_key>(.*?)</arg_key>\s*<arg_value>(.*?)</arg_value>", re.DOTALL)
_NAME_THEN_JSON = re.compile(r"([A-Za-z_][\w.-]{0,63})\s*\n\s*(\{.*\})\s*", re.DOTALL)
_MARKS = re.compile(r"<tool_call>|<function=|<invoke |\[TOOL_CALLS\]|<\|python_tag\|>|Action Input:")


def read(output: str) -> CallsReading:
    """Read the calls in a model's whole output, in any of the known forms."""
    said, reason = shown(output, turn=True)
    if reason is not None:
        return CallsReading((), None, reason)
    try:
        for rule, found in (("action", _actions(said)), ("tags", _tags(said)), ("json", _values(said))):
            if found:
                return CallsReading(tuple(found), rule, None)
    except ValueError:
        return CallsReading((), None, "broken_call")
    if _MARKS.search(said):
        return CallsReading((), None, "broken_call")
    return CallsReading((), "no_call", None)


def _actions(text: str) -> list[Call]:
    return [Call(name, parse(words.strip().strip("`").strip())) for name, words in _ACTION.findall(text)]


def _tags(text: str) -> list[Call]:
    parts = _TAGGED.findall(text) or [text]
    return [call for part in parts for call in _of_part(part, tagged="<tool_call>" in text)]


def _closed(pattern: re.Pattern[str], text: str, tag: str) -> list[tuple[str, str]]:
    """All that a pattern finds, in time that is linear: behind the last closing tag nothing is looked for."""
    found: list[tuple[str, str]] = pattern.findall(text, 0, text.rfind(tag) + len(tag)) if tag in text else []
    return found


def _of_part(part: str, *, tagged: bool) -> Iterator[Call]:
    functions = _closed(_FUNCTION, part, "</function>")
    invoked = _closed(_INVOKE, part, "</invoke>")
    if functions or invoked:
        for name, block in functions:
            yield Call(
                name,
                {key.strip(): _value(value) for key, value in _closed(_PARAMETER, block, "</parameter>")},
            )
        for name, block in invoked:
            yield Call(
                name.strip(),
                {key: _value(value) for key, value in _closed(_NAMED_PARAMETER, block, "</parameter>")},
            )
    elif "<arg_key>" in part:
        name = part.partition("<arg_key>")[0].strip()
        yield Call(
            name, {key.strip(): _value(value) for key, value in _closed(_KEY_VALUE, part, "</arg_value>")}
        )
    elif tagged:
        yield from _named(parse(part.strip()))


def _value(text: str) -> Any:
    try:
        return parse(text.strip())
    except ValueError:
        return text.strip()


def _values(text: str) -> list[Call]:
    """Calls written as JSON: alone, one after the other, or a name with its arguments below it."""
    pair = _NAME_THEN_JSON.fullmatch(text)
    if pair:
        return [Call(pair[1], parse(pair[2]))]
    found = []
    for value in embedded(text):
        try:
            found += _named(value)
        except ValueError:
            continue  # other JSON, such as an example in the answer
    return found


def _named(value: Any) -> list[Call]:
    """The calls that a JSON value is.

    Raises:
        ValueError: It is none.
    """
    if isinstance(value, list) and value:
        return [call for entry in value for call in _named(entry)]
    if isinstance(value, Mapping):
        function = value.get("function", value)
        function = function if isinstance(function, Mapping) else value
        for key in ("arguments", "parameters", "args", "input"):
            if isinstance(function.get("name"), str) and key in function:
                arguments = function[key]
                return [Call(function["name"], parse(arguments) if isinstance(arguments, str) else arguments)]
    raise ValueError("no call of a tool")


def _text(calls: Sequence[Call]) -> str:
    return canonical(sorted([canonical([call.name, call.arguments]) for call in calls]))


def _fields(calls: Sequence[Call]) -> list[tuple[str, str]]:
    """The name of each call and each of its arguments."""
    found = [("", call.name) for call in calls]
    for call in calls:
        if call.arguments not in ({}, None):
            found += fields(call.arguments, call.name)
    return found


def score(prediction: str, reference: str) -> Score:
    """Compare the calls in `prediction` with those in `reference`; their order does not matter.

    Returns:
        `exact_match`, `name_accuracy` (the same tools as often) and `field_f1` (names and arguments). Where
        the reference calls nothing, an answer that calls nothing is right.

    Raises:
        ValueError: The reference holds a broken call: the data is wrong, not the model.
    """
    wanted = read(reference)
    if wanted.rule is None:
        raise ValueError(f"the reference holds no readable call: {wanted.reason}")
    said = read(prediction)
    right = said.rule is not None
    names = [Counter(call.name for call in one.calls) for one in (said, wanted)]
    return Score(
        values={
            "exact_match": float(right and _text(said.calls) == _text(wanted.calls)),
            "name_accuracy": float(right and names[0] == names[1]),
            "field_f1": f1_of(_fields(said.calls), _fields(wanted.calls)) if right else 0.0,
        },
        parsed=_text(said.calls) if right else None,
        reference=_text(wanted.calls),
        rule=said.rule,
        reason=said.reason,
    )


def aggregate(scores: Sequence[Score]) -> Mapping[str, float]:
    """Means over all examples, and how many call nothing."""
    if not scores:
        return {}
    n = len(scores)
    names = ("exact_match", "name_accuracy", "field_f1")
    return {
        **{name: math.fsum(score.values[name] for score in scores) / n for name in names},
        "no_call_rate": sum(score.rule == "no_call" for score in scores) / n,
        "unparsed_rate": sum(score.parsed is None for score in scores) / n,
    }


METRIC = Metric(
    name="tool_calls",
    score=score,
    aggregate=aggregate,
    figures=(
        Figure(name="exact_match"),
        Figure(name="name_accuracy", label="accuracy of the tools' names"),
        Figure(name="field_f1", label="F1 of names and arguments"),
        Figure(name="no_call_rate", label="share without a call", descriptive=True, detail=True),
        UNPARSED,
    ),
    select_by="exact_match",
    default_max_new_tokens=512,
)
