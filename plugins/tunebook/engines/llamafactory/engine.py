"""LLaMA-Factory, seen from outside: the command that trains a recipe, and the datasets it names."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunebook.data.registry import REGISTRY_FILE, load_registry
from tunebook.engines import Engine
from tunebook.engines.llamafactory import cache
from tunebook.engines.schema import load_schema
from tunebook.errors import TunebookError
from tunebook.types import Command

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


_TRUE = ("1", "true", "y")  # llamafactory/extras/misc.py: is_env_enabled


class LlamaFactory(Engine):
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
        launcher is set to start torchrun with one process for each GPU, or for the CPU.
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
        folders: Sequence[Path],  # noqa: ARG002
    ) -> tuple[dict[str, Any], list[str]]:
        """Return the recipe, with `tokenized_path` named after what is in the rows.

        LLaMA-Factory itself stops at a key that it does not know.
        """
        return cache.prepare(values, environment)

    def on_shard(self, values: Mapping[str, Any], shard: Path) -> dict[str, Any]:
        """Return the recipe with that `dataset_dir`; see `Engine.on_shard`."""
        return {**values, self.registry_key: str(shard)}

    def training_sets(self, values: Mapping[str, Any]) -> tuple[str, ...]:
        """Return the entries of `dataset`."""
        return _names(values.get("dataset"))

    def dataset_names(self, values: Mapping[str, Any]) -> tuple[str, ...]:
        """Return the entries of `dataset` and `eval_dataset`, each once."""
        return tuple(dict.fromkeys([*self.training_sets(values), *_names(values.get("eval_dataset"))]))

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


# A LLaMA-Factory training recipe, turned into the recipe that evaluates what it has trained.

# Of the keys that say how a model is loaded and what its rows are, those that belong to training only, or
# under which no answer is separate from its prompt.
_TRAINING_ONLY = frozenset(
    {
        *("dataset", "eval_dataset", "val_size", "eval_on_each_dataset", "tokenized_path", "overwrite_cache"),
        *("packing", "neat_packing", "train_on_prompt", "streaming", "buffer_size", "mix_strategy"),
        *("interleave_probs", "predict_with_generate", "adapter_name_or_path", "use_unsloth"),
        *("use_unsloth_gc", "shift_attn", "moe_aux_loss_coef", "print_param_status", "train_from_scratch"),
    }
)
_FOREIGN = ("export_", "vllm_", "sglang_", "infer_", "kt_")

# Of the others, those that decide what the same weights give for the same row. Not `finetuning_type`: without
# training and without an adapter, which we put on ourselves, LLaMA-Factory loads the bare model for each.
_KEPT = frozenset(
    {
        *("pure_bf16", "bf16", "fp16", "tf32", "use_cpu", "seed"),
        *("bf16_full_eval", "fp16_full_eval", "per_device_eval_batch_size", "ddp_timeout", "disable_tqdm"),
    }
)


def evaluation_values(values: Mapping[str, Any], datasets: Sequence[str] | None) -> dict[str, Any]:
    """Return the recipe with training off: same loader, template, limit of tokens and rows.

    Args:
        values: The resolved training recipe.
        datasets: Registry entries to evaluate on; None for the recipe's own sets, arranged as it says.

    Raises:
        TunebookError: The recipe has no evaluation set, or one whose rows are not answers.
    """
    keys = load_schema("llamafactory")["keys"]
    kept = {key: value for key, value in values.items() if key in _KEPT or _is_about_rows(key, keys)}
    merged = _adapters_below(values)
    if merged and values.get("quantization_bit"):
        raise TunebookError(
            f"{merged} was put on a quantized base before training, and LLaMA-Factory cannot merge it there",
            fix="merge it into the base with `tunebook merge`, and evaluate on that",
        )
    if merged:
        kept["adapter_name_or_path"] = merged
    if datasets is not None:
        kept |= {"eval_dataset": ",".join(datasets), "eval_on_each_dataset": len(datasets) > 1}
    elif values.get("eval_dataset") or values.get("val_size"):
        if values.get("stage", "sft") != "sft":
            raise TunebookError(
                f"the run's evaluation sets are for `stage: {values['stage']}`: they hold no single answer",
                fix="name a set of questions and answers with --dataset",
            )
        own = ("eval_dataset", "eval_on_each_dataset")
        if values.get("val_size"):
            own = ("dataset", "val_size")
        kept |= {key: values[key] for key in own if values.get(key)}
    else:
        raise TunebookError(
            "the recipe has no evaluation set: neither `eval_dataset` nor `val_size`",
            fix="name one of the registry with --dataset",
        )
    return {**kept, "stage": "sft", "do_eval": True, "eval_strategy": "no", "report_to": "none"}


def set_names(values: Mapping[str, Any], names: Sequence[str]) -> tuple[str, ...]:
    """Return what the sets of an evaluation recipe are called: several are merged unless it says not.

    Args:
        values: From `evaluation_values`.
        names: Their registry entries.
    """
    return tuple(names) if values.get("eval_on_each_dataset") else ("+".join(names),)


def _is_about_rows(key: str, keys: Mapping[str, Any]) -> bool:
    groups = keys.get(key, {}).get("groups", ())
    return (
        ("model" in groups or "data" in groups) and key not in _TRAINING_ONLY and not key.startswith(_FOREIGN)
    )


def _adapters_below(values: Mapping[str, Any]) -> str | None:
    """Return the adapters that were merged into the base before training, not the one that was trained on."""
    given = values.get("adapter_name_or_path")
    names = given.split(",") if isinstance(given, str) else list(given or [])
    if not values.get("create_new_adapter"):
        names = names[:-1]
    return ",".join(str(name).strip() for name in names) or None
