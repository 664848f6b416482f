"""`tunebook eval --endpoint`: its options, and what it prints."""

from __future__ import annotations

import os
import shlex
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tunebook.evaluation.endpoint import EndpointPlan, EndpointRequest
    from tunebook.evaluation.endpoint_client import Server
    from tunebook.evaluation.endpoint_run import EndpointResult, SetProgress
    from tunebook.evaluation.shots import ShotsRequest


_SHOWN_FAILURES = 5
_LINE_SECONDS = 10.0
"""At least, between two lines of progress."""

_OF_A_SERVER = frozenset(
    {
        *("model", "label", "concurrency", "timeout", "retries", "api_key_env", "completions"),
        "no_template_options",
    }
)
_OF_BOTH = frozenset(
    {
        *("arguments", "endpoint", "datasets", "max_samples", "output", "trackers", "dry_run", "as_json"),
        *("shots", "shots_file", "shots_template"),
    }
)
"""Options of `tunebook eval`; all others say how a model is loaded and computed, which a server has done."""

Function = Any


def shots_options(function: Function) -> Function:
    """Add the options of examples before questions."""
    for option in reversed(
        [
            click.option(
                "--shots", type=click.IntRange(min=0), metavar="N",
                help="Show N examples before each question, from the training data or a file.",
            ),
            click.option(
                "--shots-file", type=click.Path(path_type=Path, dir_okay=False, exists=True),
                metavar="FILE.jsonl", help='Examples as {"question": ..., "answer": ...}.',
            ),
            click.option(
                "--shots-template", metavar="TEXT", default=r"{question}\n{answer}\n\n", show_default=True,
                help="How one example is written.",
            ),
        ]
    ):  # fmt: skip
        function = option(function)
    return function


def endpoint_options(function: Function) -> Function:
    """Add the options of evaluating through a server."""
    for option in reversed(
        [
            click.option(
                "--endpoint", metavar="URL", help="Ask the model that an OpenAI-compatible server has loaded."
            ),
            click.option("--model", metavar="NAME", help="Of the server's models; else its only one."),
            click.option("--label", metavar="TEXT", help="Name of the served model in results."),
            click.option(
                "--concurrency", type=click.IntRange(min=1), default=8, show_default=True,
                help="Questions sent at a time.",
            ),
            click.option(
                "--timeout", type=click.FloatRange(min=0, min_open=True), default=600.0, show_default=True,
                metavar="SECONDS", help="Longest wait for one answer.",
            ),
            click.option(
                "--retries", type=click.IntRange(min=0), default=5, show_default=True,
                help="How often a question is sent again after 429, 5xx or a lost connection.",
            ),
            click.option(
                "--api-key-env", default="OPENAI_API_KEY", show_default=True, metavar="VARIABLE",
                help="Environment variable that holds the server's key.",
            ),
            click.option(
                "--completions", is_flag=True,
                help="Send the prompt as text to continue, for models without a chat template.",
            ),
            click.option(
                "--no-template-options", is_flag=True,
                help="Leave out chat_template_kwargs, which set the recipe's thinking mode.",
            ),
        ]
    ):  # fmt: skip
        function = option(function)
    return function


@contextmanager
def shots_request(
    shots: int | None, shots_file: Path | None, shots_template: str, output: Path, *, dry_run: bool
) -> Iterator[ShotsRequest | None]:
    """The examples that the options ask for; None for no examples."""
    from tunebook.evaluation.plan import JOURNAL
    from tunebook.evaluation.shots import ShotsRequest, read_template

    template = read_template(shots_template)
    if not shots and (shots_file is None or shots == 0):
        yield None
    elif dry_run:
        # To show what would be asked, the data has to be made; it is removed again.
        with tempfile.TemporaryDirectory(prefix="tunebook-shots-") as temporary:
            yield ShotsRequest(wanted=shots, file=shots_file, template=template, folder=Path(temporary))
    else:
        folder = output / JOURNAL / "shots"
        yield ShotsRequest(wanted=shots, file=shots_file, template=template, folder=folder)


def refuse_other_options(ctx: click.Context, endpoint: str | None) -> None:
    """Stop at options that mean nothing with a server, or without one.

    Raises:
        UsageError: One was given.
    """
    for parameter in ctx.command.params:
        name = str(parameter.name)
        if ctx.get_parameter_source(name) is not click.core.ParameterSource.COMMANDLINE or name in _OF_BOTH:
            continue
        if (name in _OF_A_SERVER) != (endpoint is not None):
            raise click.UsageError(
                f"{parameter.opts[0]} says how a model is loaded, which the server has done; leave it out"
                if endpoint is not None
                else f"{parameter.opts[0]} is about a server: it needs --endpoint URL"
            )


def ask_server(
    request: EndpointRequest, *, server: Server, dry_run: bool
) -> tuple[list[dict[str, Any]], EndpointResult | None]:
    """Ask, and write complete results.

    Returns:
        The results that were written, and how asking ended; None for a dry run.
    """
    from tunebook.evaluation.endpoint import plan_endpoint
    from tunebook.evaluation.endpoint_run import ask
    from tunebook.evaluation.finalise import write_result

    plan = plan_endpoint(request)
    for note in plan.notes:
        say(note)
    if dry_run:
        _print_plan(plan)
        return [], None
    with progress() as on_progress:
        try:
            asked = ask(plan, server, say=say, on_progress=on_progress)
        except KeyboardInterrupt:
            say("stopped; what was answered is kept, and the same command continues from it")
            raise
    results = []
    for unit in asked.units:
        counts = asked.counts(unit)
        unit.about["server"] = counts._asdict()
        if counts.other_prompt_tokens:
            say(
                f"warning: {unit.dataset}: {counts.other_prompt_tokens} of {counts.compared} prompts have "
                "another number of tokens at the server than in the engine: its chat template, thinking mode "
                "or tokenizer is not the recipe's"
            )
        result = write_result(unit, request.output)
        if result is not None:
            results.append(result)
    _say_end(asked)
    return results, asked


def server_of(endpoint: str, concurrency: int, timeout: float, retries: int, api_key_env: str) -> Server:
    """Read the options that say how a server is reached."""
    from tunebook.evaluation.endpoint_client import Server, address

    key = os.environ.get(api_key_env, "").strip() or None
    return Server(url=address(endpoint), key=key, timeout=timeout, retries=retries, connections=concurrency)


def _say_end(asked: EndpointResult) -> None:
    if asked.retried:
        say(f"{asked.retried} requests had to be sent again")
    if not asked.left:
        return
    for name, row, reason in asked.failures[:_SHOWN_FAILURES]:
        say(f"{name}, row {row}: no answer: {reason}")
    if len(asked.failures) > _SHOWN_FAILURES:
        say(f"... and {len(asked.failures) - _SHOWN_FAILURES} more")
    if asked.stopped is not None:
        say(f"given up: {asked.stopped}")
    say(
        f"{asked.left} of {asked.total} rows have no answer, so their results are not written; to continue: "
        + shlex.join(["tunebook", *sys.argv[1:]])
    )


def _print_plan(plan: EndpointPlan) -> None:
    for asked in plan.sets:
        click.echo(f"# would ask {plan.request.url}: {len(asked.questions)} questions of {asked.name}")
        first = next(iter(asked.questions.values()))
        click.echo(f"# the first, with at most {asked.header.max_new_tokens} tokens for the answer:")
        if plan.request.completions:
            click.echo(first.prompt)
        for message in () if plan.request.completions else first.messages:
            click.echo(f"[{message['role']}] {message['content']}")


@contextmanager
def progress() -> Iterator[Callable[[SetProgress], None]]:
    """Show how far a server is: a bar with rate and time left in a terminal, at times a line elsewhere."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    console = Console(stderr=True)
    began: dict[str, float] = {}
    shown = time.monotonic()

    def rate(now: SetProgress) -> float:
        seconds = time.monotonic() - began.setdefault(now.dataset, time.monotonic())
        return (now.done - now.kept) / seconds if seconds > 0 else 0.0

    def line(now: SetProgress) -> None:
        nonlocal shown
        speed = rate(now)
        if time.monotonic() - shown < _LINE_SECONDS or not speed:
            return
        shown = time.monotonic()
        left = (now.total - now.done - now.failed) / speed
        failed = f", {now.failed} without an answer" if now.failed else ""
        say(
            f"{now.dataset}: {now.done} of {now.total} rows{failed}, {speed:.1f} a second, "
            f"about {left:.0f} s left"
        )

    if not console.is_terminal:
        yield line
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    tasks: dict[str, Any] = {}
    with Bar(*columns, console=console, transient=True) as bar:

        def move(now: SetProgress) -> None:
            if now.dataset not in tasks:
                tasks[now.dataset] = bar.add_task(now.dataset, total=now.total, completed=now.kept, rate="")
            failed = f", {now.failed} failed" if now.failed else ""
            bar.update(
                tasks[now.dataset],
                completed=now.done + now.failed,
                rate=f"{rate(now):.1f} rows/s{failed}",
            )

        yield move


def say(line: str) -> None:
    """Print a line on stderr."""
    click.echo(f"tunebook: {line}", err=True)
