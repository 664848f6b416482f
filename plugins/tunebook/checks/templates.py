"""LLaMA-Factory's chat template against the model and its thinking mode."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from tunebook.checks.names import slip
from tunebook.engines.schema import versions_with

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

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
    if recipe.engine == "axolotl":
        yield from _of_blocks(recipe)
    if recipe.engine != "llamafactory" or not isinstance(template, str):
        return
    known = recipe.schema["templates"]
    if template not in known:
        yield _unknown(recipe, template)
        return
    yield from _mismatch(recipe, template)
    yield from _thinking(recipe, template, thinks=known[template]["thinking"])


def _of_blocks(recipe: CheckedRecipe) -> Iterator[Finding]:
    """Templates that blocks of data name: Axolotl looks for them when it makes the rows."""
    spec = recipe.schema["keys"]["chat_template"]
    for key in ("datasets", "test_datasets"):
        blocks = recipe.get(key)
        for number, block in enumerate(blocks if isinstance(blocks, list) else ()):
            name = block.get("chat_template") if isinstance(block, dict) else None
            known = name in spec["choices"] or name is None
            if known or any(re.match(pattern, str(name)) for pattern in spec.get("patterns", ())):
                continue
            meant = slip(str(name), spec["choices"])
            yield recipe.error(
                f"{key}[{number}].chat_template",
                "unknown-template",
                f"Axolotl {recipe.schema['version']} has no template {name!r}",
                fix=f"did you mean {meant}?"
                if meant
                else "name one that it has, or write chat_template: jinja and chat_template_jinja: <file>",
            )


def _unknown(recipe: CheckedRecipe, template: str) -> Finding:
    """Another template is another prompt: the model's own is named, and spelling counts for a slip only."""
    own, meant = _made_for(recipe), slip(template, recipe.schema["templates"])
    had = versions_with("llamafactory", template, section="templates")
    problem = f"LLaMA-Factory {recipe.schema['version']} has no template {template!r}"
    if had:
        problem += f"; {', '.join(had)} has"
    if own and not (meant and meant in own):
        fix = f"the model's own is {' or '.join(own)}"
    elif meant:
        fix = f"did you mean {meant}?"
    else:
        fix = "see LLaMA-Factory's list of models and templates"
    sure = meant is not None and not had and (not own or meant in own)
    return recipe.error(
        "template",
        "unknown-template",
        problem,
        fix=fix,
        edit=recipe.rewrite("template", meant) if sure and meant else None,
    )


def _made_for(recipe: CheckedRecipe) -> Sequence[str]:
    """The templates of the recipe's model, by its name, by that of a mirror or copy of it, or by its type."""
    model, known = str(recipe.get("model_name_or_path", "")), recipe.schema["models_of_templates"]
    if model in known:
        return list(known[model])
    last = model.rstrip("/").rpartition("/")[2].lower()
    same = {name for path, names in known.items() if path.lower().endswith(f"/{last}") for name in names}
    return sorted(same) or _BY_TYPE.get(str(recipe.model_config.get("model_type")), ())


def _mismatch(recipe: CheckedRecipe, template: str) -> Iterator[Finding]:
    model, made_for = recipe.get("model_name_or_path"), _made_for(recipe)
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
