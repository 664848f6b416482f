"""LLaMA-Factory, seen from outside: the command that trains a recipe, and the datasets it names."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunebook.data.registry import REGISTRY_FILE, load_registry
from tunebook.engines.llamafactory import cache
from tunebook.engines.llamafactory.evaluation import evaluation_values, set_names
from tunebook.errors import TunebookError
from tunebook.types import Command

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_TRUE = ("1", "true", "y")  # llamafactory/extras/misc.py: is_env_enabled


class LlamaFactory:
    """The engine as its 0.9.5 behaves. Its metrics are attached by the start-up hook, in its own process."""

    registry_key = "dataset_dir"
    cache_key = cache.KEY
    uses_startup_hook = True
    # It sets its own map for training; our hook changes it where a model is loaded to be evaluated.
    device_map_key: str | None = None
    path_keys: tuple[str, ...] = ("dataset_dir", "media_dir", "deepspeed", "fsdp_config")
    model_keys: tuple[str, ...] = ("model_name_or_path", "adapter_name_or_path", "ref_model", "reward_model")
    set_keys: tuple[str, ...] = ("dataset_dir", "eval_dataset", "eval_on_each_dataset")
    packages: tuple[str, ...] = (
        *("llamafactory", "torch", "transformers", "peft", "trl", "accelerate", "datasets", "tokenizers"),
        *("safetensors", "deepspeed", "bitsandbytes", "flash-attn", "liger-kernel", "unsloth", "numpy"),
    )

    def train(
        self,
        recipe_file: Path,
        values: Mapping[str, Any],
        *,
        environment: Path,
        gpus: int,
        environ: Mapping[str, str],
    ) -> Command:
        """Return `llamafactory-cli train <recipe_file>` of that environment; see `Engine.train`.

        With several GPUs, with DeepSpeed, or where the caller sets `NPROC_PER_NODE` or `NNODES` above 1, its
        launcher is told to start torchrun with one process for each GPU, or for the CPU.
        """
        programs = environment / "bin"
        # LLaMA-Factory starts a bare `torchrun`: it must be this environment's.
        env = {"PATH": f"{programs}{os.pathsep}{environ.get('PATH', os.defpath)}"}
        processes = environ.get("NPROC_PER_NODE", str(max(1, gpus)))
        forced = environ.get("FORCE_TORCHRUN", "").lower() in _TRUE
        if environ.get("USE_RAY", "").lower() not in _TRUE and (
            forced or processes != "1" or environ.get("NNODES", "1") != "1" or bool(values.get("deepspeed"))
        ):
            env |= {"FORCE_TORCHRUN": "1", "NPROC_PER_NODE": processes}
            if len(str(recipe_file).split()) > 1:
                raise TunebookError(
                    f"LLaMA-Factory cannot hand a path with a space to torchrun: {recipe_file}",
                    fix="choose an output_dir without spaces",
                )
        return Command(argv=(str(programs / "llamafactory-cli"), "train", str(recipe_file)), env=env)

    def evaluation(
        self, values: Mapping[str, Any], *, datasets: Sequence[str] | None, home: Path
    ) -> tuple[dict[str, Any], tuple[str, ...]]:
        """Return the recipe that evaluates, and what its sets are called; see `Engine.evaluation`."""
        made = evaluation_values(values, datasets)
        registry = made.get(self.registry_key)
        if isinstance(registry, str) and not Path(registry).exists() and (home / registry).exists():
            made[self.registry_key] = str(home / registry)
        trained_on = _names(values.get("dataset"))
        if datasets is None and _draws(made, trained_on) and _draws(made, _names(made.get("eval_dataset"))):
            # Rows are drawn from one stream of random numbers, those to train on first.
            made["dataset"] = values["dataset"]
        return made, set_names(made, self.evaluation_sets(made))

    def evaluation_start(
        self,
        values: Mapping[str, Any],
        *,
        folder: Path,
        whole_model: str,
        adapter: str | None,  # noqa: ARG002
    ) -> dict[str, Any]:
        """Return the recipe of one start; see `Engine.evaluation_start`."""
        base = str(values[self.model_keys[0]])
        # Our hook loads `whole_model`. The base gives the tokenizer, which every checkpoint carries too.
        gone = base.startswith(("/", ".", "~")) and not Path(base).expanduser().exists()
        model = whole_model if gone else base
        return {**values, self.model_keys[0]: model, "output_dir": str(folder)}

    def evaluate(
        self,
        recipe_file: Path,
        values: Mapping[str, Any],
        *,
        environment: Path,
        gpus: int,
        environ: Mapping[str, str],
    ) -> Command:
        """Return the command that evaluates: the same as for training; the recipe says what is done."""
        return self.train(recipe_file, values, environment=environment, gpus=gpus, environ=environ)

    def prepare(
        self,
        values: Mapping[str, Any],
        *,
        environment: Path,
        home: Path,  # noqa: ARG002
    ) -> tuple[dict[str, Any], list[str]]:
        """Return the recipe, with `tokenized_path` named after what is in the rows.

        LLaMA-Factory itself stops at a key that it does not know.
        """
        return cache.prepare(values, environment)

    def on_shard(self, values: Mapping[str, Any], shard: Path) -> dict[str, Any]:
        """Return the recipe with that `dataset_dir`; see `Engine.on_shard`."""
        return {**values, self.registry_key: str(shard)}

    def dataset_names(self, values: Mapping[str, Any]) -> tuple[str, ...]:
        """Return the entries of `dataset` and `eval_dataset`, each once."""
        return tuple(dict.fromkeys([*_names(values.get("dataset")), *_names(values.get("eval_dataset"))]))

    def evaluation_sets(self, values: Mapping[str, Any]) -> tuple[str, ...]:
        """Return the entries of `eval_dataset`, or of `dataset` where `val_size` splits off a part of it."""
        if values.get("eval_dataset"):
            return _names(values["eval_dataset"])
        return _names(values.get("dataset")) if values.get("val_size") else ()


def _draws(values: Mapping[str, Any], names: Sequence[str]) -> bool:
    """Whether LLaMA-Factory draws rows of one of these entries at random."""
    registry = Path(str(values.get(LlamaFactory.registry_key))) / REGISTRY_FILE
    if not registry.is_file():
        return False
    entries = load_registry(registry).values
    return any("num_samples" in entries.get(name, {}) for name in names)


def _names(value: Any) -> tuple[str, ...]:
    parts = value.split(",") if isinstance(value, str) else value if isinstance(value, list) else ()
    return tuple(str(part).strip() for part in parts)
