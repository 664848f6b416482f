"""LLaMA-Factory's chat template against the model and its thinking mode."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tunebook.checks.findings import Finding
    from tunebook.checks.recipe import CheckedRecipe

# Of a local model: the templates that belong to its `model_type`. Only families whose special tokens differ.
_BY_TYPE: dict[str, tuple[str, ...]] = {
    "qwen2": ("qwen", "qwen3", "qwen3_nothink", "deepseekr1"),
    "qwen3": ("qwen3", "qwen3_nothink"),
    "qwen3_moe": ("qwen3", "qwen3_nothink"),
    "gemma": ("gemma",),
    "gemma2": ("gemma", "gemma2"),
    "gemma3_text": ("gemma", "gemma2", "gemma3"),
}
_NO_CHAT = frozenset({"default", "empty", "fewshot"})

# Their answers are one word: a reference with a chain of thought would be no answer to them.
_DIRECT = frozenset({"yes_no", "multiple_choice", "exact_match"})


def check_templates(recipe: CheckedRecipe) -> Iterator[Finding]:
    """`unknown-template`, `template-mismatch`, `thinking-mode`."""
    template = recipe.get("template")
    if recipe.engine != "llamafactory" or not isinstance(template, str):
        return
    known = recipe.schema["templates"]
    if template not in known:
        close = difflib.get_close_matches(template, known, n=1, cutoff=0.6)
        yield recipe.error(
            "template",
            "unknown-template",
            f"LLaMA-Factory {recipe.schema['version']} has no template {template!r}",
            fix=f"did you mean {close[0]}?" if close else "see LLaMA-Factory's list of models and templates",
            edit=recipe.rewrite("template", close[0]) if close else None,
        )
        return
    yield from _mismatch(recipe, template)
    yield from _thinking(recipe, template, thinks=known[template]["thinking"])


def _mismatch(recipe: CheckedRecipe, template: str) -> Iterator[Finding]:
    model = str(recipe.get("model_name_or_path", ""))
    made_for = recipe.schema["models_of_templates"].get(model)
    if made_for is None:
        made_for = _BY_TYPE.get(str(recipe.model_config.get("model_type")))
    if not made_for or template in made_for or template in _NO_CHAT:
        return
    if template.removesuffix("_nothink") in made_for:
        yield recipe.hint(
            "template",
            "template-mismatch",
            f"{model} thinks unless it is turned off; {template} trains it without the think block",
            fix=f"infer with {template} too, or write template: {made_for[0]} and enable_thinking: false",
        )
        return
    yield recipe.warning(
        "template",
        "template-mismatch",
        f"{model} is made for the template {' or '.join(made_for)}; {template} "
        "trains it in a form it does not know",
        fix=f"write template: {made_for[0]}",
    )


def _thinking(recipe: CheckedRecipe, template: str, *, thinks: bool) -> Iterator[Finding]:
    if not thinks and recipe.values.get("enable_thinking") is not None:
        yield recipe.hint(
            "enable_thinking",
            "thinking-mode",
            f"the template {template} has no thinking: enable_thinking changes nothing",
            fix=None,
        )
    if recipe.objective is not None and recipe.objective.no_answers is not None:
        return
    entries = recipe.entries(recipe.evaluation_sets)
    direct = [entry.name for entry in entries for spec in entry.metrics if spec.name in _DIRECT]
    if thinks and direct and recipe.effective("enable_thinking") is not False:
        yield recipe.warning(
            "template",
            "thinking-mode",
            f"the rows of {direct[0]} are direct answers: with enable_thinking on, "
            "an empty think block is learned before each of them",
            fix="add enable_thinking: false, in training and in inference",
        )
