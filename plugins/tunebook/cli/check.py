"""`tunebook check`: finds the faults of recipes without starting an engine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from tunebook import paths
from tunebook.checks import run
from tunebook.checks import run as several
from tunebook.checks.arithmetic import preview
from tunebook.checks.findings import apply_edits, diff_of
from tunebook.cli.parts import count_findings, overlay_option, print_finding

if TYPE_CHECKING:
    from tunebook.checks.findings import CheckResult, Finding
    from tunebook.checks.recipe import EngineCommand

_ROUNDS = 3


@click.command("check")
@click.argument("arguments", nargs=-1, required=True, metavar="RECIPE... [KEY=VALUE]...")
@overlay_option
@click.option(
    "--gpus", default=1, show_default=True, type=click.IntRange(1), help="GPUs to count batches for."
)
@click.option(
    "--assert-effective-batch",
    "wanted_batch",
    type=click.IntRange(1),
    metavar="ROWS",
    help="Rows of one optimizer step, all GPUs together; any other number is an error.",
)
@click.option(
    "--command",
    type=click.Choice(["train", "export", "chat", "eval"]),
    help="The engine's command that the file is for; by default its keys decide.",
)
@click.option(
    "--without-files",
    is_flag=True,
    help="Leave out that data, models and checkpoints are missing: on a laptop, or in CI.",
)
@click.option(
    "--engine",
    "ask_engine",
    is_flag=True,
    help="Ask the installed engine's own parser as well, which takes some seconds.",
)
@click.option("--fix", is_flag=True, help="Fix what is mechanical in the files, and show the changes.")
@click.option(
    "--schedule", is_flag=True, help="Print the learning rate at the start, each tenth and the end."
)
@click.option("--steps", type=click.IntRange(1), help="Steps of the run, where its rows cannot be counted.")
@click.option("--json", "as_json", is_flag=True, help="Print the findings as JSON.")
@click.pass_context
def check(
    ctx: click.Context,
    arguments: tuple[str, ...],
    overlay_names: tuple[str, ...],
    gpus: int,
    wanted_batch: int | None,
    command: EngineCommand | None,
    *,
    without_files: bool,
    ask_engine: bool,
    fix: bool,
    schedule: bool,
    steps: int | None,
    as_json: bool,
) -> None:
    """Find the faults of recipes without starting an engine.

    RECIPE is a name from `tunebook ls` or the path of a YAML file; several are checked together. Exit status:
    0 clean (hints do not count), 1 findings, 2 wrong use. docs/check.md explains every rule.

    \b
    Example:
      tunebook check llamafactory/demo/full_sft_recommend learning_rate=5e-4
    """
    names = [argument for argument in arguments if "=" not in argument or Path(argument).is_file()]
    overrides = [argument for argument in arguments if argument not in names]
    if not names:
        raise click.UsageError("name at least one recipe")
    home = paths.home()

    def look(name: str) -> run.Checked:
        checked = run.check_recipe(
            name, home, overlay_names, overrides, command=command, gpus=gpus, without_files=without_files
        )
        return checked if wanted_batch is None else several.with_effective_batch(checked, wanted_batch)

    checked = [look(name) for name in names]
    if fix:
        # A value is looked at only under a key that is known, so a corrected key may bring up another fault.
        for _ in range(_ROUNDS):
            changes = list(apply_edits([finding for one in checked for finding in one.result.findings]))
            if not changes:
                break
            for change in changes:
                click.echo(diff_of(change), nl=False)
            checked = [look(name) for name in names]
    if ask_engine:
        # Not before: a process of an engine is started only here.
        from tunebook.checks.verdict import with_verdicts

        checked = with_verdicts(checked)
    results = several.with_clashes(checked)
    if as_json:
        click.echo(several.as_json(results))
    else:
        for result in results:
            _print(result)
        if schedule:
            for one in checked:
                if one.checked_recipe is not None:
                    click.echo(preview(one.checked_recipe, steps))
        _print_summary(results)
    ctx.exit(0 if all(result.clean for result in results) else 1)


def _print(result: CheckResult) -> None:
    for finding in result.findings:
        place = finding.file if finding.line is None else f"{finding.file}:{finding.line}"
        message = f"{_key(finding)}{finding.message}"
        print_finding(place, finding.severity, finding.rule, message, finding.fix, below=finding.text)


def _key(finding: Finding) -> str:
    return f"{finding.key}: " if finding.key and not finding.message.startswith(finding.key) else ""


def _print_summary(results: list[CheckResult]) -> None:
    found = count_findings(finding.severity for result in results for finding in result.findings)
    files = "1 file" if len(results) == 1 else f"{len(results)} files"
    mechanical = sum(finding.edit is not None for result in results for finding in result.findings)
    more = f"; --fix corrects {mechanical} of them" if mechanical else ""
    click.echo(f"{files}: {found or 'clean'}{more}", err=True)
