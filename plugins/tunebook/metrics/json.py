"""JSON answers: whether they are JSON, fit a schema, and hold the reference's fields.

Source: the rules are ours; the schema is judged by the library jsonschema.
"""

from __future__ import annotations

import json
import math
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from tunebook.errors import TunebookError
from tunebook.metrics.response import reference_text, shown
from tunebook.types import UNPARSED, Figure, Metric, Score, with_options

_FENCE = "```"
_MOST_STARTS = 200
"""Brackets that are tried as the beginning of a value."""


class JsonReading(NamedTuple):
    """What was read, and how."""

    value: Any
    rule: str | None
    """None exactly when nothing was read."""
    reason: str | None
    """None exactly when something was."""


def parse(text: str) -> Any:
    """Return a JSON value; ValueError where the text is none, NaN and doubled keys included."""
    try:
        return json.loads(text, parse_constant=_no_json, object_pairs_hook=_object)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _no_json(word: str) -> Any:
    raise ValueError(f"{word} is no JSON")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key stands twice")
    return found


def read(output: str) -> JsonReading:
    """Read the JSON in a model's whole output.

    The whole text (`bare`), else the last fenced block that holds any (`fenced`), else the one object or
    array that stands in the text (`embedded`); several different ones are no answer.
    """
    said, reason = shown(output, turn=True)
    if reason is not None:
        return JsonReading(None, None, reason)
    try:
        return JsonReading(parse(said), "bare", None)
    except ValueError:
        pass
    blocks = said.split(_FENCE)[1::2]
    for block in reversed(blocks):
        for text in (block, block.partition("\n")[2]):
            try:
                return JsonReading(parse(text), "fenced", None)
            except ValueError:
                continue
    found = list(embedded(said))
    if not found:
        cut = said.count("{") + said.count("[") > said.count("}") + said.count("]")
        return JsonReading(None, None, "cut" if cut else "no_json")
    if any(canonical(one) != canonical(found[0]) for one in found):
        return JsonReading(None, None, "several_values")
    return JsonReading(found[0], "embedded", None)


def embedded(text: str) -> Iterator[Any]:
    """Yield the JSON objects and arrays in a text that stand in no other."""
    decoder = json.JSONDecoder(parse_constant=_no_json, object_pairs_hook=_object)
    at = tried = 0
    while tried < _MOST_STARTS:
        starts = [place for mark in "{[" if (place := text.find(mark, at)) >= 0]
        if not starts:
            return
        at, tried = min(starts), tried + 1
        try:
            value, at = decoder.raw_decode(text, at)
        except (ValueError, RecursionError):
            at += 1
        else:
            yield value


def canonical(value: Any) -> str:
    """One text for equal values: 1 equals 1.0, and the order of keys does not matter."""
    return json.dumps(_plain(value), sort_keys=True, ensure_ascii=False)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {unicodedata.normalize("NFC", key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [_plain(entry) for entry in value]
    if isinstance(value, float) and math.isfinite(value) and value == int(value):
        return int(value)
    return unicodedata.normalize("NFC", value) if isinstance(value, str) else value


def fields(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """Yield each leaf with its path; entries of a list have no place of their own."""
    if isinstance(value, Mapping) and value:
        for key, entry in value.items():
            yield from fields(entry, f"{path}.{key}")
    elif isinstance(value, list) and value:
        for entry in value:
            yield from fields(entry, f"{path}[]")
    else:
        yield path, canonical(value)


def f1_of(said: Sequence[tuple[str, str]], wanted: Sequence[tuple[str, str]]) -> float:
    """F1 of two bags of fields; 1.0 where both are empty."""
    right = (Counter(said) & Counter(wanted)).total()
    return 2 * right / (len(said) + len(wanted)) if said or wanted else 1.0


class _Judge:
    """The metric for one schema, or for none."""

    def __init__(self, fits: Callable[[Any], bool] | None) -> None:
        self._fits = fits

    def score(self, prediction: str, reference: str) -> Score:
        """Compare the JSON in `prediction` with the one in `reference`.

        Raises:
            ValueError: The reference is no JSON: the data is wrong, not the model.
        """
        try:
            wanted = parse(reference_text(reference, turn=True))
        except ValueError as error:
            raise ValueError(f"the reference is no JSON: {error}") from error
        reading = read(prediction)
        read_any = reading.rule is not None
        values = {
            "exact_match": float(read_any and canonical(reading.value) == canonical(wanted)),
            "field_f1": f1_of(list(fields(reading.value)), list(fields(wanted))) if read_any else 0.0,
            "valid": float(reading.rule == "bare"),
        }
        if self._fits is not None:
            values["schema"] = float(read_any and self._fits(reading.value))
        return Score(
            values=values,
            parsed=canonical(reading.value) if read_any else None,
            reference=canonical(wanted),
            rule=reading.rule,
            reason=reading.reason,
        )

    def aggregate(self, scores: Sequence[Score]) -> Mapping[str, float]:
        """Means over all examples; an output without JSON has 0 of each."""
        if not scores:
            return {}
        n = len(scores)
        names = ["exact_match", "field_f1", "valid", *(["schema"] if self._fits is not None else [])]
        figures = {name: math.fsum(score.values[name] for score in scores) / n for name in names}
        return {**figures, "unparsed_rate": sum(score.parsed is None for score in scores) / n}


def configured(options: Mapping[str, Any]) -> Metric:
    """Return the metric with its options.

    Args:
        options: `schema`, a JSON Schema that answers are to fit.

    Raises:
        ValueError: An option is none, or the schema is none.
        TunebookError: jsonschema is not installed.
    """
    schema = options.get("schema")
    if options.keys() - {"schema"}:
        raise ValueError(f"{min(options.keys() - {'schema'})!r} is no option; there is schema")
    judge = _Judge(None if schema is None else _schema(schema))
    shares = (Figure(name="schema", label="share that fits the schema"),) if schema is not None else ()
    return Metric(
        name=with_options("json", options),
        score=judge.score,
        aggregate=judge.aggregate,
        figures=(
            Figure(name="exact_match"),
            Figure(name="field_f1", label="F1 of fields"),
            *shares,
            Figure(name="valid", label="share that is nothing but JSON", detail=True),
            UNPARSED,
        ),
        select_by="field_f1",
        default_max_new_tokens=512,
    )


def _schema(schema: Any) -> Callable[[Any], bool]:
    try:
        from jsonschema import SchemaError, validators
    except ImportError as error:
        raise TunebookError(
            'the metric json needs jsonschema for its "schema"', fix="pip install jsonschema"
        ) from error
    kind = validators.validator_for(schema)
    try:
        kind.check_schema(schema)
    except SchemaError as error:
        raise ValueError(f'"schema" is no JSON Schema: {error.message}') from error
    return lambda value: bool(kind(schema).is_valid(value))


METRIC = configured({})
