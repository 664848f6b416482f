"""Our Axolotl plugin: `attach` for the evaluation sets that a recipe names by their registry entries.

    plugins:
      - tunebook.hooks.axolotl.TunebookPlugin
    tunebook_dataset_dir: datasets_info
    tunebook_eval_datasets: [demo_recommend_eval]

The trainer is reached in `add_callbacks_post_trainer`, which Axolotl calls for `train` and for `evaluate`;
it skips `post_trainer_create` for the latter.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, NoReturn

from axolotl.integrations.base import BasePlugin, PluginManager
from axolotl.utils.dict import DictDefault

from tunebook import __version__, metrics
from tunebook.data.registry import load_registry
from tunebook.engines.axolotl.cache import prepared_path
from tunebook.errors import TunebookError
from tunebook.evaluation.job import Job, job_of_environment
from tunebook.hooks.attach import attach
from tunebook.hooks.axolotl_sets import build_sets, refuse_unlabelled
from tunebook.hooks.axolotl_weights import steps_of_weights
from tunebook.hooks.contract import Told, note
from tunebook.hooks.leavings import say
from tunebook.hooks.preparation import EngineWords, EvaluationSet
from tunebook.hooks.sweep import stop, take_over, with_method
from tunebook.hooks.sweep_models import whole_model
from tunebook.models import contract


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
            _stop(
                TunebookError(
                    f"{', '.join(lost)}: cannot be imported, and Axolotl would go on without it",
                    fix="mend the import error above, or take the plugin out of `plugins`",
                )
            )
        return "tunebook.hooks.axolotl_args.TunebookArgs"

    def get_training_args(self, cfg: Any) -> dict[str, Any]:
        """Hand on `greater_is_better: false`, which Axolotl drops: it would keep the worst checkpoint."""
        return {} if cfg.greater_is_better is None else {"greater_is_better": cfg.greater_is_better}

    def add_callbacks_post_trainer(self, cfg: Any, trainer: Any) -> list[Any]:
        """Load the evaluation sets and attach to the trainer; adds no callback."""
        note(cfg.output_dir, Told("axolotl", self._settings, cfg))
        job = job_of_environment()
        try:
            refuse_unlabelled(trainer.train_dataset)
            sets = evaluation_sets(cfg)
            if job is not None:
                sets = with_method(sets, job)
            loaded = build_sets(cfg, trainer)
            trainer.eval_dataset = loaded if len(loaded) > 1 else next(iter(loaded.values()))
            words = EngineWords(
                length_key="sequence_len",
                prompt_loss_key="train_on_inputs",
                length_limit=cfg.eval_sequence_len or cfg.sequence_len,
            )
            attach(trainer, sets, words=words, output_dir=Path(cfg.output_dir))
        except TunebookError as error:
            _stop(error, job)
        if job is not None:
            _take_over(cfg, trainer, job)
            return []
        cls = type(trainer)
        trainer.__class__ = type(cls.__name__, (_EvaluatesNamedSets, cls), {"__module__": cls.__module__})
        return []


def _take_over(cfg: Any, trainer: Any, job: Job) -> None:
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
        loaded=whole_model(job.subjects[0]),
        adapter_options={} if autocast is None else {"autocast_adapter_dtype": autocast},
    )


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
                _stop(error)
        # What `axolotl evaluate` passes is the merged and shuffled set.
        return dict(stock(None, ignore_keys, metric_key_prefix))


def evaluation_sets(cfg: Any) -> dict[str, EvaluationSet]:
    """Return what is measured, by metric prefix: `eval` for one set, `eval_<name>` for several.

    Raises:
        TunebookError: The registry, an entry or a metric is unknown.
    """
    registry = load_registry(Path(cfg.tunebook_dataset_dir))
    entries = [registry.entry(name) for name in cfg.tunebook_eval_datasets]
    asked = {entry.name: ", ".join(spec.name for spec in entry.metrics) or "loss" for entry in entries}
    say(f"tunebook {__version__} measures " + "; ".join(f"{name}: {what}" for name, what in asked.items()))
    sets = [
        EvaluationSet(
            name=entry.name,
            # Every evaluation reports perplexity.
            metrics=tuple(
                (metrics.load(spec.name), spec) for spec in entry.metrics if spec.name != "perplexity"
            ),
        )
        for entry in entries
    ]
    return {"eval": sets[0]} if len(sets) == 1 else {f"eval_{one.name}": one for one in sets}


def _stop(error: TunebookError, job: Job | None = None) -> NoReturn:
    """End the process as our command line would. A traceback through the engine would hide the two lines."""
    if job is not None:
        stop(job, error)
    print(f"error: {error}", file=sys.stderr, flush=True)
    sys.exit(2)
