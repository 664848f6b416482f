"""Our Axolotl plugin: `attach` for the evaluation sets that a recipe names by their registry entries.

    plugins:
      - tunebook.hooks.axolotl.TunebookPlugin
    tunebook_dataset_dir: datasets_info
    tunebook_eval_datasets: [demo_recommend_eval]

The trainer is reached in `add_callbacks_post_trainer`, which Axolotl calls for `train` and for `evaluate`;
it skips `post_trainer_create` for the latter.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from axolotl.integrations.base import BasePlugin, PluginManager
from axolotl.utils.data import sft
from axolotl.utils.data.shared import load_dataset_with_config
from axolotl.utils.data.utils import handle_long_seq_in_dataset
from axolotl.utils.dict import DictDefault
from pydantic import BaseModel, Field, model_validator
from transformers import EarlyStoppingCallback

from tunebook import __version__, metrics
from tunebook.data.registry import load_registry
from tunebook.engines.axolotl.cache import prepared_path
from tunebook.engines.axolotl.rules import evaluation_faults
from tunebook.engines.objectives import Objective, objective
from tunebook.errors import TunebookError, join_errors
from tunebook.evaluation.job import EvalJob, job_of_environment
from tunebook.hooks.attach import attach
from tunebook.hooks.axolotl_media import CollatedRows, ExampleCollator, sees_pictures
from tunebook.hooks.contract import EngineSettings, note
from tunebook.hooks.preparation import EngineWords, EvaluationSet
from tunebook.hooks.ranks import say
from tunebook.hooks.sweep import stop, take_over, with_method
from tunebook.hooks.sweep_models import whole_model
from tunebook.models import contract
from tunebook.models.checkpoints import checkpoint_folders
from tunebook.types import IGNORED

_LOAD_ONE = "_load_and_process_single_dataset"
_ROWS_LOOKED_AT = 1000
_ROWS_WORTH_A_POOL = 10_000
"""From this many evaluation rows on `dataset_num_proc` is used. Each worker imports the engine anew."""


class TunebookPlugin(BasePlugin):  # type: ignore[misc]
    """Puts tunebook's metrics into every evaluation of an Axolotl run."""

    def register(self, cfg: Any) -> None:
        """Give the tokenised cache a name that changes with the data; `cfg` is the recipe as written."""
        self._plugins = list(cfg["plugins"])
        self._settings = contract.kept_settings("axolotl", cfg.to_dict())
        cfg["dataset_prepared_path"] = prepared_path(cfg, Path.cwd())

    def get_input_args(self) -> str:
        """Name the options model. All plugins are imported by now: stop if Axolotl lost one of them."""
        imported = PluginManager.get_instance().plugins
        lost = [name for name in self._plugins if name not in imported]
        if lost:
            stop(
                TunebookError(
                    f"{', '.join(lost)}: cannot be imported, and Axolotl would go on without it",
                    fix="fix the import error above, or take the plugin out of `plugins`",
                )
            )
        return "tunebook.hooks.axolotl.TunebookArgs"

    def get_training_args(self, cfg: Any) -> dict[str, Any]:
        """Hand on what Axolotl drops: `greater_is_better: false`, and with `rl` every choice of the best."""
        found = {"greater_is_better": cfg.greater_is_better}
        trained_for = objective("axolotl", cfg)
        if trained_for is not None and trained_for.no_answers is None:
            found["metric_for_best_model"] = cfg.metric_for_best_model
            found["load_best_model_at_end"] = bool(cfg.load_best_model_at_end or cfg.early_stopping_patience)
        return {key: value for key, value in found.items() if value is not None}

    def add_callbacks_post_trainer(self, cfg: Any, trainer: Any) -> list[Any]:
        """Load the evaluation sets and attach to the trainer."""
        note(cfg.output_dir, EngineSettings("axolotl", self._settings, cfg))
        job = job_of_environment()
        trained_for = objective("axolotl", cfg)
        if trained_for is not None and trained_for.no_answers is not None:
            what = ", ".join(cfg.tunebook_eval_datasets or ["all metrics"])
            say(
                f"tunebook {__version__} leaves out {what}: {trained_for.setting}: "
                f"{trained_for.no_answers}; {trained_for.advice}"
            )
            return []
        try:
            refuse_unlabelled(trainer.train_dataset)
            sets = evaluation_sets(cfg, trained_for)
            if job is not None:
                sets = with_method(sets, job)
            if trained_for is None:
                loaded = build_sets(cfg, trainer)
                trainer.eval_dataset = loaded if len(loaded) > 1 else next(iter(loaded.values()))
                # Ours are evaluated row by row. Set here, not in the recipe, it leaves training rows alone.
                trainer.args.eval_sample_packing = False
            else:  # what the trainer has made of the one set are the rows of its own evaluation
                _tell_dropped_pairs(cfg, len(trainer.eval_dataset))
            words = EngineWords(
                length_key="sequence_len",
                prompt_loss_key="train_on_inputs",
                length_limit=cfg.eval_sequence_len or cfg.sequence_len,
                collator=ExampleCollator(trainer.eval_data_collator) if sees_pictures(trainer) else None,
            )
            attach(trainer, sets, words=words, output_dir=Path(cfg.output_dir))
        except TunebookError as error:
            stop(error, job)
        if job is not None:
            _take_over(cfg, trainer, job)
            return []
        cls = type(trainer)
        trainer.__class__ = type(cls.__name__, (_EvaluatesNamedSets, cls), {"__module__": cls.__module__})
        if trained_for is not None and cfg.early_stopping_patience:  # dropped as well
            return [EarlyStoppingCallback(cfg.early_stopping_patience)]
        return []


def _take_over(cfg: Any, trainer: Any, job: EvalJob) -> None:
    """Let the trainer evaluate the models of `tunebook eval`, loaded as Axolotl loads them."""
    from axolotl.loaders import ModelLoader

    def load(path: str) -> Any:
        own = DictDefault({**cfg, "base_model": path, "base_model_config": path})
        return ModelLoader(own, trainer.processing_class).load()[0]

    autocast = cfg.peft_autocast_adapter_dtype
    take_over(
        trainer,
        job,
        load,
        loaded=whole_model(job.candidates[0]),
        adapter_options={} if autocast is None else {"autocast_adapter_dtype": autocast},
    )


class TunebookArgs(BaseModel):
    """The plugin's options, which Axolotl mixes into its own: registry and entries of `test_datasets`."""

    tunebook_dataset_dir: str | None = Field(
        default=None, json_schema_extra={"description": "Folder that holds dataset_info.json."}
    )
    tunebook_eval_datasets: list[str] | None = Field(
        default=None,
        json_schema_extra={
            "description": "The registry entry of each block of `test_datasets`, in their order. With "
            "several, metrics are named eval_<entry>_<metric>."
        },
    )

    @model_validator(mode="before")
    @classmethod
    def refuse_settings_that_void_the_evaluation(cls, data: Any) -> Any:
        """Stop on every setting with which the evaluation would not happen, or would not be true.

        Raises:
            ValueError: There are such settings; all are named, each with the key to change.
        """
        faults = evaluation_faults(data, Path.cwd())
        if faults:
            raise ValueError(str(join_errors(faults)))
        return data


class _EvaluatesNamedSets:
    """Mixed in before the trainer's class: makes `axolotl evaluate` score our sets, and trained weights."""

    def evaluate(
        self,
        eval_dataset: Any = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> dict[str, float]:
        """As the trainer's own within a training run, where no set is given, or one by its name."""
        trainer: Any = self
        stock: Any = super().evaluate  # type: ignore[misc]
        if trainer.is_in_train or isinstance(eval_dataset, str):
            return dict(stock(eval_dataset, ignore_keys, metric_key_prefix))
        if metric_key_prefix == "train":
            say("the training set is left out: answers are measured on the evaluation sets")
            return {}
        if trainer.state.global_step == 0:
            try:
                trainer.state.global_step = steps_of_weights(trainer.axolotl_cfg)
            except TunebookError as error:
                stop(error)
        # What `axolotl evaluate` passes is the merged and shuffled set.
        return dict(stock(None, ignore_keys, metric_key_prefix))


def _tell_dropped_pairs(cfg: Any, kept: int) -> None:
    """Say how many rows of the set of preferences Axolotl and TRL have dropped."""
    block = DictDefault(cfg.test_datasets[0])
    source = load_dataset_with_config(block, cfg.hf_use_auth_token)
    if not isinstance(source, dict) and len(source) != kept:
        say(
            f"warning: {cfg.tunebook_eval_datasets[0]}: {kept} of {len(source)} rows are evaluated: Axolotl "
            f"drops rows above sequence_len = {cfg.sequence_len}"
        )


def evaluation_sets(cfg: Any, trained_for: Objective | None) -> dict[str, EvaluationSet]:
    """Return what is measured, by metric prefix: `eval` for one set, `eval_<name>` for several.

    Args:
        cfg: Axolotl's settings.
        trained_for: None for supervised fine-tuning.

    Raises:
        TunebookError: The registry, an entry or a metric is unknown.
    """
    registry = load_registry(Path(cfg.tunebook_dataset_dir))
    entries = [registry.entry(name) for name in cfg.tunebook_eval_datasets]
    asked = {entry.name: ", ".join(spec.name for spec in entry.metrics) or "loss" for entry in entries}
    say(f"tunebook {__version__} measures " + "; ".join(f"{name}: {what}" for name, what in asked.items()))
    beside = None if trained_for is None else trained_for.reported()
    sets = [
        EvaluationSet(name=entry.name, metrics=metrics.load_asked(entry.metrics), beside=beside)
        for entry in entries
    ]
    return {"eval": sets[0]} if len(sets) == 1 else {f"eval_{one.name}": one for one in sets}


def build_sets(cfg: Any, trainer: Any) -> dict[str, Any]:
    """Load and tokenise the evaluation sets, by registry name, in the recipe's order.

    Axolotl merges `test_datasets` into one set, shuffles it, keeps it in a cache whose key does not cover the
    files' content, and drops rows above its length limit with one line among hundreds. We ask the same loader
    for one block at a time, before merging and caching: complete, fresh and in the file's order.

    Args:
        cfg: Axolotl's configuration, validated.
        trainer: Its trainer, for the tokenizer and so that one process works before the others.

    Raises:
        TunebookError: A set is empty, or this Axolotl lacks the loader we call.
    """
    if not hasattr(sft, _LOAD_ONE):
        raise TunebookError(
            f"this Axolotl has no {_LOAD_ONE} in {sft.__name__}: tunebook {__version__} cannot load its sets",
            fix="install the Axolotl that tunebook's constraints name",
        )
    names = list(cfg.tunebook_eval_datasets)
    collate = trainer.eval_data_collator if sees_pictures(trainer) else None
    with trainer.args.main_process_first(local=True, desc="evaluation sets"):
        return {
            name: build_set(name, block, cfg, trainer.processing_class, collate)
            for name, block in zip(names, cfg.test_datasets, strict=True)
        }


def build_set(name: str, block: Mapping[str, Any], cfg: Any, tokenizer: Any, collate: Any = None) -> Any:
    """Load and tokenise one block; says so where rows are missing.

    Args:
        name: Of the set.
        block: Of `test_datasets`.
        cfg: Axolotl's configuration, validated.
        tokenizer: The run's.
        collate: Axolotl's collator, where it makes the tokens; none are cut then.

    Raises:
        TunebookError: No row is left.
    """
    limit = cfg.eval_sequence_len or cfg.sequence_len
    block = DictDefault(block)
    source = load_dataset_with_config(block, cfg.hf_use_auth_token)
    if collate is not None:
        if isinstance(source, dict):
            source = source[block.get("split") or "train"]
        return CollatedRows(source, collate, name)
    rows = None if isinstance(source, dict) else len(source)  # a mapping: several splits, one is taken
    if rows is not None and rows < _ROWS_WORTH_A_POOL:
        cfg = DictDefault({**cfg, "dataset_num_proc": None})
    dataset, _ = getattr(sft, _LOAD_ONE)(
        dataset_config=block, cfg=cfg, tokenizer=tokenizer, split="test", seed=cfg.seed
    )
    kept = handle_long_seq_in_dataset(dataset, limit, cfg)
    if len(kept) == 0:
        raise TunebookError(
            f"{name}: none of the {len(dataset)} rows of the evaluation set is within sequence_len = {limit}",
            fix="raise `sequence_len`, or fix the block of `test_datasets`",
        )
    if rows is not None and rows != len(kept):
        because = f"Axolotl drops rows above sequence_len = {limit}"
        if len(kept) == len(dataset):
            because = f"the type {block['type']!r} leaves the others out"
        say(f"warning: {name}: {len(kept)} of {rows} rows are evaluated: {because}")
    return kept


def refuse_unlabelled(train_dataset: Any) -> None:
    """Stop where the first training rows carry no loss at all: training would learn nothing and not say so.

    Raises:
        TunebookError: None of the first rows has a supervised token.
    """
    if not hasattr(train_dataset, "__len__") or "labels" not in train_dataset.column_names:
        return
    rows = min(len(train_dataset), _ROWS_LOOKED_AT)
    for start in range(0, rows, 100):
        labels = train_dataset[start : min(start + 100, rows)]["labels"]
        if any(label != IGNORED for row in labels for label in row):
            return
    raise TunebookError(
        f"none of the first {rows} training rows has a label: the loss would be 0 and nothing learned",
        fix="fix the columns or `roles_to_train` of the blocks of `datasets`",
    )


def steps_of_weights(cfg: Any) -> int:
    """Return the optimizer steps of the weights that `axolotl evaluate` has loaded; 0 for a published model.

    Axolotl evaluates the recipe's `base_model`, and with `adapter` a freshly made adapter on it, unless the
    command line says otherwise. Nothing in its output says that what was trained is not what was scored.

    Raises:
        TunebookError: A fresh adapter was made, or the bare base was loaded although a model trained from it
            is in the output folder.
    """
    output_dir = Path(cfg.output_dir)
    if cfg.adapter and not cfg.lora_model_dir:
        raise TunebookError(
            f"`adapter: {cfg.adapter}` without `lora_model_dir`: a fresh adapter would be scored",
            fix=f"add `--lora-model-dir {output_dir}`, or a checkpoint in it; to score the base model, "
            "remove `adapter` and set another `output_dir`",
        )
    loaded = Path(cfg.lora_model_dir or cfg.base_model)
    if loaded.resolve().is_relative_to(output_dir.resolve()):
        return _steps(loaded, output_dir)
    if not cfg.lora_model_dir and _holds_weights(output_dir):
        raise TunebookError(
            f"`base_model: {loaded}` would be scored, not the model that was trained into {output_dir}",
            fix=f"add `--base-model {output_dir}`, or a checkpoint in it; to score the base model, "
            "set another `output_dir`",
        )
    say(f"evaluating {loaded}, which was not trained into {output_dir}")
    return _steps(loaded, loaded)


def _holds_weights(folder: Path) -> bool:
    return any(folder.glob("*.safetensors")) or bool(checkpoint_folders(folder))


def _steps(loaded: Path, run: Path) -> int:
    """Read the step from the checkpoint; for a run's final model from the state of its last checkpoint."""
    state = _state(loaded)
    if state is not None:
        return int(state["global_step"])
    checkpoints = checkpoint_folders(run)
    state = _state(checkpoints[-1]) if checkpoints else None
    if state is None:
        return 0
    # The final model is the best checkpoint where one was chosen, the last step's otherwise.
    best = state.get("best_model_checkpoint") and state.get("best_global_step")
    return int(best or state["global_step"])


def _state(folder: Path) -> dict[str, Any] | None:
    path = folder / "trainer_state.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
