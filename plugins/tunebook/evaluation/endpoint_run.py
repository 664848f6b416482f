"""Sends the questions of a plan to a server, several at a time, and keeps each answer as it comes."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from tunebook.errors import TunebookError
from tunebook.evaluation.endpoint import unit_of
from tunebook.evaluation.endpoint_client import Client, NoAnswerError, RefusedError, Server
from tunebook.evaluation.journal import Journal, JournalPart
from tunebook.evaluation.records import Generated

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from tunebook.evaluation.endpoint import AskedSet, EndpointPlan
    from tunebook.evaluation.endpoint_client import Client, Reply
    from tunebook.evaluation.plan import EvalUnit
    from tunebook.evaluation.questions import Question


_FAILURES_IN_A_ROW = 20
_ASKED_AGAIN = 5
"""Kept answers that a later start compares with the server's answers now."""
_COMPARED = 60
"""Characters of each that are compared."""


class SetProgress(NamedTuple):
    """How far one set is, in rows."""

    dataset: str
    done: int
    """Including those kept from an earlier start."""
    failed: int
    """Rows that got no answer in this start."""
    total: int
    kept: int


class Counts(NamedTuple):
    """What a server says about its own work on one set."""

    prompt_tokens: int | None
    """Of all prompts, as the server counts; None where it does not say."""
    compared: int
    """Prompts that both the server and the engine's own tokenizer have counted."""
    other_prompt_tokens: int
    """Of these, prompts whose counts differ."""
    with_reasoning: int
    """Answers whose thoughts the server separated."""


@dataclass(slots=True, kw_only=True)
class EndpointResult:
    """What came of one start."""

    units: list[EvalUnit] = field(default_factory=list)
    failures: list[tuple[str, int, str]] = field(default_factory=list)
    """Set, row and reason of what got no answer."""
    left: int = 0
    """Rows without an answer, including these."""
    retried: int = 0
    """Requests that had to be sent again."""
    stopped: str | None = None
    """Why it was given up before every question was sent."""
    total: int = 0
    """Rows of all sets."""

    def counts(self, unit: EvalUnit) -> Counts:
        """Sum up what the server said of the answers that are there."""
        journal = Journal(unit.journal)
        answers = journal.finished().generated
        own = {row.index: row.prompt_tokens for row in journal.rows()}
        sizes = [one.prompt_tokens for one in answers.values()]
        both = [
            (one.prompt_tokens, own.get(one.index))
            for one in answers.values()
            if one.prompt_tokens is not None and own.get(one.index) is not None
        ]
        return Counts(
            prompt_tokens=None if None in sizes else sum(size or 0 for size in sizes),
            compared=len(both),
            other_prompt_tokens=sum(one != other for one, other in both),
            with_reasoning=sum(bool(one.reasoning) for one in answers.values()),
        )


def ask(
    plan: EndpointPlan,
    server: Server,
    *,
    say: Callable[[str], None],
    on_progress: Callable[[SetProgress], None],
) -> EndpointResult:
    """Send every question that has no answer yet.

    Args:
        plan: The questions.
        server: To ask.
        say: Called with what the user should know, a line each.
        on_progress: Called whenever a row is done.

    Raises:
        TunebookError: The server cannot be asked anything.
    """
    return asyncio.run(_ask(plan, server, say, on_progress))


async def _ask(
    plan: EndpointPlan,
    server: Server,
    say: Callable[[str], None],
    on_progress: Callable[[SetProgress], None],
) -> EndpointResult:
    found = EndpointResult()
    async with Client(server) as client:
        model, root = await choose_model(client, plan.request.model, server.url)
        options = await try_options(client, plan, model, say)
        for asked in plan.sets:
            unit = unit_of(plan, asked, model=model, served=root, options=options)
            found.units.append(unit)
            body = Body(plan, model, options=options, max_tokens=asked.header.max_new_tokens)
            await _ask_set(client, asked, unit, body, server, found, say, on_progress)
        found.retried = client.retried
    return found


async def _ask_set(
    client: Client,
    asked: AskedSet,
    unit: EvalUnit,
    body: Body,
    server: Server,
    found: EndpointResult,
    say: Callable[[str], None],
    on_progress: Callable[[SetProgress], None],
) -> None:
    journal = Journal(unit.journal)
    journal.begin(asked.header, asked.rows)
    with JournalPart(journal, shard=0, rank=0) as part:
        kept = journal.finished().generated
        pending = [question for index, question in asked.questions.items() if index not in kept]
        if kept:
            say(f"{asked.name}: {len(kept)} of {len(asked.questions)} answers are kept from an earlier start")
            await _compare_with_kept(client, asked, body, kept, say)
        progress = SetProgress(asked.name, len(kept), 0, len(asked.questions), len(kept))
        waiting = iter(pending)
        in_a_row = 0

        async def work() -> None:
            nonlocal progress, in_a_row
            for question in waiting:
                if found.stopped is not None:
                    return
                try:
                    reply = await body.send(client, question)
                except NoAnswerError as err:
                    in_a_row += 1
                    found.failures.append((asked.name, question.index, str(err)))
                    progress = progress._replace(failed=progress.failed + 1)
                    if found.stopped is None and in_a_row >= max(_FAILURES_IN_A_ROW, 2 * server.connections):
                        found.stopped = f"{in_a_row} questions in a row got no answer; the last: {err}"
                else:
                    in_a_row = 0
                    part.append([_generated(question, reply)])
                    progress = progress._replace(done=progress.done + 1)
                on_progress(progress)

        if pending and found.stopped is None:
            on_progress(progress)
            async with asyncio.TaskGroup() as group:
                for _ in range(min(server.connections, len(pending))):
                    group.create_task(work())
        found.left += len(asked.questions) - progress.done
        found.total += len(asked.questions)


async def _compare_with_kept(
    client: Client,
    asked: AskedSet,
    body: Body,
    kept: Mapping[int, Generated],
    say: Callable[[str], None],
) -> None:
    """Ask some kept questions again: nothing else shows that a server has other weights now.

    Raises:
        TunebookError: All answers differ.
    """
    # Long answers show best which model it is, and those that were cut show as much.
    longest = sorted(kept.values(), key=lambda one: (-len(one.prediction), one.index))[:_ASKED_AGAIN]
    other = []
    for one in longest:
        try:
            reply = await body.send(client, asked.questions[one.index])
        except NoAnswerError:
            continue
        # Only the beginning: where two tokens are nearly equally likely, a server may choose the other later.
        if reply.text[:_COMPARED] != one.prediction[:_COMPARED]:
            other.append(one.index)
    if other and len(other) == len(longest):
        raise TunebookError(
            f"{asked.name}: the server gives other answers than before to all {len(other)} rows that were "
            "asked again: it has other weights, or another template",
            fix="name what it serves now with --label, or use another folder with -o",
        )
    if other:
        rows = ", ".join(map(str, other))
        say(
            f"warning: {asked.name}: of {len(longest)} kept rows that were asked again, {len(other)} have "
            f"other answers now (rows {rows}): is it the same model?"
        )


def _generated(question: Question, reply: Reply) -> Generated:
    return Generated(
        index=question.index,
        prediction=reply.text,
        tokens=reply.generated_tokens or 0,
        cut=reply.cut,
        prompt_tokens=reply.prompt_tokens,
        reasoning=reply.reasoning,
    )


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
        TunebookError: No model is named, and the server does not have exactly one.
    """
    if wanted is not None:
        try:
            return Served(wanted, (await client.models()).get(wanted))
        except TunebookError:
            return Served(wanted, None)  # the first question shows what is wrong, if anything
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
                fix="fix what it names; for models without a chat template use --completions",
            ) from err
        except NoAnswerError as err:
            raise TunebookError(
                f"{plan.request.url} does not answer: {err}", fix="read the server's log"
            ) from err
        if wanted and not options:
            say(
                f"warning: the server refuses chat_template_kwargs ({refusal}); they are not sent, so "
                f"{plan.options} has to be set where it is started"
            )
        elif plan.options and not wanted and not plan.request.completions:
            say(
                f"chat_template_kwargs are not sent: {plan.options} has to be set where the server is started"
            )
        return options
    raise AssertionError("one of the two was tried")


class Body:
    """Turns questions into requests."""

    def __init__(self, plan: EndpointPlan, model: str, *, options: bool, max_tokens: int) -> None:
        self._plan = plan
        self._fixed: dict[str, Any] = {"model": model, "temperature": 0, "max_tokens": max_tokens}
        if options:
            self._fixed["chat_template_kwargs"] = plan.options
        if plan.request.completions and plan.stop:
            self._fixed["stop"] = plan.stop[:4]  # OpenAI's API takes four

    async def send(self, client: Client, question: Question) -> Reply:
        """Send a question to the server; raises as `Client.chat`."""
        if self._plan.request.completions:
            return await client.complete({**self._fixed, "prompt": question.prompt})
        return await client.chat({**self._fixed, "messages": question.messages})
