"""Changes the model of a trainer: a base with its adapters in turn, or one whole model after another."""

from __future__ import annotations

import gc
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import torch

from tunebook.errors import TunebookError
from tunebook.evaluation.records import Candidate


class Models:
    """The models of a sweep, of which one at a time is in memory.

    Args:
        trainer: Holds the model that the engine has loaded.
        load_full: Loads a whole model as the engine does.
        loaded: What the model in memory was loaded from, without an adapter on it.
        adapter_options: For `PeftModel.from_pretrained`, as the engine gives them.
    """

    def __init__(
        self,
        trainer: Any,
        load_full: Callable[[str], Any],
        loaded: str,
        adapter_options: Mapping[str, Any],
    ) -> None:
        self.trainer = trainer
        self.adapter_options = adapter_options
        self.load_full = load_full
        self.loaded = loaded
        self.candidate: Candidate | None = None

    def use(self, candidate: Candidate) -> None:
        """Put a candidate's model into the trainer; costs nothing where it is there already.

        Raises:
            Exception: Whatever the engine or PEFT raises for weights that they cannot load.
        """
        if candidate == self.candidate:
            return
        self.candidate = None  # should anything below fail
        bare = self._bare()
        wanted = whole_model(candidate)
        if self.loaded != wanted:
            _free(self.trainer, bare)
            self.loaded = ""
            self.trainer.model = self.load_full(wanted)  # Axolotl puts an adapter of the run on it
            bare = self._bare()
            self.loaded = wanted
        self._put(bare)
        if candidate.kind == "adapter":
            # Should it not fit, it has been half put on: the base is to be loaded anew.
            self.loaded = ""
            self._put(self._with_adapter(bare, candidate.path))
            self.loaded = wanted
        self.candidate = candidate

    def _bare(self) -> Any:
        """The model without an adapter. It is never merged: neither is it in training."""
        from peft import PeftModel
        from peft.utils.other import ModulesToSaveWrapper

        model = self.trainer.model
        if not isinstance(model, PeftModel):
            return model

        # `unload` leaves trained copies of whole modules, such as embeddings, instead of the base's own.
        originals = {
            name: module.original_module
            for name, module in model.get_base_model().named_modules()
            if isinstance(module, ModulesToSaveWrapper)
        }
        bare = model.unload()
        for name, module in originals.items():
            parent, _, leaf = name.rpartition(".")
            setattr(bare.get_submodule(parent), leaf, module)
        # PEFT leaves a note on the model that it is an adapter's.
        if hasattr(bare, "peft_config"):
            del bare.peft_config
        return bare

    def _with_adapter(self, bare: Any, path: str) -> Any:
        from peft import PeftModel

        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            model = PeftModel.from_pretrained(bare, path, is_trainable=False, **self.adapter_options)
        missing = [str(one.message) for one in caught if "missing adapter keys" in str(one.message)]
        if missing:
            # PEFT goes on with weights of its own making: the base would be scored under the adapter's name.
            raise TunebookError(
                f"{path} does not fit its base: {missing[0][:300]}",
                fix="evaluate it on the base model that it was trained on",
            )
        return model

    def _put(self, model: Any) -> None:
        trainer = self.trainer
        if model is None:
            raise TunebookError("no model is loaded", fix="see the failure before this one")
        # Mixed precision is wrapped around the first model that is evaluated; the next is another one.
        trainer.accelerator.free_memory()
        model.requires_grad_(False)
        placed = getattr(model, "hf_device_map", None) is not None or getattr(model, "is_quantized", False)
        if trainer.place_model_on_device and not placed:
            model.to(trainer.args.device)
        model.eval()
        trainer.model = trainer.model_wrapped = model
        trainer.callback_handler.model = model
        trainer.tunebook.forget_model()


def whole_model(candidate: Candidate) -> str:
    """Where the whole model of a candidate is loaded from: itself, or the base of its adapter."""
    return candidate.path if candidate.kind == "full" else candidate.base


def _free(trainer: Any, model: Any) -> None:
    """Give a model's memory back although the engine's own variables still hold it."""
    trainer.accelerator.free_memory()
    trainer.model = trainer.model_wrapped = trainer.callback_handler.model = None
    if model is not None:
        for tensor in [*model.parameters(), *model.buffers()]:
            tensor.data = torch.empty(0, dtype=tensor.dtype, device=tensor.device)
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
