"""`tunebook verify`: whether a server will ask a model as it was trained to be asked."""

from __future__ import annotations

import json
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tunebook.errors import TunebookError
from tunebook.inference.output import run_module, weights_of
from tunebook.models.source import find_model
from tunebook.text import without_controls
from tunebook.verification.prompts import (
    REASONING,
    SAMPLES,
    align,
    answer_findings,
    first_difference,
    prompt_findings,
    read_samples,
    stop_findings,
    trained_prompt,
)
from tunebook.verification.saved_files import (
    file_findings,
    generation_eos,
    served_tokenizer,
    template_changed,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tunebook.models.source import ModelSource
    from tunebook.verification.prompts import VerifyFinding

_MARKS = {"equal": "ok", "note": "note", "differs": "DIFFERS", "unknown": "unknown"}
_BEFORE, _LINES = 3, 14


@click.command("verify")
@click.argument("model", metavar="MODEL|RUN")
@click.option("--recipe", metavar="R", help="Recipe it was trained with, where the run does not say.")
@click.option("--checkpoint", metavar="STEP|best|last", help="Which weights of the run; else its best.")
@click.option("--adapter", type=click.Path(path_type=Path), metavar="PATH", help="Adapter on MODEL.")
@click.option(
    "--conversation",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Compare these conversations (at most 20), rather than five of our own.",
)
@click.option(
    "--chat-template-kwargs", "served_with", metavar="JSON", help="What your server passes to the template."
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout, with all token ids.")
def verify(
    model: str,
    recipe: str | None,
    checkpoint: str | None,
    adapter: Path | None,
    conversation: Path | None,
    served_with: str | None,
    *,
    as_json: bool,
) -> None:
    """Compare what a server sends to a model with what training did.

    The same conversations are written by the engine's template, as training saw them, and by the saved
    tokenizer's chat template, as vLLM and transformers write them, and compared token by token. Stop tokens,
    rope scaling, vocabulary, base model and precision are compared with the contract of the training. No
    weights are loaded. Exits 1 where something differs.

    \b
    Example:
      tunebook verify output/demo/recommend
    """
    options = _options(served_with)
    source = find_model(model, checkpoint=checkpoint, recipe=recipe, adapter=adapter)
    if source.engine is None:
        raise TunebookError(
            f"{source.folder}: nothing says how it was trained: there is no contract beside it",
            fix="name the recipe that it was trained with by --recipe",
        )
    tokenizer = served_tokenizer(source)
    samples = read_samples(conversation) if conversation is not None else list(SAMPLES)
    rendered = _render(source, tokenizer, samples, options)
    findings = _findings(source, tokenizer, rendered)
    differs = any(finding.level == "differs" for finding in findings)
    if as_json:
        result = {
            "model": str(source.folder),
            "engine": source.engine,
            "told_by": source.told_by,
            "tokenizer": str(tokenizer),
            "equal": not differs,
            "findings": [asdict(finding) for finding in findings],
            "rendered": rendered,
        }
        click.echo(json.dumps(result, indent=2, ensure_ascii=False))
    else:
        click.echo(f"{source.folder}: trained as {source.told_by} says, served with {tokenizer}")
        _print(findings, rendered)
    click.get_current_context().exit(1 if differs else 0)


def _options(text: str | None) -> dict[str, Any]:
    if text is None:
        return {}
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise TunebookError(
            f"--chat-template-kwargs {text}: is not a JSON object", fix="e.g. '{\"enable_thinking\": false}'"
        )
    return found


def _render(
    source: ModelSource, tokenizer: Path, samples: list[dict[str, Any]], options: Mapping[str, Any]
) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="tunebook-verify-") as folder:
        result = Path(folder) / "result.json"
        job = {
            "weights": weights_of(source),
            "saved": str(tokenizer.absolute()),
            "samples": samples,
            "reasoning": REASONING,
            "chat_template_kwargs": dict(options),
            "default_system": _default_system(source),
            "result": str(result),
        }
        code = run_module("tunebook.hooks.render", job, source.engine)
        if code != 0:
            click.get_current_context().exit(code)
        return dict(json.loads(result.read_text(encoding="utf-8")))


def _default_system(source: ModelSource) -> str | None:
    if source.contract is not None:
        return source.contract["template"]["default_system"] or None
    found = source.settings.get("default_system", source.settings.get("default_system_message"))
    return found or None


def _findings(source: ModelSource, tokenizer: Path, rendered: Mapping[str, Any]) -> list[VerifyFinding]:
    eos, place = generation_eos(source)
    changed = template_changed(source, tokenizer)
    return [
        *prompt_findings(rendered, changed=changed, default_system=_default_system(source)),
        *answer_findings(rendered),
        *stop_findings(rendered, eos, place),
        *file_findings(source, tokenizer, rendered["saved_vocabulary"]),
    ]


def _print(findings: list[VerifyFinding], rendered: Mapping[str, Any]) -> None:
    samples = {f"prompt: {sample['name']}": sample for sample in rendered["samples"]}
    fixes: dict[str, None] = {}
    seen = set()
    for finding in findings:
        click.echo(without_controls(f"{_MARKS[finding.level]:>8}  {finding.check}: {finding.message}"))
        if finding.level == "differs" and finding.check in samples:
            sample = samples[finding.check]
            where = _where(sample)
            if where not in seen:  # a fault of the template comes again in every conversation
                _print_tokens(sample, rendered["texts"])
            seen.add(where)
        if finding.fix:
            fixes[finding.fix] = None
    for fix in fixes:
        click.echo(f"fix: {fix}")


def _where(sample: Mapping[str, Any]) -> tuple[int | None, int | None]:
    """The tokens at which the two prompts begin to differ."""
    trained, served = trained_prompt(sample), sample["served"]["prompts"]["as served"]
    place = first_difference(trained, served) or 0
    return tuple((ids[place] if place < len(ids) else None) for ids in (trained, served))  # type: ignore[return-value]


def _print_tokens(sample: Mapping[str, Any], texts: Mapping[str, Mapping[str, str]]) -> None:
    """Show both prompts side by side around their first difference."""
    pairs = align(trained_prompt(sample), sample["served"]["prompts"]["as served"])
    first = next((number for number, pair in enumerate(pairs) if not pair.equal), len(pairs))
    shown = pairs[max(0, first - _BEFORE) : first + _LINES]
    cells = [
        (_token(pair.trained, texts["trained"]), _token(pair.served, texts["served"]), pair.equal)
        for pair in shown
    ]
    width = max(len(left) for left, _, _ in cells)
    click.echo(f"            {'trained':<{width}}  served")
    for left, right, equal in cells:
        click.echo(without_controls(f"          {' ' if equal else '>'} {left:<{width}}  {right}"))
    rest = len(pairs) - max(0, first - _BEFORE) - len(shown)
    if rest:
        click.echo(f"            ... {rest} more; --json has them all")


def _token(identity: int | None, texts: Mapping[str, str]) -> str:
    return "-" if identity is None else f"{texts[str(identity)]!r}"
