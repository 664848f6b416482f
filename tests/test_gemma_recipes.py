"""The Gemma recipes have the settings of their source, and their variants change what they say."""

import re

import pytest

from recipe_cases import RECIPES, ROOT, shipped
from tunebook import memory
from tunebook.checks.learning_rate import schedule
from tunebook.checks.run import check_recipe
from tunebook.data.registry import load_registry
from tunebook.memory.from_recipe import read_run
from tunebook.recipes.catalog import find_recipe
from tunebook.recipes.overlays import resolve

ENGINES = ("llamafactory", "axolotl")
METHODS = ("full", "lora")
GEMMA = [recipe.name for engine in ENGINES for recipe in shipped(engine) if "/gemma-" in recipe.name]
KEYS = {
    "llamafactory": ("dataset", "eval_dataset", "lr_scheduler_type", "optim"),
    "axolotl": ("datasets", "tunebook_eval_datasets", "lr_scheduler", "optimizer"),
}


def values(engine: str, method: str, *overlays: str) -> dict:
    recipe = find_recipe(f"{engine}/gemma-2b-it/{method}_sft_gsm8k", RECIPES)
    return dict(resolve(recipe, RECIPES, overlays).recipe.values)


@pytest.mark.parametrize("name", GEMMA)
def test_optimizer_precision_scheduler_and_clipping_are_the_sources(name):
    found = find_recipe(name, RECIPES).values
    _, _, scheduler, optimizer = KEYS[name.partition("/")[0]]
    assert found[scheduler] == "cosine_with_min_lr"
    assert found[optimizer] == "paged_adamw_8bit"
    assert found["bf16"] is True
    assert found["max_grad_norm"] == 1.0
    reentrant = found.get("gradient_checkpointing_kwargs", {}).get(
        "use_reentrant", found.get("use_reentrant_gc")
    )
    assert reentrant is False


@pytest.mark.parametrize("name", GEMMA)
def test_the_learning_rate_ends_at_the_floor_that_is_named(name):
    found = find_recipe(name, RECIPES).values
    assert list(found["lr_scheduler_kwargs"]) == ["min_lr"]
    floor = found["lr_scheduler_kwargs"]["min_lr"]
    rate = schedule(
        "cosine_with_min_lr", peak=found["learning_rate"], steps=1_404, warmup=43, options={"min_lr": floor}
    )
    assert rate(1_404) == pytest.approx(floor)
    assert floor == pytest.approx(found["learning_rate"] / 10)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("method", METHODS)
def test_the_socratic_variant_trains_on_other_answers_and_is_evaluated_on_the_same_rows(engine, method):
    main, socratic = values(engine, method), values(engine, method, f"socratic_{method}")
    data = KEYS[engine][0]
    assert {key for key in main if main[key] != socratic[key]} == {data, "output_dir"}
    if engine == "llamafactory":
        assert (main[data], socratic[data]) == ("gsm8k_main", "gsm8k_socratic")
    else:
        assert [
            (block["path"], block["name"], block["split"]) for block in (*main[data], *socratic[data])
        ] == [
            ("openai/gsm8k", "main", "train"),
            ("openai/gsm8k", "socratic", "train"),
        ]
    evaluated = socratic[KEYS[engine][1]]
    entry = load_registry(ROOT / "datasets_info").entry(
        evaluated if engine == "llamafactory" else evaluated[0]
    )
    assert (entry.values["subset"], entry.values["split"]) == ("main", "test")
    assert [metric.name for metric in entry.metrics] == ["gsm8k"]


def test_no_two_variants_write_into_one_folder():
    folders = [
        values(engine, method, *overlays)["output_dir"]
        for engine in ENGINES
        for method in METHODS
        for overlays in ((), (f"socratic_{method}",), (f"toy_{method}",), (f"smoke_{method}",))
    ]
    assert len(set(folders)) == len(folders) == 16


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("method", METHODS)
def test_only_the_smoke_overlay_leaves_the_gpu(engine, method):
    model = {"llamafactory": "model_name_or_path", "axolotl": "base_model"}[engine]
    optimizer = KEYS[engine][3]
    for overlay in (f"socratic_{method}", f"toy_{method}", "local_data"):
        found = values(engine, method, overlay)
        assert (found[model], found["bf16"], found[optimizer]) == (
            "google/gemma-2b-it",
            True,
            "paged_adamw_8bit",
        )
    smoke = values(engine, method, f"smoke_{method}")
    assert (smoke["bf16"], smoke[optimizer]) == (False, "adamw_torch")


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("method", METHODS)
def test_every_variant_is_clean_under_check(engine, method):
    name = f"{engine}/gemma-2b-it/{method}_sft_gsm8k"
    variants = [(f"socratic_{method}",), (f"toy_{method}",), ("local_data",)]
    variants += [("gpu_24gb_full",)] if method == "full" else []
    for overlays in variants:
        result = check_recipe(name, ROOT, overlays).result
        assert result.clean, (overlays, result.findings)


@pytest.mark.parametrize("engine", ENGINES)
def test_the_overlay_for_a_small_gpu_keeps_the_rows_of_a_step(engine):
    found = values(engine, "full", "gpu_24gb_full")
    rows = found.get("per_device_train_batch_size", found.get("micro_batch_size"))
    assert rows * found["gradient_accumulation_steps"] == 16


def test_local_data_is_measured_as_the_hubs_is():
    registry = load_registry(ROOT / "datasets_info")
    for method in METHODS:
        hub, local = values("llamafactory", method), values("llamafactory", method, "local_data")
        assert registry.entry(hub["eval_dataset"]).metrics == registry.entry(local["eval_dataset"]).metrics
        blocks = values("axolotl", method, "local_data")
        assert blocks["tunebook_eval_datasets"] == [local["eval_dataset"]]
        for key, block in (("dataset", "datasets"), ("eval_dataset", "test_datasets")):
            assert (
                blocks[block][0]["path"] == f"datasets_info/{registry.entry(local[key]).values['file_name']}"
            )


def test_gemma_2_never_trains_under_an_attention_that_leaves_its_cap_out():
    assert (
        find_recipe("llamafactory/gemma-2-9b-it/lora_sft_gsm8k", RECIPES).values["flash_attn"] == "disabled"
    )
    axolotl = find_recipe("axolotl/gemma-2-9b-it/lora_sft_gsm8k", RECIPES).values
    assert axolotl["attn_implementation"] == "eager"


@pytest.mark.parametrize("name", [name for name in GEMMA if "/lora_" in name])
def test_the_trained_parameters_that_a_comment_tells_are_those_of_peft(name):
    # Counted with peft 0.18.1 on models without weights.
    counts = {"gemma-2b-it": 19_611_648, "gemma-2-9b-it": 54_018_048, "gemma-3-1b-it": 13_045_760}
    recipe = find_recipe(name, RECIPES)
    run = read_run(recipe)
    trained = memory.estimate(memory.find_config(run.model), **run.arguments).trainable
    assert trained == counts[name.split("/")[1]]
    told = re.search(r"# on every linear layer: ([\d.]+) M trained parameters", recipe.path.read_text())
    assert float(told[1]) == round(trained / 1e6, 1)


@pytest.mark.parametrize("name", GEMMA)
def test_the_memory_that_a_header_tells_is_near_the_estimate(name):
    recipe = find_recipe(name, RECIPES)
    run = read_run(recipe)
    gib = memory.estimate(memory.find_config(run.model), **run.arguments).total / 2**30
    card, told = re.search(r"1 x (\d+) GB GPU, (\d+) GiB of it", recipe.header["hardware"]).groups()
    assert int(told) == pytest.approx(gib, rel=0.1)
    assert gib < int(card)
