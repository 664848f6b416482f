"""What is sent to a server: to which of its models, and in a form that it takes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from tunebook.errors import TunebookError
from tunebook.evaluation.endpoint_replies import NoAnswerError, RefusedError

if TYPE_CHECKING:
    from collections.abc import Callable

    from tunebook.evaluation.endpoint import EndpointPlan
    from tunebook.evaluation.endpoint_client import Client
    from tunebook.evaluation.endpoint_replies import Reply
    from tunebook.evaluation.questions import Question


class Served(NamedTuple):
    """The model that is asked."""

    name: str
    root: str | None
    """Its weights, where the server says what they are."""


async def choose_model(client: Client, wanted: str | None, url: str) -> Served:
    """Return the model to ask.

    Args:
        client: The server.
        wanted: The name that the user gives. It need not be listed: servers take names of adapters, too.
        url: The server's, for messages.

    Raises:
        TunebookError: The server has several, or none, and none is named.
    """
    if wanted is not None:
        try:
            return Served(wanted, (await client.models()).get(wanted))
        except TunebookError:
            return Served(wanted, None)  # what is wrong, or that nothing is, shows at the first question
    models = await client.models()
    if len(models) == 1:
        return Served(*next(iter(models.items())))
    raise TunebookError(
        f"{url} offers {', '.join(models) if models else 'no models'}",
        fix="name one with --model" if models else "name the model with --model",
    )


async def try_options(client: Client, plan: EndpointPlan, model: str, say: Callable[[str], None]) -> bool:
    """Ask for one token, and return whether the server takes `chat_template_kwargs`.

    Raises:
        TunebookError: It answers nothing.
    """
    every = [question for asked in plan.sets for question in asked.questions.values()]
    shortest = min(every, key=lambda question: len(question.prompt))
    wanted = bool(plan.options) and plan.request.send_options and not plan.request.completions
    for options in [True, False] if wanted else [False]:
        body = Body(plan, model, options=options, max_tokens=1)
        try:
            await body.send(client, shortest)
        except RefusedError as err:
            if options:
                refusal = str(err)
                continue
            raise TunebookError(
                f"{plan.request.url} refuses the shortest question: {err}",
                fix="mend what it names; models without a chat template are asked with --completions",
            ) from err
        except NoAnswerError as err:
            raise TunebookError(
                f"{plan.request.url} answers nothing: {err}", fix="look into the server's log"
            ) from err
        if wanted and not options:
            say(
                f"warning: the server refuses chat_template_kwargs ({refusal}); it is asked without, so "
                f"{plan.options} has to be set where it is started"
            )
        elif plan.options and not wanted and not plan.request.completions:
            say(
                f"chat_template_kwargs are not sent: {plan.options} has to be set where the server is started"
            )
        return options
    raise AssertionError("one of the two was tried")


class Body:
    """Makes requests of questions."""

    def __init__(self, plan: EndpointPlan, model: str, *, options: bool, max_tokens: int) -> None:
        self._plan = plan
        self._fixed: dict[str, Any] = {"model": model, "temperature": 0, "max_tokens": max_tokens}
        if options:
            self._fixed["chat_template_kwargs"] = plan.options
        if plan.request.completions and plan.stop:
            self._fixed["stop"] = plan.stop[:4]  # OpenAI's API takes four

    async def send(self, client: Client, question: Question) -> Reply:
        """Put a question to the server; raises as `Client.chat`."""
        if self._plan.request.completions:
            return await client.complete({**self._fixed, "prompt": question.prompt})
        return await client.chat({**self._fixed, "messages": question.messages})
