"""What a run was trained for, by its settings and what it logged, so that its loss is called what it is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tunebook.runlog import RunLog


class Objective(NamedTuple):
    """One kind of training."""

    name: str
    """As the field calls it: `DPO`, `reward model`, `classification`; a language model has ``."""
    loss: str
    """What its loss is, as an axis says it."""
    by_reward: bool = False
    """Whether a reward is what it raises, and its loss says nothing of success."""

    @property
    def is_language(self) -> bool:
        """Whether the loss is the cross-entropy of tokens."""
        return self.loss == _TOKENS


_TOKENS = "cross-entropy, nats per token"
_LANGUAGE = Objective("", _TOKENS)
_CLASSES = Objective("classification", "cross-entropy, nats per example")
_PREFERENCE = {
    name: Objective(name.upper(), f"{name.upper()} loss")
    for name in ("dpo", "kto", "orpo", "simpo", "ipo", "cpo")
}
_REWARD_MODEL = Objective("reward model", "loss of the reward model, nats per pair")
_BY_REWARD = {
    name: Objective(name.upper(), f"{name.upper()} loss", by_reward=True)
    for name in ("grpo", "ppo", "rloo", "gspo", "dapo", "online_dpo")
}
_REINFORCED = Objective("reinforcement learning", "loss of the policy", by_reward=True)
_SAID: dict[str, Objective] = {
    **_PREFERENCE,
    **_BY_REWARD,
    "rm": _REWARD_MODEL,
    "reward": _REWARD_MODEL,
    "sft": _LANGUAGE,
    "pt": _LANGUAGE,
}
UNKNOWN = Objective("unknown", "as logged")


def objective_of(run: RunLog) -> Objective:
    """The objective of a run; `UNKNOWN` where neither settings nor logged names tell it."""
    said = run.settings.get("stage") or run.settings.get("rl")
    if isinstance(said, str) and said.lower() in _SAID:
        return _SAID[said.lower()]
    if isinstance(said := run.settings.get("reward_model"), bool) and said:
        return _REWARD_MODEL
    names = set(run.series) | {f"eval_{name}" for one in run.evaluations for name in one.values}
    if (logged := _by_series(names)) is not None:
        return logged
    architecture = _architecture(run.settings)
    if (built := _by_architecture(architecture)) is not None:
        return built
    figures = {name for one in run.evaluations for name in one.values}
    if figures & {"wer", "cer"}:
        return Objective("speech recognition", "loss of the speech model")
    own = any(one.metrics for one in run.evaluations) or bool(run.recipe_text)
    if own or run.engine in ("llamafactory", "axolotl") or figures & {"perplexity", "token_accuracy"}:
        return _LANGUAGE
    return UNKNOWN


def _by_series(names: set[str]) -> Objective | None:
    if "rewards/chosen" in names or "eval_rewards/chosen" in names:
        if "log_odds_ratio" in names:
            return _PREFERENCE["orpo"]
        pairs = "rewards/accuracies" in names or "eval_rewards/accuracies" in names
        return _PREFERENCE["dpo" if pairs else "kto"]
    if {"rewards/accuracies", "eval_rewards/accuracies"} & names:  # as LLaMA-Factory's callback keeps it
        return _PREFERENCE["dpo"]
    if {"reward", "eval_reward"} & names or "objective/rlhf_reward" in names:
        grouped = {"reward_std", "frac_reward_zero_std", "completion_length", "completions/mean_length"}
        return _BY_REWARD["grpo"] if names & grouped else _REINFORCED
    if {"mean_reward", "margin"} <= names or {"min_reward", "max_reward"} <= names:
        return _REWARD_MODEL
    return _LANGUAGE if "mean_token_accuracy" in names or "eval_mean_token_accuracy" in names else None


def _architecture(settings: Mapping[str, Any]) -> str:
    built = settings.get("architectures")
    first = built[0] if isinstance(built, list) and built else built
    return first if isinstance(first, str) else ""


def _by_architecture(name: str) -> Objective | None:
    if "Classification" in name:
        return _CLASSES
    if name.startswith(("Whisper", "Speech", "Wav2Vec2", "Hubert", "Moonshine")):
        return Objective("speech recognition", "loss of the speech model")
    if name.endswith("ForMaskedLM"):
        return Objective("masked language model", "cross-entropy, nats per masked token")
    if name.endswith(("ForCausalLM", "LMHeadModel", "ForConditionalGeneration")):
        return _LANGUAGE
    return None
