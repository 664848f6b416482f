"""Packages that a setting needs and the engine's environment lacks, found without starting the engine."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from tunebook.checks.recipe import as_number

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from tunebook.checks.findings import Finding
    from tunebook.checks.recipe import CheckedRecipe
    from tunebook.types import EngineName


MISSING_PACKAGE = "missing-package"
"""Id of the rule."""


class Need(NamedTuple):
    """What one setting needs."""

    key: str
    when: Callable[[CheckedRecipe], object]
    distributions: tuple[str, ...]
    """Names to install."""
    without: str
    """What happens without them."""


_STOPS = "the run stops before it has loaded anything"


def _switch(key: str, *distributions: str) -> Need:
    return Need(key, lambda s: s.get(key), distributions, _STOPS)


def _reports_to(name: str) -> Need:
    return Need(
        "report_to",
        lambda s: name in str(s.get("report_to", "")),
        (name,),
        "the run stops when the Trainer is made",
    )


def _eight_bit(recipe: CheckedRecipe) -> bool:
    name = str(recipe.get(recipe.name("optimizer"), ""))
    return ("8bit" in name or name.startswith("paged_")) and "torch" not in name


# check_dependencies of llamafactory/hparams/parser.py, and what transformers asks for.
_NEEDS: dict[EngineName, tuple[Need, ...]] = {
    "llamafactory": (
        _switch("enable_liger_kernel", "liger-kernel"),
        _switch("use_unsloth", "unsloth"),
        _switch("use_galore", "galore-torch"),
        _switch("use_apollo", "apollo-torch"),
        _switch("use_badam", "badam"),
        _switch("use_adam_mini", "adam-mini"),
        _switch("use_swanlab", "swanlab"),
        _switch("mixture_of_depths", "mixture-of-depth"),
        _switch("use_kt", "kt-kernel"),
        _switch("deepspeed", "deepspeed"),
        _switch("plot_loss", "matplotlib"),
        _switch("predict_with_generate", "jieba", "nltk", "rouge-chinese"),
        Need("quantization_bit", lambda s: s.get("quantization_bit") and s.effective("quantization_method")
             == "bnb", ("bitsandbytes",), "the run stops when the model is loaded"),
        Need("optim", _eight_bit, ("bitsandbytes",), "the run stops when training begins"),
        Need("flash_attn", lambda s: s.get("flash_attn") == "fa2", ("flash-attn",),
             "PyTorch's attention takes its place, with one line in the log"),
        *map(_reports_to, ("wandb", "tensorboard", "mlflow", "swanlab", "trackio")),
    ),
    "axolotl": (
        Need("deepspeed", lambda s: s.get("deepspeed"), ("deepspeed",), "the run stops before it trains"),
        Need("context_parallel_size", lambda s: (as_number(s.get("context_parallel_size")) or 1) > 1
             and not s.get("use_glm_dsa_kernels"), ("ring-flash-attn",), _STOPS),
        Need("load_in_4bit", lambda s: s.get("load_in_4bit") or s.get("load_in_8bit"), ("bitsandbytes",),
             "the run stops when the model is loaded"),
        Need("optimizer", _eight_bit, ("bitsandbytes",), "the run stops when training begins"),
        Need("plugins", lambda s: "CutCrossEntropy" in str(s.get("plugins", "")), ("cut-cross-entropy",),
             "the run stops when the model is loaded"),
        Need("plugins", lambda s: "liger" in str(s.get("plugins", "")), ("liger-kernel",),
             "the run stops when the model is loaded"),
        Need("wandb_project", lambda s: s.get("use_wandb") or s.get("wandb_project"), ("wandb",),
             "the run stops when the Trainer is made"),
    ),
}  # fmt: skip


def check_packages(recipe: CheckedRecipe) -> Iterator[Finding]:
    """`missing-package`, of the environment that `tunebook train` would use. Where there is none, nothing."""
    if recipe.environment is None:
        return
    for need in _NEEDS[recipe.engine]:
        if not need.when(recipe):
            continue
        missing = [name for name in need.distributions if not recipe.installed(name)]
        if missing:
            yield recipe.finding(
                need.key,
                rule=MISSING_PACKAGE,
                # No fault of the recipe: it may be for another machine. `tunebook train` makes it a warning.
                severity="hint",
                message=f"{recipe.environment.name} lacks {', '.join(missing)}: {need.without}",
                fix=f"pip install {' '.join(missing)} where the run is made",
            )


# Versions that are known not to work together, read from the engine's environment without starting it.

PACKAGES = ("transformers", "torch", "torchaudio", "torchvision")
"""Distributions the pairs below are about."""


def bad_pairs(engine: EngineName, versions: Mapping[str, str]) -> list[tuple[str, str, str]]:
    """Return (condition, problem, fix) for each pair known to be bad.

    Args:
        engine: Whose environment it is.
        versions: Installed versions by distribution.

    Returns:
        `condition` is the `key: value` of a recipe that it takes, or empty where every run is concerned.
    """
    found = []
    transformers = versions.get("transformers", "")
    if engine == "llamafactory" and transformers == "5.6.0":
        found.append(
            (
                "flash_attn: fa2",
                "transformers 5.6.0 breaks flash_attn: fa2 (LLaMA-Factory issue 10610)",
                "pip install -c constraints/llamafactory.txt 'tunebook[llamafactory]'",
            )
        )
    if engine == "llamafactory" and transformers == "4.57.0":
        found.append(("", "LLaMA-Factory excludes transformers 4.57.0", "install another version of it"))
    builds = {name: re.search(r"\+(cu\d+|cpu|rocm[\d.]+)$", versions.get(name, "")) for name in PACKAGES[1:]}
    named = {name: match[1] for name, match in builds.items() if match}
    if len(set(named.values())) > 1:
        listed = ", ".join(f"{name} {build}" for name, build in named.items())
        found.append(("", f"built for different CUDA versions: {listed}", "install all from one index"))
    return found


def check_versions(recipe: CheckedRecipe) -> Iterator[Finding]:
    """`bad-versions`, of the environment that `tunebook train` would use."""
    if recipe.environment is None:
        return
    versions = {name: recipe.installed(name) for name in PACKAGES}
    for condition, problem, fix in bad_pairs(recipe.engine, versions):
        key, _, value = condition.partition(": ")
        if condition and str(recipe.get(key)) != value:
            continue
        yield recipe.warning(key or None, "bad-versions", f"{recipe.environment.name}: {problem}", fix=fix)
