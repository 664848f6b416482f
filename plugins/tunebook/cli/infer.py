"""`tunebook infer`: a model's answers to a file of prompts, or to one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tunebook import files
from tunebook.data.rows import READABLE, iter_rows
from tunebook.errors import TunebookError
from tunebook.inference import output as outputs
from tunebook.inference.conversations import OUTPUT_COLUMNS, conversation_of
from tunebook.inference.output import run_module, weights_of
from tunebook.models.source import find_model, weights_sha256

if TYPE_CHECKING:
    from tunebook.models.source import ModelSource


@click.command("infer")
@click.argument("model", metavar="MODEL|RUN")
@click.argument("file", required=False, type=click.Path(path_type=Path, dir_okay=False))
@click.option("-o", "--output", type=click.Path(path_type=Path), metavar="OUT.jsonl", help="File of answers.")
@click.option("--prompt", metavar="TEXT", help="Answer this one prompt, streamed to stdout.")
@click.option("--system", metavar="TEXT", help="System prompt instead of the rows' own; '' for none.")
@click.option("--thinking/--no-thinking", default=None, help="Ask the model to think; default: as trained.")
@click.option("--base", "with_base", is_flag=True, help="Let the model it was trained from answer as well.")
@click.option("--checkpoint", metavar="STEP|best|last", help="Which weights of the run; else its best.")
@click.option("--adapter", type=click.Path(path_type=Path), metavar="PATH", help="Adapter to put on MODEL.")
@click.option("--recipe", metavar="R", help="Recipe it was trained with, where the run does not say.")
@click.option("--max-new-tokens", type=click.IntRange(min=1), default=512, show_default=True)
@click.option("--batch-size", type=click.IntRange(min=1), default=8, show_default=True)
@click.option("--sample", is_flag=True, help="Draw tokens by chance, rather than the likeliest.")
@click.option("--temperature", type=click.FloatRange(min=0, min_open=True), default=1.0, show_default=True)
@click.option("--top-p", type=click.FloatRange(0, 1, min_open=True), default=1.0, show_default=True)
@click.option("--top-k", type=click.IntRange(min=0), default=0, show_default=True, help="0: all tokens.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of --sample.")
@click.option("--overwrite", is_flag=True, help="Begin anew, whatever is in the file of answers.")
@click.option("--dry-run", is_flag=True, help="Read and check everything, and print what would be done.")
def infer(
    model: str,
    file: Path | None,
    output: Path | None,
    prompt: str | None,
    system: str | None,
    checkpoint: str | None,
    adapter: Path | None,
    recipe: str | None,
    max_new_tokens: int,
    batch_size: int,
    temperature: float,
    top_p: float,
    top_k: int,
    seed: int,
    *,
    thinking: bool | None,
    with_base: bool,
    sample: bool,
    overwrite: bool,
    dry_run: bool,
) -> None:
    """Answer prompts, put to the model as in its training.

    Template, system prompt and thinking are those of the training, from the contract beside the model or
    the recipe in the run. Answers are greedy, and come out in the order of the rows, each row with its own
    columns and `prediction`, `finish_reason`, `prompt_tokens`, `completion_tokens`. The same command
    continues where it was killed.

    \b
    Example:
      tunebook infer output/demo/recommend datasets_info/demo/eval.json -o answers.jsonl
    """
    if (file is None) == (prompt is None):
        raise click.UsageError("give either FILE or --prompt TEXT")
    if output is not None and file is None:
        raise click.UsageError("--output needs FILE: the answer to --prompt goes to stdout")
    _refuse_idle_options(sample=sample)
    source = find_model(model, checkpoint=checkpoint, recipe=recipe, adapter=adapter)
    click.echo(f"tunebook: {source.chosen}; prompts as {source.told_by} says", err=True)
    sampling = {"do_sample": True, "temperature": temperature, "top_p": top_p, "top_k": top_k}
    job: dict[str, Any] = {
        "weights": weights_of(source),
        "beside": weights_of(source, base=True) if with_base else None,
        "input": None,
        "prompt": prompt,
        "output": None,
        "done": 0,
        "rows": 0,
        "system": system,
        "thinking": thinking,
        "max_new_tokens": max_new_tokens,
        "batch_size": batch_size,
        "sampling": sampling if sample else {},
        "seed": seed,
    }
    if file is None:
        if not dry_run:
            click.get_current_context().exit(run_module("tunebook.hooks.infer", job, source.engine))
        return
    path = output or file.with_name(f"{file.stem}.answers.jsonl")
    rows = _read(file, system, suffixes=("", "_base") if with_base else ("",))
    if dry_run:
        click.echo(f"would answer {rows:,} rows of {file} into {path}, {batch_size} at a time")
        return
    begun = outputs.begin(path, _settings(job, source, file), overwrite=overwrite)
    if begun.state == "finished":
        click.echo(f"{path}: all {begun.rows:,} rows are answered already")
        return
    if begun.rows:
        click.echo(f"tunebook: going on after row {begun.rows:,} of {rows:,}", err=True)
    part = outputs.part_of(path)
    job |= {"input": str(file.absolute()), "output": str(part.absolute()), "done": begun.rows, "rows": rows}
    code = run_module("tunebook.hooks.infer", job, source.engine)
    if code != 0:
        click.get_current_context().exit(code)
    outputs.finish(path)
    click.echo(f"wrote {path}: {rows:,} rows")


def _refuse_idle_options(*, sample: bool) -> None:
    context = click.get_current_context()
    given = [
        f"--{name.replace('_', '-')}"
        for name in ("temperature", "top_p", "top_k", "seed")
        if context.get_parameter_source(name) is not click.core.ParameterSource.DEFAULT
    ]
    if given and not sample:
        raise click.UsageError(f"{', '.join(given)} has no effect on greedy answers: add --sample")


def _read(file: Path, system: str | None, suffixes: tuple[str, ...]) -> int:
    """Read the whole input once, so that a bad row is named before a model is loaded; return its rows."""
    if file.suffix not in READABLE:
        raise TunebookError(
            f"{file}: its name ends in {file.suffix!r}", fix=f"name a {', '.join(sorted(READABLE))} file"
        )
    columns = {f"{name}{suffix}" for name in OUTPUT_COLUMNS for suffix in suffixes}
    rows = 0
    for rows, row in enumerate(iter_rows(file), 1):
        where = f"{file}, row {rows}"
        conversation_of(row, where, system=system)
        taken = sorted(columns & row.keys())
        if taken:
            raise TunebookError(
                f"{where}: has a column {taken[0]!r} already, which the answer would replace",
                fix="rename that column in the input",
            )
    if rows == 0:
        raise TunebookError(f"{file}: holds no rows", fix="write one prompt a row into it")
    return rows


def _settings(job: dict[str, Any], source: ModelSource, file: Path) -> dict[str, Any]:
    """Everything that the answers depend on. The batch size changes only what is drawn by chance."""
    names = ["weights", "beside", "system", "thinking", "max_new_tokens", "sampling"]
    if job["sampling"]:
        names += ["seed", "batch_size"]
    return {
        **{name: job[name] for name in names},
        "weights_sha256": weights_sha256(source.folder),
        "input_sha256": files.sha256_of(file),
    }
