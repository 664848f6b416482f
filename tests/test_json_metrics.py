"""The metrics `json` and `tool_calls`."""

import json

import pytest

from tunebook import metrics
from tunebook.errors import TunebookError
from tunebook.metrics import tool_calls
from tunebook.metrics.json import configured
from tunebook.metrics.json import read as read_json

WANTED = '{"name": "Ann", "age": 3, "tags": ["a", "b"]}'


@pytest.mark.parametrize(
    ("said", "rule", "exact", "f1"),
    [
        (WANTED, "bare", 1.0, 1.0),
        ('{"age": 3.0, "tags": ["a", "b"],\n "name": "Ann"}', "bare", 1.0, 1.0),
        (f"Here you are:\n```json\n{WANTED}\n```\nAnything else?", "fenced", 1.0, 1.0),
        (f"<think>{{}}</think>{WANTED}<|im_end|>", "bare", 1.0, 1.0),
        (f"Sure: {WANTED}.", "embedded", 1.0, 1.0),
        (f"{WANTED} or, again, {WANTED}", "embedded", 1.0, 1.0),
        ('{"name": "Ann", "age": 4, "tags": ["b"]}', "bare", 0.0, 4 / 7),
        ('{"name": "Anna"}', "bare", 0.0, 0.0),
        ("[]", "bare", 0.0, 0.0),
        ('{"a": 1} or {"a": 2}', "several_values", 0.0, 0.0),
        ('{"name": "Ann", "age": 3', "cut", 0.0, 0.0),
        ('{"name": NaN}', "no_json", 0.0, 0.0),
        ('{"a": 1, "a": 2}', "no_json", 0.0, 0.0),
        ("{'name': 'Ann'}", "no_json", 0.0, 0.0),
        ("I cannot do that.", "no_json", 0.0, 0.0),
        ("[" * 100_000, "cut", 0.0, 0.0),
        ("", "empty", 0.0, 0.0),
        ('{"name": "“Ann”"}', "bare", 0.0, 0.0),
    ],
)
def test_json_is_read_where_it_is_clear_which(said, rule, exact, f1):
    found = configured({}).score(said, WANTED)
    assert (found.rule or found.reason) == rule
    assert found.values["exact_match"] == exact
    assert found.values["field_f1"] == pytest.approx(f1)
    assert found.values["valid"] == float(rule == "bare")


def test_a_reference_that_is_no_json_is_refused():
    for reference in ("Ann", "{", ""):
        with pytest.raises(ValueError, match="the reference is no JSON"):
            configured({}).score(WANTED, reference)


def test_a_schema_is_a_figure_of_its_own():
    pytest.importorskip("jsonschema")
    schema = {"type": "object", "required": ["name"], "properties": {"age": {"type": "integer"}}}
    metric = metrics.load(f"json{json.dumps({'schema': schema})}")
    said = [WANTED, '{"name": "x", "age": "3"}', "nothing"]
    figures = metric.aggregate([metric.score(one, WANTED) for one in said])
    assert figures["schema"] == pytest.approx(1 / 3)
    assert set(figures) == set(metric.names)
    with pytest.raises(TunebookError, match="no JSON Schema"):
        metrics.load('json{"schema": {"type": "objekt"}}')
    with pytest.raises(TunebookError, match="'shema' is no option"):
        metrics.load('json{"shema": {}}')


CALL = [tool_calls.Call("get_weather", {"city": "Paris", "days": 2})]
FORMS = {
    "qwen": '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Paris", "days": 2}}\n</tool_call>',
    "default": 'Action: get_weather\nAction Input: {"city": "Paris", "days": 2}',
    "llama3": '{"name": "get_weather", "parameters": {"city": "Paris", "days": 2}}',
    "mistral": '[{"name": "get_weather", "arguments": {"city": "Paris", "days": 2}}]',
    "mistral tag": '[TOOL_CALLS] [{"name": "get_weather", "arguments": {"city": "Paris", "days": 2}}]',
    "glm4": 'get_weather\n{"city": "Paris", "days": 2}',
    "glm4_moe": "<tool_call>get_weather\n<arg_key>city</arg_key>\n<arg_value>Paris</arg_value>"
    "\n<arg_key>days</arg_key>\n<arg_value>2</arg_value>\n</tool_call>",
    "qwen3_5": "<tool_call>\n<function=get_weather>\n<parameter=city>\nParis\n</parameter>\n<parameter=days>\n2\n"
    "</parameter>\n</function>\n</tool_call>",
    "minimax2": '<minimax:tool_call>\n<invoke name="get_weather">\n<parameter name="city">Paris</parameter>'
    '\n<parameter name="days">2</parameter>\n</invoke>\n</minimax:tool_call>',
    "openai": '{"type": "function", "function": {"name": "get_weather", "arguments": "{\\"city\\": \\"Paris\\", \\"days\\": 2}"}}',
    "with words": 'I will look.\n<tool_call>\n{"name": "get_weather", "arguments": {"days": 2, "city": "Paris"}}\n</tool_call>',
    "with thoughts": '<think>tool?</think>\n{"name": "get_weather", "arguments": {"days": 2, "city": "Paris"}}<|im_end|>',
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_a_call_is_read_in_every_form(form):
    found = tool_calls.read(FORMS[form])
    assert list(found.calls) == CALL, found
    for other in FORMS.values():
        assert tool_calls.score(FORMS[form], other).values == {
            "exact_match": 1.0, "name_accuracy": 1.0, "field_f1": 1.0
        }  # fmt: skip


def test_several_calls_may_come_in_any_order_and_are_counted_by_their_parts():
    one, two = FORMS["qwen"], FORMS["qwen"].replace("Paris", "Rome")
    assert tool_calls.score(f"{two}\n{one}", f"{one}\n{two}").values["exact_match"] == 1.0
    half = tool_calls.score(one, f"{one}\n{two}")
    assert half.values == {"exact_match": 0.0, "name_accuracy": 0.0, "field_f1": pytest.approx(6 / 9)}
    other = tool_calls.score(one.replace("days", "hours"), one)
    assert (other.values["name_accuracy"], other.values["exact_match"]) == (1.0, 0.0)


@pytest.mark.parametrize(
    "said",
    [
        '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Par',
        "<tool_call>\n{'name': 'x', 'arguments': {}}\n</tool_call>",
        "Action: get_weather\nAction Input: Paris",
        "<tool_call>\n</tool_call>",
    ],
)
def test_a_broken_call_is_no_answer_and_no_reference(said):
    found = tool_calls.score(said, FORMS["qwen"])
    assert (found.parsed, found.reason, found.values["exact_match"]) == (None, "broken_call", 0.0)
    with pytest.raises(ValueError, match="no readable call"):
        tool_calls.score(FORMS["qwen"], said)


def test_an_answer_without_a_call_is_right_where_none_is_wanted():
    assert tool_calls.score("It is sunny.", "Sunny!").values["exact_match"] == 1.0
    assert tool_calls.score("It is sunny.", FORMS["qwen"]).rule == "no_call"
    assert tool_calls.score('An example: {"a": 1}', "Hello").values["exact_match"] == 1.0
    assert tool_calls.score(FORMS["qwen"], "Hello").values["exact_match"] == 0.0


@pytest.mark.parametrize(
    "text", ["<function=a>" * 20_000, "<tool_call>" * 20_000, "{" * 60_000, "Action: a\n" * 9_000]
)
def test_hostile_texts_take_no_time(text):
    tool_calls.read(text)
    read_json(text)


@pytest.mark.engine
def test_calls_are_read_as_llamafactory_reads_them():
    tools = pytest.importorskip("llamafactory.data.tool_utils")
    for name in ("default", "glm4", "llama3", "mistral", "qwen", "qwen3_5"):
        calls = [("find", '{"q": "a \\"b\\" é", "n": [1, 2]}'), ("stop", '{"now": true}')]
        calls = calls[:1] if name == "glm4" else calls
        utils = tools.get_tool_utils(name)
        text = utils.function_formatter([tools.FunctionCall(*call) for call in calls])
        theirs = utils.tool_extractor(text)
        ours = tool_calls.read(text).calls
        assert [(one.name, one.arguments) for one in ours] == [(n, json.loads(a)) for n, a in theirs], name
