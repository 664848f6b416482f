"""Asks one OpenAI-compatible server: tries again after failures that may pass, and reports the others.

httpx sends the requests, and does not try again by itself.
"""

from __future__ import annotations

import asyncio
import email.utils
import json
import random
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit, urlunsplit

import httpx

from tunebook.data.rows import parse_json
from tunebook.errors import TunebookError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import TracebackType


# Too busy, not up yet, or a proxy in front of it: https://www.rfc-editor.org/rfc/rfc9110#name-status-codes
_PASSING = frozenset({408, 409, 425, 429})
_FIRST_WAIT_SECONDS = 0.5
_LONGEST_WAIT_SECONDS = 60.0
_LONGEST_ASKED_WAIT_SECONDS = 600.0
"""A server that asks by Retry-After for a longer wait is not waited for."""
_CONNECT_SECONDS = 15.0
_SHOWN = 300
_LARGEST_BODY = 16 << 20
"""Bytes of an answer, unpacked; 100,000 tokens of text are less than one million."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """How to reach a server."""

    url: str
    """Up to and with `/v1`."""
    key: str | None
    timeout: float
    """Seconds to wait for one answer."""
    retries: int
    """How often a question is sent again after a failure that may pass."""
    connections: int


class Client:
    """An open connection to a server; use it as an asynchronous context.

    Args:
        server: How to reach it.
    """

    def __init__(self, server: Server) -> None:
        self._server = server
        self._random = random.Random(0)
        headers = {"Authorization": f"Bearer {server.key}"} if server.key else {}
        self._http = httpx.AsyncClient(
            base_url=server.url + "/",
            headers=headers,
            # httpx's own limits hold between two bytes; `_request` holds one for the whole question.
            timeout=httpx.Timeout(None, connect=min(_CONNECT_SECONDS, server.timeout)),
            limits=httpx.Limits(max_connections=server.connections),
        )
        self.retried = 0
        """Requests that had to be sent again, so far."""

    async def __aenter__(self) -> Client:
        """Itself."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def models(self) -> dict[str, str | None]:
        """Return the models that the server offers, and the weights of each, where it says so.

        Raises:
            TunebookError: It does not answer, or is not such a server.
        """
        try:
            answer = await self._send("GET", "models", None)
            # `root` is vLLM's and SGLang's: the folder or name of the weights.
            names = {str(model["id"]): model.get("root") for model in json_object(answer)["data"]}
        except NoAnswerError as err:
            raise TunebookError(
                f"{self._server.url}: {err}", fix="start the server, or fix the URL given to --endpoint"
            ) from err
        except (AttributeError, KeyError, TypeError) as err:
            raise TunebookError(
                f"{self._server.url}/models: the answer lists no models: {answer.shown}",
                fix="give --endpoint the URL of an OpenAI-compatible server, or the model with --model",
            ) from err
        return names

    async def chat(self, body: Mapping[str, Any]) -> Reply:
        """Send a conversation to the server.

        Raises:
            NoAnswerError: It does not answer this one.
            TunebookError: It will not answer any.
        """
        return reply_of(await self._post("chat/completions", body), chat_text)

    async def complete(self, body: Mapping[str, Any]) -> Reply:
        """Have the server continue a text; see `chat`."""
        return reply_of(await self._post("completions", body), lambda choice: (choice["text"], ""))

    async def _post(self, path: str, body: Mapping[str, Any]) -> Mapping[str, Any]:
        return json_object(await self._send("POST", path, body))

    async def _request(self, method: str, path: str, body: Mapping[str, Any] | None) -> Answer:
        """One try, within the time and the size that an answer may have."""
        async with (
            asyncio.timeout(self._server.timeout),
            self._http.stream(method, path, json=body) as response,
        ):
            data = b""
            async for part in response.aiter_bytes():
                data += part
                if len(data) > _LARGEST_BODY:
                    raise NoAnswerError(f"an answer of more than {_LARGEST_BODY >> 20} MiB")
        return Answer(str(response.request.url), response.status_code, response.headers, data)

    async def _send(self, method: str, path: str, body: Mapping[str, Any] | None) -> Answer:
        """Send until there is a final answer, whatever it says."""
        reason = ""
        for attempt in range(self._server.retries + 1):
            if attempt:
                self.retried += 1
            wait = self._backoff(attempt)
            try:
                answer = await self._request(method, path, body)
            except (TimeoutError, httpx.TimeoutException):
                reason = f"no answer within {self._server.timeout:g} s"
            except (httpx.TransportError, httpx.DecodingError) as err:
                reason = self._hidden(f"{type(err).__name__}: {err}".rstrip(": "))
            else:
                reason = self._failure(answer)
                if not reason:
                    return answer
                wait = max(wait, self._asked_wait(answer))
            if attempt < self._server.retries:
                await asyncio.sleep(wait)
        tries = self._server.retries + 1
        raise NoAnswerError(f"{reason}, {tries} times" if tries > 1 else reason)

    def _failure(self, answer: Answer) -> str:
        """Return the failure that may pass; empty where the response is an answer.

        Raises:
            NoAnswerError: The server refuses this request for good.
            TunebookError: It refuses every request.
        """
        status = answer.status
        said = self._hidden(message_of(answer))
        if status in (401, 403):
            raise TunebookError(
                f"{self._server.url} answers {status}: {said}",
                fix="put the server's API key into the environment variable that --api-key-env names "
                + ("(the key that is there was refused)" if self._server.key else "(it is not set)"),
            )
        if status in _PASSING or status >= 500:
            return f"status {status}: {said}"
        if status == 404:
            raise TunebookError(
                f"{answer.url} answers 404: {said}",
                fix="name a model that the server has with --model, and its address with --endpoint",
            )
        if status >= 300:
            raise RefusedError(status, said)
        try:
            answer.json()
        except ValueError as err:
            return f"an answer that is not JSON ({err}): {said[:80]!r}"
        return ""

    def _backoff(self, attempt: int) -> float:
        """Exponential with jitter, so that refused requests do not all come back at once."""
        longest = min(_LONGEST_WAIT_SECONDS, _FIRST_WAIT_SECONDS * 2.0**attempt)
        return longest * self._random.uniform(0.5, 1.0)

    def _asked_wait(self, answer: Answer) -> float:
        """The seconds of a Retry-After, given as such or as a date."""
        value = answer.headers.get("retry-after", "").strip()
        if not value:
            return 0.0
        try:
            seconds = float(value)
        except ValueError:
            try:
                seconds = email.utils.parsedate_to_datetime(value).timestamp() - time.time()
            except (ValueError, OverflowError):
                return 0.0
        if seconds > _LONGEST_ASKED_WAIT_SECONDS:
            raise TunebookError(
                f"{self._server.url} asks to come back in {seconds:.0f} s", fix="run the same command then"
            )
        return max(0.0, seconds)

    def _hidden(self, text: str) -> str:
        """A server may repeat the key it refuses."""
        key = self._server.key
        return text.replace(key, "[redacted]") if key else text


def address(url: str) -> str:
    """Return the address of a server up to and with `/v1`.

    >>> address("http://localhost:8000/")
    'http://localhost:8000/v1'

    Raises:
        TunebookError: It is not such an address, or holds a password.
    """
    parts = urlsplit(url if "://" in url else f"http://{url}")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise TunebookError(f"--endpoint {url}: is not a server's address", fix="write http://HOST:PORT/v1")
    if parts.username or parts.password or parts.query:
        raise TunebookError(
            "--endpoint: the address holds a password or a query, which results would keep",
            fix="write http://HOST:PORT/v1, and put a key into the variable that --api-key-env names",
        )
    path = parts.path.rstrip("/")
    for known in ("/chat/completions", "/completions", "/models"):
        path = path.removesuffix(known)
    if not path.endswith("/v1"):
        path += "/v1"
    return urlunsplit((parts.scheme, parts.netloc, path, "", ""))


class NoAnswerError(Exception):
    """One question got no answer; says why. The others may."""


class Answer(NamedTuple):
    """What came back for a request."""

    url: str
    status: int
    headers: Mapping[str, str]
    data: bytes

    def json(self) -> Any:
        """Its value; ValueError where it is no JSON that can be kept."""
        return parse_json(self.data)

    @property
    def shown(self) -> str:
        """Its beginning, for messages."""
        return " ".join(self.data[: 4 * _SHOWN].decode("utf-8", "replace").split())[:_SHOWN]


class Reply(NamedTuple):
    """What a server answered."""

    text: str
    reasoning: str
    """The model's thoughts, where the server separates them from the answer; else empty."""
    cut: bool
    """The server stopped at the limit of tokens."""
    prompt_tokens: int | None
    generated_tokens: int | None


class RefusedError(NoAnswerError):
    """The server refuses a request as it stands.

    Args:
        status: 400, 422, ...
        said: The server's own message.
    """

    def __init__(self, status: int, said: str) -> None:
        super().__init__(f"status {status}: {said}")
        self.status = status


def json_object(answer: Answer) -> Mapping[str, Any]:
    """Return an answer's JSON object.

    Raises:
        NoAnswerError: It is another kind of JSON.
    """
    values = answer.json()
    if not isinstance(values, dict):
        raise NoAnswerError(f"an answer that is a {type(values).__name__}: {answer.shown[:80]!r}")
    return values


def reply_of(values: Mapping[str, Any], read: Callable[[Mapping[str, Any]], tuple[Any, str]]) -> Reply:
    """Return the answer in a response, in any of the forms that servers use.

    Args:
        values: The response.
        read: Gives text and thoughts of a choice.

    Raises:
        NoAnswerError: There is none in it.
    """
    try:
        choice = values["choices"][0]
        text, reasoning = read(choice)
    except (AttributeError, KeyError, IndexError, TypeError) as err:
        shown = json.dumps(dict(values), ensure_ascii=False)[:_SHOWN]
        raise NoAnswerError(f"an answer without choices: {shown}") from err
    if not isinstance(text, str):
        raise NoAnswerError(f"an answer whose text is {json.dumps(text)[:80]}")
    usage = values.get("usage")
    usage = usage if isinstance(usage, dict) else {}
    return Reply(
        text=text,
        reasoning=reasoning,
        cut=choice.get("finish_reason") == "length",
        prompt_tokens=_count(usage.get("prompt_tokens")),
        generated_tokens=_count(usage.get("completion_tokens")),
    )


def chat_text(choice: Mapping[str, Any]) -> tuple[Any, str]:
    """Return text and thoughts of a choice of a chat completion."""
    message = choice["message"]
    text = message.get("content")
    # vLLM has called it `reasoning` too.
    reasoning = message.get("reasoning_content") or message.get("reasoning") or ""
    if text is None and message.get("tool_calls"):
        raise NoAnswerError("the model called a tool instead of answering")
    if isinstance(text, list):  # of parts, as OpenAI's API allows
        text = "".join(part["text"] for part in text if part.get("type") == "text")
    # A model that was cut in its thoughts has said nothing yet.
    return "" if text is None and reasoning else text, str(reasoning)


def _count(value: Any) -> int | None:
    return value if type(value) is int else None


def message_of(answer: Answer) -> str:
    """Return a server's own message for what is wrong, from any of the usual places."""
    try:
        values = answer.json()
    except ValueError:
        return answer.shown
    for path in (("error", "message"), ("message",), ("detail",), ("error",)):
        found = values
        for key in path:
            found = found.get(key) if isinstance(found, dict) else None
        if isinstance(found, str):
            return found[:_SHOWN]
    return answer.shown
