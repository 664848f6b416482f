"""Every shipped recipe with its smoke overlay, found by folder: what it evaluates on, and which tiny twin it needs."""

from pathlib import Path
from typing import NamedTuple

from tunebook import engines
from tunebook.recipes import overlays
from tunebook.recipes.catalog import read_recipe, recipe_files
from tunebook.types import EngineName, Recipe

ROOT = Path(__file__).parents[1]
RECIPES = ROOT / "recipes"
TINY = "output/tiny/"
MODEL_KEYS: dict[EngineName, str] = {"llamafactory": "model_name_or_path", "axolotl": "base_model"}

# The longest of these that begins a model's name tells which architecture of scripts/make_tiny_model.py it has.
TWINS = {
    "Qwen/Qwen3": "qwen3",
    "Qwen/Qwen3.5": "qwen3_5",
    "HuggingFaceTB/SmolLM2": "llama",
    "google/gemma-2b": "gemma",
    "google/gemma-7b": "gemma",
    "google/gemma-2-": "gemma2",
    "google/gemma-3-": "gemma3",
}


class Case(NamedTuple):
    """One recipe as it is run on a CPU: two steps, an evaluation and a checkpoint, in a folder of its own."""

    name: str
    overlays: tuple[str, ...]
    overrides: tuple[str, ...]
    values: dict
    """With overlay and overrides merged in."""
    evaluation_sets: tuple[str, ...]
    output: str
    """Relative to the folder the engine is started in."""


def shipped(engine: EngineName) -> list[Recipe]:
    return [
        recipe for path in recipe_files(RECIPES) if (recipe := read_recipe(path, RECIPES)).engine == engine
    ]


def model_of(recipe: Recipe) -> str:
    return recipe.values[MODEL_KEYS[recipe.engine]]


def twin_of(model: str) -> str:
    """Name the tiny architecture that stands for a model, itself tiny or not."""
    if model.startswith(TINY):
        return model.removeprefix(TINY)
    return TWINS[max((prefix for prefix in TWINS if model.startswith(prefix)), key=len)]


def smoke_overlay(recipe: Recipe) -> str | None:
    """Name the recipe's smoke overlay: for its data or the start of its name, for its method, or for its folder.

    None for a recipe that runs on a tiny model as it stands.

    Raises:
        LookupError: There is none, and it needs one.
    """
    if model_of(recipe).startswith(TINY):
        return None
    method, _, *words = recipe.name.rsplit("/", 1)[1].split("_")
    wanted = ["_".join(["smoke", *words[:count]]) for count in range(len(words), 0, -1)]
    wanted += [f"smoke_{method}", "smoke"]
    found = overlays.overlay_names(recipe, RECIPES)
    for name in wanted:
        if name in found:
            return name
    raise LookupError(f"{recipe.name} has no overlay {' or '.join(wanted)}")


def cases(engine: EngineName) -> list[Case]:
    made = []
    for recipe in shipped(engine):
        overlay = smoke_overlay(recipe)
        names = () if overlay is None else (overlay,)
        output = f"output/every/{recipe.name.replace('/', '-')}"
        overrides = ("max_steps=2", "eval_steps=2", "save_steps=2", "logging_steps=1", f"output_dir={output}")
        values = dict(overlays.resolve(recipe, RECIPES, names, overrides).recipe.values)
        evaluated = engines.load(engine).evaluation_sets(values)
        made.append(Case(recipe.name, names, overrides, values, evaluated, output))
    return made
