"""What a training is for, and so what its evaluations report, and whether answers can be measured there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tunebook.metrics.figures import PREFERENCE_FIGURES, TRAINER_FIGURES
from tunebook.types import EngineName, Figure

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

_TEXT = "its rows are plain text, without a question to answer"
_RIGHT = Figure(name="accuracy", label="share of pairs in the right order")
_OF_REWARDS = (
    _RIGHT,
    Figure(name="margin", low=None, high=None),
    *(Figure(name=f"{one}_reward", low=None, high=None, descriptive=True) for one in ("min", "mean", "max")),
)
_REWARD = "a reward model has no language head and gives no answers"


@dataclass(frozen=True, slots=True, kw_only=True)
class Objective:
    """One kind of training other than supervised fine-tuning."""

    setting: str
    """As the recipe says it, e.g. `stage: dpo`."""
    key: str
    """The key that says it."""
    figures: tuple[Figure, ...] | None = None
    """What the engine's own evaluation reports; None where nobody has listed it."""
    no_answers: str | None = None
    """Why answers are not measured; None where they are, beside the engine's own figures."""
    afterwards: bool = True
    """Whether `tunebook eval` can measure the trained model."""

    def reported(self, name: str = "") -> dict[str, Figure]:
        """Return what an evaluation of the engine's own reports, by name without `eval_`.

        Args:
            name: Of the set, where there are several. The engines log rewards without it, so that those of
                the last set stand.
        """
        ends = {figure.name for figure in (*TRAINER_FIGURES, _RIGHT)}
        return {
            f"{name}_{one.name}" if name and one.name in ends else one.name: one for one in self.figures or ()
        }

    @property
    def advice(self) -> str:
        """What to do where answers are not measured."""
        if self.afterwards:
            return "run `tunebook eval` on the trained model, with --dataset NAME"
        return 'take "metric" out of the registry entry'


def objective(engine: EngineName, values: Mapping[str, Any]) -> Objective | None:
    """Return what a recipe trains for; None for supervised fine-tuning.

    Args:
        engine: Whose recipe it is.
        values: The recipe's keys, or the settings that the engine has read from them.
    """
    if engine == "axolotl":
        return _axolotl(values)
    stage = values.get("stage") or "sft"
    setting, key = f"stage: {stage}", "stage"
    if stage in ("dpo", "kto"):
        of_orpo = ("sft_loss", "odds_ratio_loss") if values.get("pref_loss") == "orpo" else ()
        return Objective(setting=setting, key=key, figures=_preference(stage, losses=of_orpo))
    if stage == "rm":
        reported = (*TRAINER_FIGURES, _RIGHT)
        return Objective(setting=setting, key=key, figures=reported, no_answers=_REWARD, afterwards=False)
    if stage == "pt":
        return Objective(setting=setting, key=key, figures=TRAINER_FIGURES, no_answers=_TEXT)
    if stage == "ppo":
        return Objective(setting=setting, key=key, no_answers="LLaMA-Factory evaluates nothing there")
    return None


def _axolotl(values: Mapping[str, Any]) -> Objective | None:
    rl = values.get("rl") or ""
    kind = str(getattr(rl, "value", rl)).lower()  # Axolotl makes an enumeration of it
    setting = f"rl: {kind}"
    if kind in ("dpo", "ipo", "kto"):
        more = ("entropy", "mean_token_accuracy") if kind != "kto" else ("entropy", "kl")
        return Objective(setting=setting, key="rl", figures=_preference(kind, others=more))
    if kind in ("orpo", "simpo"):
        odds = ("log_odds_ratio", "log_odds_chosen") if kind == "orpo" else ()
        figures = _preference(kind, losses=("nll_loss",), others=odds)
        return Objective(setting=setting, key="rl", figures=figures)
    if kind:
        return Objective(setting=setting, key="rl", no_answers="its rows hold no answers to compare with")
    for key in ("reward_model", "process_reward_model"):
        if values.get(key):
            return Objective(
                setting=f"{key}: true",
                key=key,
                figures=(*TRAINER_FIGURES, *_OF_REWARDS) if key == "reward_model" else None,
                no_answers=_REWARD,
                afterwards=False,
            )
    if values.get("pretraining_dataset"):
        return Objective(setting="pretraining_dataset", key="pretraining_dataset", no_answers=_TEXT)
    return None


def _preference(
    kind: str, *, losses: tuple[str, ...] = (), others: tuple[str, ...] = ()
) -> tuple[Figure, ...]:
    """Figures of a training on preferences: KTO sees one answer at a time and counts no right choices."""
    shared = [one for one in PREFERENCE_FIGURES if kind != "kto" or one.name != "rewards/accuracies"]
    return (
        *TRAINER_FIGURES[:1],
        *shared,
        *(Figure(name=name, smaller_is_better=True, high=None) for name in losses),
        *(Figure(name=name, low=None, high=None, descriptive=True) for name in others),
        *TRAINER_FIGURES[1:],
    )
