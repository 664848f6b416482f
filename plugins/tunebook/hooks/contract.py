"""Writes `tunebook_contract.json` beside every adapter and model that a training saves.

The engine's settings are noted when it has read its recipe: LLaMA-Factory's through the start-up hook, in
every stage; Axolotl's through our plugin. Everything else is read from model and tokenizer once training
begins, so that what cannot be read fails there and not at the first checkpoint. Whether a dataset carries a
metric does not matter: a model without one has to be served correctly, too.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from dataclasses import fields
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from transformers.trainer_callback import TrainerCallback

from tunebook import __version__, files
from tunebook.models import contract, source
from tunebook.redact import redact
from tunebook.types import EngineName

_PACKAGES = ("torch", "transformers", "peft", "tokenizers")
_ADAPTER = (
    *("peft_type", "r", "lora_alpha", "lora_dropout", "target_modules", "modules_to_save", "use_rslora"),
    *("use_dora", "bias", "base_model_name_or_path"),
)


class EngineSettings(NamedTuple):
    """The settings of one training, as the engine has read them."""

    engine: EngineName
    settings: dict[str, Any]
    """The recipe's keys that a contract keeps."""
    arguments: Any
    """LLaMA-Factory's argument records by name, or Axolotl's cfg."""


_noted: dict[str, EngineSettings] = {}
"""By output folder: several trainings may follow each other in one process."""


def note(output_dir: str, settings: EngineSettings) -> None:
    """Remember the settings of the training into `output_dir`."""
    _noted[str(Path(output_dir).absolute())] = settings


def noted(output_dir: str) -> EngineSettings | None:
    """Return what was noted of the training into `output_dir`; None where it is no engine's."""
    return _noted.get(str(Path(output_dir).absolute()))


def bind_llamafactory(parser: ModuleType) -> None:
    """Wrap `get_train_args` of `llamafactory.hparams.parser`, which reads the recipe of every stage."""
    read = parser.get_train_args

    @functools.wraps(read)
    def get_train_args(args: Any = None) -> Any:
        found = read(args)
        model, data, training, finetuning = found[:4]
        # A list of command-line words is no recipe: take the records themselves.
        given = args if isinstance(args, Mapping) else _changed(model, data, training, finetuning)
        settings = contract.kept_settings("llamafactory", given)
        records = {"model": model, "data": data, "finetuning": finetuning}
        note(training.output_dir, EngineSettings("llamafactory", settings, records))
        return found

    parser.get_train_args = get_train_args  # type: ignore[attr-defined]


def _changed(*records: Any) -> dict[str, Any]:
    """The fields of argument records that do not hold their defaults, where JSON can hold them."""
    return {
        field.name: getattr(record, field.name)
        for record in records
        for field in fields(record)
        if getattr(record, field.name) != field.default
        and isinstance(getattr(record, field.name), (str, int, float, bool, list))
    }


class WritesContract(TrainerCallback):  # type: ignore[misc]
    """Gathers the contract as training begins; writes it with each checkpoint and at the end."""

    def __init__(self) -> None:
        self._contract: dict[str, Any] | None = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **given: Any) -> None:  # noqa: ARG002
        """Read everything from model and tokenizer, on the first rank."""
        settings = noted(args.output_dir)
        if settings is not None and state.is_world_process_zero:
            self._contract = gather(settings, args, given["model"], given["processing_class"])

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002
        """Beside the checkpoint that was just saved."""
        self._write(Path(args.output_dir) / f"checkpoint-{state.global_step}", state.global_step)

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002
        """In the output folder, where the engine is about to save what it has trained."""
        chosen = args.load_best_model_at_end and state.best_model_checkpoint
        self._write(Path(args.output_dir), state.best_global_step if chosen else state.global_step)

    def _write(self, folder: Path, step: int) -> None:
        if self._contract is not None:
            files.write_json(folder / contract.FILE, {**self._contract, "step": step})


def gather(noted: EngineSettings, args: Any, model: Any, processing_class: Any) -> dict[str, Any]:
    """Return the contract of a training that begins, without its step.

    Args:
        noted: The engine's settings.
        args: The trainer's arguments.
        model: The model to be trained, adapters on it.
        processing_class: Its tokenizer, or a processor that holds one.
    """
    tokenizer = getattr(processing_class, "tokenizer", processing_class)
    words = _LlamaFactory(noted) if noted.engine == "llamafactory" else _Axolotl(noted)
    config = model.config
    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    found = {
        "format": contract.FORMAT,
        "tunebook": __version__,
        "engine": {"name": noted.engine, "version": metadata.version(noted.engine)},
        "versions": {name: metadata.version(name) for name in _PACKAGES},
        "base": _base(words.base, words.revision, config),
        "template": {
            **words.template(),
            "chat_template_sha256": contract.text_sha256(getattr(tokenizer, "chat_template", None)),
        },
        "rope": rope(text),
        "max_tokens": words.max_tokens,
        "dtype": {
            "weights": _name(_base_dtype(model)),
            "compute": "bfloat16" if args.bf16 else "float16" if args.fp16 else _name(_base_dtype(model)),
        },
        "quantization": _plain(getattr(config, "quantization_config", None)),
        "adapter": _adapter(model),
        "tokens": {
            **{role: _token(tokenizer, role) for role in ("bos", "eos", "pad")},
            "stop": words.stop_tokens(tokenizer),
            "vocabulary": len(tokenizer),
            "tokenizer_sha256": _tokenizer_sha256(tokenizer),
        },
        "settings": noted.settings,
    }
    return dict(redact(found))


class _LlamaFactory:
    def __init__(self, noted: EngineSettings) -> None:
        self._model, self._data = noted.arguments["model"], noted.arguments["data"]
        # As the recipe says it: while it loads, the engine may replace a hub's name by a folder.
        self.base = str(noted.settings.get("model_name_or_path", self._model.model_name_or_path))
        self.revision = self._model.model_revision
        self.max_tokens = self._data.cutoff_len

    def _template(self) -> Any:
        from llamafactory.data.template import TEMPLATES

        return TEMPLATES.get(self._data.template)

    def template(self) -> dict[str, Any]:
        from llamafactory.data.template import ReasoningTemplate

        template = self._template()
        thinks = isinstance(template, ReasoningTemplate)
        default = getattr(template, "default_system", None)
        system = self._data.default_system
        return {
            "name": self._data.template,
            # Other templates never look at it.
            "enable_thinking": self._data.enable_thinking if thinks else None,
            "default_system": (default if system is None else system) or None,
            "chat_template_kwargs": {},
        }

    def stop_tokens(self, tokenizer: Any) -> list[dict[str, Any]]:
        template = self._template()
        ids = [tokenizer.eos_token_id] if template is None else template.get_stop_token_ids(tokenizer)
        return _named(tokenizer, ids)


class _Axolotl:
    def __init__(self, noted: EngineSettings) -> None:
        self._cfg = noted.arguments
        self.base = str(noted.settings["base_model"])
        self.revision = self._cfg.revision_of_model or None
        self.max_tokens = self._cfg.sequence_len

    def template(self) -> dict[str, Any]:
        options = _plain(self._cfg.chat_template_kwargs) or {}
        return {
            "name": _plain(self._cfg.chat_template) or "tokenizer_default",
            "enable_thinking": options.get("enable_thinking"),
            "default_system": self._cfg.default_system_message or None,
            "chat_template_kwargs": options,
        }

    def stop_tokens(self, tokenizer: Any) -> list[dict[str, Any]]:
        ids = [tokenizer.convert_tokens_to_ids(token) for token in self._cfg.eot_tokens or []]
        return _named(tokenizer, [tokenizer.eos_token_id, *ids])


def rope(config: Any) -> dict[str, Any]:
    """Return the rotary embedding of a text model's configuration, and the length it is made for."""
    parameters = _plain(getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None))
    theta = getattr(config, "rope_theta", None)
    if theta is None and isinstance(parameters, dict):
        theta = parameters.get("rope_theta")
    return {
        "parameters": parameters,
        "theta": theta,
        "max_position_embeddings": getattr(config, "max_position_embeddings", None),
    }


def _base(name: str, revision: str | None, config: Any) -> dict[str, Any]:
    folder = Path(name).expanduser()
    local = folder.is_dir()
    commit = None if local else getattr(config, "_commit_hash", None)
    if not local and commit is None:
        snapshot = source.snapshot(name, revision or "main")
        commit = snapshot.name if snapshot is not None else None
    return {
        "name_or_path": str(folder.absolute()) if local else name,
        "revision": revision,
        "commit": commit,
        "fingerprint": contract.fingerprint(folder) if local else None,
        "model_type": config.model_type,
        "architectures": _plain(getattr(config, "architectures", None)),
    }


def _base_dtype(model: Any) -> Any:
    """The type of the first weight that is not an adapter's; adapters are kept in float32."""
    for name, parameter in model.named_parameters():
        if "lora_" not in name and parameter.is_floating_point():
            return parameter.dtype
    return model.dtype


def _adapter(model: Any) -> dict[str, Any] | None:
    while not hasattr(model, "peft_config") and hasattr(model, "module"):
        model = model.module
    configs = getattr(model, "peft_config", None)
    if not isinstance(configs, Mapping) or not configs:
        return None
    config = configs.get("default") or next(iter(configs.values()))
    return {name: _plain(getattr(config, name)) for name in _ADAPTER if hasattr(config, name)}


def _token(tokenizer: Any, role: str) -> dict[str, Any] | None:
    identity = getattr(tokenizer, f"{role}_token_id", None)
    return None if identity is None else {"id": identity, "text": getattr(tokenizer, f"{role}_token")}


def _named(tokenizer: Any, ids: list[int | None]) -> list[dict[str, Any]]:
    known = sorted({identity for identity in ids if identity is not None})
    return [{"id": identity, "text": tokenizer.convert_ids_to_tokens(identity)} for identity in known]


def _tokenizer_sha256(tokenizer: Any) -> str | None:
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None or not hasattr(backend, "to_str"):
        return None  # no fast tokenizer: there is no tokenizer.json
    return contract.tokenizer_sha256(json.loads(backend.to_str()))


def _name(dtype: Any) -> str:
    return str(dtype).removeprefix("torch.")


def _plain(value: Any) -> Any:
    """`value` as JSON can hold it."""
    if hasattr(value, "to_dict"):
        value = value.to_dict()
    if isinstance(value, Mapping):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, (set, frozenset)):
        return sorted(_plain(entry) for entry in value)
    if isinstance(value, (list, tuple)):
        return [_plain(entry) for entry in value]
    if hasattr(value, "value") and not isinstance(value, (str, int, float, bool)):
        return _plain(value.value)  # an enumeration
    if isinstance(value, str):
        return str(getattr(value, "value", value))  # an enumeration of texts is one of these
    return value if value is None or isinstance(value, (int, float, bool)) else _name(value)
