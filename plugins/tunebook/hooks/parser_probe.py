"""Gives recipes to the installed engine's own parser: `python -m tunebook.hooks.parser_probe JOB.json LOG`.

Run by `tunebook check --engine`, which reads the verdicts. No model is loaded, nothing is downloaded, and no
GPU is needed: a recipe is parsed as on a machine that can do everything and lacks no package, and, where it
is taken there, on this one. Each time in a process of its own, since parsers keep state.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tunebook.files import write_json
from tunebook.hooks.infer import engine_prints_to

_MUCH = {"bf16": True, "fp8": True, "tf32": True, "compute_capability": "sm_90"}
"""What a machine that can do everything tells Axolotl."""


def main() -> None:
    """Do a job."""
    # Read when the engine is imported, which is later.
    os.environ.update({"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "WANDB_MODE": "offline"})
    job = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    with engine_prints_to(Path(sys.argv[2])):
        parse = _llamafactory() if job["engine"] == "llamafactory" else _axolotl()
        write_json(Path(job["answer"]), [_verdict(parse, recipe) for recipe in job["recipes"]])


Parse = Callable[[Mapping[str, Any], bool], None]
"""Takes a recipe, and whether this machine counts; raises what the engine raises."""


def _verdict(parse: Parse, recipe: Mapping[str, Any]) -> dict[str, Any]:
    """Return `said`, the engine's words where it refuses, and `here`, whether only this machine is why."""
    said = _apart(parse, recipe, here=False)
    if said is not None:
        return said
    return _apart(parse, recipe, here=True) or {"said": None, "here": False}


def _apart(parse: Parse, recipe: Mapping[str, Any], *, here: bool) -> dict[str, Any] | None:
    """Parse in a fork; None where the recipe is taken."""
    with tempfile.TemporaryFile("w+", encoding="utf-8") as answer:
        child = os.fork()
        if child == 0:
            try:
                parse(recipe, here)
            except BaseException as error:  # noqa: BLE001 -- whatever it is, the engine stops at it
                # A package or file that is missing says nothing of the recipe.
                machine = here or isinstance(error, (ImportError, OSError))
                json.dump({"said": _words(error), "here": machine}, answer)
                answer.flush()
            finally:
                os._exit(0)
        _, status = os.waitpid(child, 0)
        answer.seek(0)
        text = answer.read()
    if text:
        said: dict[str, Any] = json.loads(text)
        return said
    if status:
        return {"said": f"the parser died of signal {os.WTERMSIG(status)}", "here": True}
    return None


def _words(error: BaseException) -> str:
    from pydantic import ValidationError

    if isinstance(error, ValidationError):
        return "; ".join(
            ": ".join(filter(None, [".".join(map(str, one["loc"])), one["msg"]])) for one in error.errors()
        )
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


def _llamafactory() -> Parse:
    import transformers
    from llamafactory.hparams import parser
    from transformers import training_args

    reads = {"export": parser.get_infer_args, "chat": parser.get_infer_args, "eval": parser.get_eval_args}

    def parse(recipe: Mapping[str, Any], here: bool) -> None:
        values = dict(recipe["values"])
        if not here:
            for module in (parser, training_args):
                for name in ("is_torch_bf16_gpu_available", "is_torch_tf32_available"):
                    if hasattr(module, name):
                        setattr(module, name, lambda *_: True)
            parser.check_version = lambda *_, **__: None
            if "output_dir" in values:
                # A run that is there already is this machine's matter.
                values["output_dir"] = f"{values['output_dir']}/none"
        if recipe["distributed"]:
            # What the engine's launcher decides before it parses.
            several = transformers.training_args.ParallelMode.DISTRIBUTED
            transformers.TrainingArguments.parallel_mode = property(lambda _: several)
        else:
            os.environ["CUDA_VISIBLE_DEVICES"] = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0]
        reads.get(recipe["command"], parser.get_train_args)(values)

    return parse


def _axolotl() -> Parse:
    from axolotl.cli.config import gpu_capabilities, prepare_plugins
    from axolotl.utils.config import validate_config
    from axolotl.utils.dict import DictDefault

    def parse(recipe: Mapping[str, Any], here: bool) -> None:
        config = DictDefault(recipe["values"])
        prepare_plugins(config)
        capabilities, environment = gpu_capabilities()
        count = {"n_gpu": recipe["gpus"], "n_node": 1}
        capabilities = capabilities if here else {**capabilities, **_MUCH}
        validate_config(config, capabilities={**capabilities, **count}, env_capabilities=environment)

    return parse


if __name__ == "__main__":
    main()
