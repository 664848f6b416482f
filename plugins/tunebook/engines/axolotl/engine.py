"""Axolotl, seen from outside: the command that trains a recipe, and what has to be true before it is started.

Axolotl ignores plugins it cannot import, files that have changed and rows without a label, and says nothing.
We find them before it is started, and import nothing of it. Its keys are checked by `tunebook.checks`.
"""

from __future__ import annotations

import json
import os
import subprocess
from functools import cache
from importlib.machinery import PathFinder
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunebook.data.registry import load_registry
from tunebook.engines import Engine
from tunebook.engines.axolotl.cache import prepared_path
from tunebook.engines.axolotl.datasets import block_faults, entry_of_block, label_fault, render_block
from tunebook.engines.axolotl.rules import DIRECTORY_KEY, NAMES_KEY, PLUGIN, evaluation_faults
from tunebook.engines.objectives import objective
from tunebook.errors import TunebookError, join_errors
from tunebook.types import Command

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from tunebook.data.registry import Registry


NO_TELEMETRY = {"AXOLOTL_DO_NOT_TRACK": "1"}
"""Axolotl reports to its makers by default; runs that we start never do."""


class Axolotl(Engine):
    """The engine as its 0.19.0 behaves. Its metrics come from the plugin that the recipe names."""

    registry_key = DIRECTORY_KEY
    cache_key = "dataset_prepared_path"
    uses_startup_hook = False
    device_map_key: str | None = "device_map"
    path_keys: tuple[str, ...] = (DIRECTORY_KEY, "deepspeed", "chat_template_jinja")
    model_keys: tuple[str, ...] = ("base_model", "lora_model_dir", "tokenizer_config")
    set_keys: tuple[str, ...] = (DIRECTORY_KEY, NAMES_KEY, "datasets", "test_datasets")
    packages: tuple[str, ...] = (
        *("axolotl", "torch", "transformers", "peft", "trl", "accelerate", "datasets", "tokenizers"),
        *("safetensors", "deepspeed", "bitsandbytes", "flash-attn", "liger-kernel", "numpy"),
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
        """Return `axolotl train <recipe_file>` of that environment; see `Engine.train`.

        One process is started directly, several by torchrun. Axolotl's own default, `accelerate launch`,
        imports everything twice and reads settings from the user's home.
        """
        return self._command(
            "train", recipe_file, values, environment=environment, gpus=gpus, environ=environ
        )

    def evaluate(
        self,
        recipe_file: Path,
        values: Mapping[str, Any],
        *,
        environment: Path,
        gpus: int,
        environ: Mapping[str, str],
    ) -> Command:
        """Return `axolotl evaluate <recipe_file>`, started as for training."""
        return self._command(
            "evaluate", recipe_file, values, environment=environment, gpus=gpus, environ=environ
        )

    def evaluation(
        self, values: Mapping[str, Any], *, datasets: Sequence[str] | None, home: Path
    ) -> tuple[dict[str, Any], tuple[str, ...]]:
        """Return the recipe that evaluates, and what its sets are called; see `Engine.evaluation`."""
        located, _ = locate_blocks(values, (home,))
        directory = Path(str(values.get(DIRECTORY_KEY) or "datasets_info"))
        if not directory.exists() and (home / directory).exists():
            directory = home / directory
        made = evaluation_values(
            located, _blocks(located, "test_datasets"), load_registry(directory), datasets
        )
        return made, self.evaluation_sets(made)

    def evaluation_start(
        self, values: Mapping[str, Any], *, folder: Path, whole_model: str, adapter: str | None
    ) -> dict[str, Any]:
        """Return the recipe of one start; see `Engine.evaluation_start`."""
        made = start_values(values, whole_model=whole_model, adapter=adapter)
        return {**made, "output_dir": str(folder), "dataset_prepared_path": str(folder / "prepared")}

    def _command(
        self,
        verb: str,
        recipe_file: Path,
        values: Mapping[str, Any],
        *,
        environment: Path,
        gpus: int,
        environ: Mapping[str, str],
    ) -> Command:
        programs = environment / "bin"
        # Axolotl starts a bare `torchrun`: it must be this environment's.
        env = {"PATH": f"{programs}{os.pathsep}{environ.get('PATH', os.defpath)}", **NO_TELEMETRY}
        argv = [str(programs / "axolotl"), verb, str(recipe_file)]
        sharded = any(values.get(key) for key in ("deepspeed", "fsdp", "fsdp_config"))
        if values.get("use_ray"):
            return Command(argv=tuple(argv), env=env)
        nodes = environ.get("NNODES", "1")
        processes = environ.get("NPROC_PER_NODE", str(max(1, gpus)))
        if nodes != "1" or processes != "1" or (gpus == 1 and sharded):
            # With underscores: Axolotl does not know the dashed spelling and adds its own.
            options = [f"--nproc_per_node={processes}"]
            if nodes != "1":
                # By fixed ranks: torchrun's elastic meeting needs names that resolve on every node.
                names = {"nnodes": nodes, "node_rank": "NODE_RANK", "master_addr": "MASTER_ADDR"}
                names |= {"master_port": "MASTER_PORT"}
                options += [f"--{name}={environ.get(value, value)}" for name, value in names.items()]
            return Command(argv=(*argv, "--launcher", "torchrun", "--", *options), env=env)
        return Command(argv=(*argv, "--launcher", "python"), env=env)

    def prepare(
        self, values: Mapping[str, Any], *, environment: Path, folders: Sequence[Path]
    ) -> tuple[dict[str, Any], list[str]]:
        """Point the recipe at this machine's data and find what Axolotl would ignore.

        Args:
            values: The resolved recipe.
            environment: The virtual environment of the engine.
            folders: Where data is looked for that is not below the current folder.

        Returns:
            The recipe to write, with the tokenised cache named after the data, and notes for the user.

        Raises:
            TunebookError: The run would not do what the recipe says; all faults are named.
        """
        prepared, notes = locate_blocks(values, folders)
        faults = plugin_faults(prepared, environment)
        if PLUGIN in _plugins(prepared):
            faults += evaluation_faults(prepared, Path.cwd())
        if not faults:
            faults += data_faults(prepared)
        if faults:
            raise join_errors(faults)
        prepared["dataset_prepared_path"] = prepared_path(prepared, Path.cwd())
        return prepared, notes

    def on_shard(self, values: Mapping[str, Any], shard: Path) -> dict[str, Any]:
        """Return the recipe with the blocks that its entries have in `shard`; see `Engine.on_shard`."""
        directory = values.get(DIRECTORY_KEY)
        if not isinstance(directory, str):
            raise TunebookError(
                "the recipe names no registry, so its data cannot be found in the parts of a split",
                fix=f"name the registry that the split was made from: {DIRECTORY_KEY}: datasets_info",
            )
        registry, parts = load_registry(Path(directory)), load_registry(shard)
        located, _ = locate_blocks(values, (Path(directory).absolute().parent,))
        for key in ("datasets", "test_datasets"):
            blocks = []
            for block in _blocks(located, key):
                name = entry_of_block(block, registry, directory)
                if name is None:
                    raise TunebookError(
                        f"{key}: no entry of {registry.path} reads {block.get('path')}",
                        fix="add an entry for it, and split that",
                    )
                # What the recipe says beside the location, such as a slice of the split, stays.
                blocks.append({**block, **render_block(parts.entry(name), str(shard))})
            if blocks:
                located[key] = blocks
        located[DIRECTORY_KEY] = str(shard)
        return located

    def training_sets(self, values: Mapping[str, Any]) -> tuple[str, ...]:
        """Return the entries that read the data of `datasets:`."""
        directory = values.get(DIRECTORY_KEY)
        if not isinstance(directory, str):
            return ()
        registry = load_registry(Path(directory))
        located, _ = locate_blocks(values, (Path(directory).absolute().parent,))
        trained = [entry_of_block(block, registry, directory) for block in _blocks(located, "datasets")]
        return tuple(dict.fromkeys(name for name in trained if name))

    def dataset_names(self, values: Mapping[str, Any]) -> tuple[str, ...]:
        """Return the entries that are trained on, and those of the evaluation sets."""
        return tuple(dict.fromkeys([*self.training_sets(values), *self.evaluation_sets(values)]))

    def evaluation_sets(self, values: Mapping[str, Any]) -> tuple[str, ...]:
        """Return the registry entries that the recipe's evaluation sets are."""
        names = values.get(NAMES_KEY)
        return tuple(map(str, names)) if isinstance(names, list) else ()


def _blocks(values: Mapping[str, Any], key: str) -> list[dict[str, Any]]:
    blocks = values.get(key)
    return [block for block in blocks if isinstance(block, dict)] if isinstance(blocks, list) else []


def _plugins(values: Mapping[str, Any]) -> list[Any]:
    plugins = values.get("plugins")
    return plugins if isinstance(plugins, list) else []


def locate_blocks(values: Mapping[str, Any], folders: Sequence[Path]) -> tuple[dict[str, Any], list[str]]:
    """Point the data of blocks that is not below the current folder at the first of `folders` that has it."""
    located, notes = dict(values), []
    for key in ("datasets", "test_datasets"):
        blocks = []
        for block in values[key] if isinstance(values.get(key), list) else ():
            path = block.get("path") if isinstance(block, dict) else None
            if isinstance(path, str) and not Path(path).exists():
                there = next((folder / path for folder in folders if (folder / path).exists()), None)
                if there is not None:
                    block = {**block, "path": str(there)}
                    notes.append(f"{key}: {there}")
            blocks.append(block)
        if blocks:
            located[key] = blocks
    return located, notes


def data_faults(values: Mapping[str, Any]) -> Iterator[TunebookError]:
    """Yield what keeps blocks from giving rows to learn from, or makes them others than their entries name.

    Args:
        values: The recipe, its registry and blocks at paths of this machine.
    """
    for key in ("datasets", "test_datasets"):
        for block in _blocks(values, key):
            fault = label_fault(block, Path.cwd())
            if fault:
                yield TunebookError(f"{key}: {fault.problem}", fix=fault.fix)
    trained_for = objective("axolotl", values)
    if PLUGIN in _plugins(values) and (trained_for is None or trained_for.no_answers is None):
        directory = str(values[DIRECTORY_KEY])
        registry = load_registry(Path(directory))
        pairs = zip(values[NAMES_KEY], _blocks(values, "test_datasets"), strict=False)
        for name, block in pairs:
            yield from block_faults(block, registry.entry(name), directory, pairs=trained_for is not None)


# An Axolotl training recipe, turned into the recipe that evaluates what it has trained.

# What is about optimizing, saving, tracking and spreading over devices. Everything else may decide what a
# model gives for a row, and stays.
TRAINING_ONLY = frozenset(
    {
        *("datasets", "test_datasets", "val_set_size", "dataset_prepared_path", "output_dir"),
        *("lora_model_dir", "sample_packing", "eval_sample_packing", "pad_to_sequence_len"),
        *("shuffle_merged_datasets", "pretraining_dataset", "streaming", "skip_prepare_dataset"),
        *(
            "batch_flattening",
            "group_by_length",
            "train_on_inputs",
            "rl",
            "trl",
            "reward_model",
            "process_reward_model",
            "max_prompt_len",
        ),
        *("optimizer", "optim_args", "optim_target_modules", "lr_scheduler", "lr_scheduler_kwargs"),
        *("lr_groups", "lr_div_factor", "lr_quadratic_warmup", "embedding_lr", "embedding_lr_scale"),
        *("cosine_min_lr_ratio", "cosine_constant_lr_ratio", "warmup_steps", "warmup_ratio", "weight_decay"),
        *("max_grad_norm", "adam_beta1", "adam_beta2", "adam_beta3", "adam_epsilon", "adam_epsilon2"),
        *("num_epochs", "max_steps", "eval_steps", "evals_per_epoch", "eval_strategy", "evaluation_strategy"),
        *("save_steps", "saves_per_epoch", "save_strategy", "save_total_limit", "save_first_step"),
        *("save_only_model", "save_safetensors", "logging_steps", "load_best_model_at_end"),
        *("metric_for_best_model", "greater_is_better", "early_stopping_patience", "resume_from_checkpoint"),
        *("auto_resume_from_checkpoints", "loss_watchdog_threshold", "loss_watchdog_patience"),
        *("gradient_checkpointing", "gradient_checkpointing_kwargs", "activation_offloading"),
        *("neftune_noise_alpha", "noisy_embedding_alpha", "relora", "relora_cpu_offload", "torch_compile"),
        *("unfrozen_parameters", "loraplus_lr_ratio", "loraplus_lr_embedding", "curriculum_sampling"),
        *("deepspeed", "deepcompile", "fsdp", "fsdp_config", "fsdp_version", "fsdp_final_state_dict_type"),
        *("tensor_parallel_size", "context_parallel_size", "dp_shard_size", "dp_replicate_size"),
        *("sequence_parallel_degree", "use_ray", "ray_num_workers", "ray_run_name", "resources_per_worker"),
        *("do_bench_eval", "do_causal_lm_eval", "eval_table_size", "generate_samples", "profiler_steps"),
        *("hub_model_id", "hub_strategy", "hub_revision", "push_dataset_to_hub", "hf_mlflow_log_artifacts"),
        *("use_wandb", "use_mlflow", "use_comet", "use_trackio", "use_tensorboard", "use_otel_metrics"),
    }
)
_TRACKERS = ("wandb_", "mlflow_", "comet_", "trackio_", "otel_")


def evaluation_values(
    values: Mapping[str, Any],
    blocks: Sequence[Mapping[str, Any]],
    registry: Registry,
    datasets: Sequence[str] | None,
) -> dict[str, Any]:
    """Return the recipe with training off: same loader, template, limit of tokens and rows.

    Args:
        values: The resolved training recipe.
        blocks: Its `test_datasets`, on this machine.
        registry: Where `datasets` are looked up.
        datasets: Registry entries to evaluate on; None for the recipe's own sets.

    Raises:
        TunebookError: The recipe has no evaluation set that the registry knows.
    """
    kept = {
        key: value
        for key, value in values.items()
        if key not in TRAINING_ONLY and not key.startswith(_TRACKERS)
    }
    names = list(datasets) if datasets is not None else list(values.get(NAMES_KEY) or [])
    if datasets is not None:
        blocks = [render_block(registry.entry(name), str(registry.path.parent)) for name in names]
    if not names or len(names) != len(blocks):
        raise TunebookError(
            f"the recipe has no evaluation set that a registry knows: it has no `{NAMES_KEY}`",
            fix="name one of the registry with --dataset",
        )
    return {
        **kept,
        # Axolotl wants something to train on. Of this it makes rows, and no pass over them.
        "datasets": [dict(blocks[0])],
        "test_datasets": [dict(block) for block in blocks],
        DIRECTORY_KEY: str(registry.path.parent),
        NAMES_KEY: names,
        "plugins": list(dict.fromkeys([*(values.get("plugins") or []), PLUGIN])),
        "eval_steps": 1,
        "num_epochs": 1,
        "dataloader_drop_last": False,
    }


def start_values(values: Mapping[str, Any], *, whole_model: str, adapter: str | None) -> dict[str, Any]:
    """Return what is to be loaded first.

    Args:
        values: From `evaluation_values`.
        whole_model: The model that the first subject is, or is put on.
        adapter: Any adapter of its run, where it has one: without it Axolotl would make a fresh one.
    """
    base = values["base_model"]
    # The rows are made with the tokenizer that training had.
    first = {**values, "base_model": whole_model, "tokenizer_config": values.get("tokenizer_config") or base}
    if adapter is None:
        first.pop("adapter", None)
        return first
    return {**first, "lora_model_dir": adapter}


# Whether the plugins that an Axolotl recipe names can be found in the engine's environment.
#
# Axolotl logs a plugin that it cannot import and trains without it. Here nothing is imported: the files are
# looked for where that environment's Python would look.

_ENGINE_PREFIX = "axolotl.integrations"
"""Axolotl looks for a plugin here too, when it finds no module of that name."""

_ASK = "import json, sys; print(json.dumps(sys.path))"
_TRY = "import importlib.util, sys; sys.exit(importlib.util.find_spec(sys.argv[1]) is None)"


def plugin_faults(values: Mapping[str, Any], environment: Path) -> list[TunebookError]:
    """Return the plugins of a recipe that Axolotl would not find.

    Args:
        values: The recipe.
        environment: The virtual environment of the engine.
    """
    plugins = values.get("plugins") or []
    if not isinstance(plugins, list):
        return [TunebookError(f"plugins is {plugins!r}", fix="write it as a list of package.module.Class")]
    faults = []
    for plugin in plugins:
        module, dot, name = str(plugin).rpartition(".")
        if not dot or not name:
            faults.append(
                TunebookError(f"plugins: {plugin!r} names no class", fix="write package.module.Class")
            )
        elif not any(_exists(path, environment) for path in (module, f"{_ENGINE_PREFIX}.{module}")):
            faults.append(
                TunebookError(
                    f"plugins: no module {module} in {environment}; Axolotl would go on without it",
                    fix=f"correct {plugin}, or install its package there",
                )
            )
    return faults


def _exists(module: str, environment: Path) -> bool:
    if _file_exists(module, _search_path(environment)):
        return True
    # Some editable installs answer through an import hook of theirs, which only that Python knows. This
    # imports the packages above the module, so it is asked last, and not about the engine.
    if module.startswith(f"{_ENGINE_PREFIX}."):
        return False
    asked = subprocess.run(
        [environment / "bin" / "python", "-c", _TRY, module], capture_output=True, check=False
    )
    return asked.returncode == 0


def _file_exists(module: str, search_path: Sequence[str]) -> bool:
    places: Sequence[str] | None = search_path
    name = ""
    for part in module.split("."):
        name = f"{name}.{part}" if name else part
        if places is None:
            return False
        spec = PathFinder.find_spec(name, list(places))
        if spec is None:
            return False
        places = None if spec.submodule_search_locations is None else list(spec.submodule_search_locations)
    return True


@cache
def _search_path(environment: Path) -> tuple[str, ...]:
    """The `sys.path` of that environment, folders of editable installs included."""
    asked = subprocess.run(
        [environment / "bin" / "python", "-c", _ASK], capture_output=True, text=True, check=True
    )
    return tuple(json.loads(asked.stdout.splitlines()[-1]))
