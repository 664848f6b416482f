"""A server that means harm, or is broken: the question counts as unanswered, in no more time than was allowed."""

import asyncio
import gzip
import json
import time

import pytest

from endpoint_server import Handler, Model, running
from tunebook.errors import TunebookError
from tunebook.evaluation import endpoint_client
from tunebook.evaluation.endpoint_client import Client, NoAnswerError, Server

BODY = {"model": "tiny", "messages": [{"role": "user", "content": "x"}], "max_tokens": 8}


def head(handler, *more):
    handler.close_connection = True
    lines = ["HTTP/1.1 200 OK", "Content-Type: application/json", *more, "", ""]
    handler.wfile.write("\r\n".join(lines).encode())


def drip(handler):
    """A byte at a time, each well within any limit between two bytes."""
    head(handler, "Content-Length: 100000")
    for _ in range(200):
        handler.wfile.write(b" ")
        handler.wfile.flush()
        time.sleep(0.05)


def endless(handler):
    head(handler)
    while True:
        handler.wfile.write(b" " * 65536)


def gzip_bomb(handler):
    data = gzip.compress(b" " * (256 << 20), 9)
    head(handler, "Content-Encoding: gzip", f"Content-Length: {len(data)}")
    handler.wfile.write(data)


def lying_gzip(handler):
    head(handler, "Content-Encoding: gzip", "Content-Length: 8")
    handler.wfile.write(b"no gzip!")


def says(body):
    return lambda handler: handler.send(200, body)


def content(value):
    return says({"choices": [{"message": {"content": value}, "finish_reason": "stop"}]})


NESTED = b'{"choices": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"
FAULTS = {
    "drip": (drip, "no answer within 0.5 s"),
    "endless": (endless, "an answer of more than 16 MiB|no answer within"),
    "gzip bomb": (gzip_bomb, "an answer of more than 16 MiB|no answer within"),
    "lying gzip": (lying_gzip, "DecodingError"),
    "nested": (says(NESTED), "nested too deeply"),
    "half a character": (says(b'{"choices": [{"message": {"content": "\\ud800Yes"}}]}'), "half a character"),
    "no utf-8": (says(b'{"choices": [{"message": {"content": "\xff\xfeYes"}}]}'), "not JSON"),
    "a list": (says([1, 2]), "an answer that is a list"),
    "no choices": (says({"choices": []}), "without choices"),
    "choices of text": (says({"choices": "Yes"}), "without choices"),
    "choice of text": (says({"choices": ["Yes"]}), "without choices"),
    "message of text": (says({"choices": [{"message": "Yes"}]}), "without choices"),
    "a number": (content(7), "whose text is 7"),
    "null": (content(None), "whose text is null"),
    "an object": (content({"text": "Yes"}), "whose text is"),
    "parts of numbers": (content([1, 2]), "without choices"),
}


async def ask(url, **more):
    server = Server(**{"url": url, "key": None, "timeout": 0.5, "retries": 0, "connections": 1, **more})
    async with Client(server) as client:
        return await client.chat(BODY)


@pytest.mark.parametrize("name", FAULTS)
def test_a_question_that_is_answered_with_harm_is_unanswered(name):
    model = Model()
    model.always, problem = FAULTS[name]
    limit = 5 if "gzip" in name else 0.5
    with running(model) as url:
        begun = time.monotonic()
        with pytest.raises(NoAnswerError, match=problem):
            asyncio.run(ask(url, timeout=limit))
        assert time.monotonic() - begun < limit + 3


def test_answers_of_the_usual_forms_are_taken():
    model = Model()
    with running(model) as url:
        model.always = content([{"type": "text", "text": "Ye"}, {"type": "text", "text": "s"}])
        assert asyncio.run(ask(url)).text == "Yes"
        model.always = says(
            {"choices": [{"message": {"content": None, "reasoning_content": "hm"}}], "usage": []}
        )
        reply = asyncio.run(ask(url))
        assert (reply.text, reply.reasoning, reply.generated_tokens) == ("", "hm", None)
        model.always = content("😀" + "x" * 1_000_000)
        assert len(asyncio.run(ask(url, timeout=20)).text) == 1_000_001


@pytest.mark.parametrize(
    "data", [{"data": 7}, {"data": [{}]}, {"data": [7]}, [], {"data": [{"id": "a"}] * 500_000}]
)
def test_a_list_of_models_that_is_none_is_an_error(monkeypatch, data):
    monkeypatch.setattr(endpoint_client, "_LARGEST_BODY", 1 << 20)

    async def models(url):
        async with Client(Server(url=url, key=None, timeout=5, retries=0, connections=1)) as client:
            return await client.models()

    model = Model()
    with running(model) as url:
        monkeypatch.setattr(Handler, "do_GET", lambda handler: handler.send(200, json.dumps(data).encode()))
        with pytest.raises(TunebookError, match=r"lists no models|more than 1 MiB|is a list"):
            asyncio.run(models(url))
