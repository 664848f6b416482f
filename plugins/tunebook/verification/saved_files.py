"""Findings about the files of a model, compared with its contract; no engine and no weights are needed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunebook import files
from tunebook.errors import TunebookError
from tunebook.models import contract, safetensors
from tunebook.models.source import local_folder
from tunebook.verification.prompts import VerifyFinding

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from tunebook.models.source import ModelSource


def file_findings(source: ModelSource, tokenizer: Path, vocabulary: int) -> Iterator[VerifyFinding]:
    """Compare everything that is in files with the contract.

    Args:
        source: The model.
        tokenizer: The folder of the tokenizer that will be served.
        vocabulary: One more than its highest token id.
    """
    made = source.contract
    if made is None:
        yield VerifyFinding(
            check="contract",
            level="unknown",
            message=f"there is no {contract.FILE} beside the model: rope scaling, base revision, precision "
            "and the saved tokenizer are not compared",
        )
    else:
        yield _same_file("chat template", made["template"]["chat_template_sha256"], tokenizer)
        yield _tokenizer(made, tokenizer)
        yield from _rope(source, made)
        yield from _base(source, made)
        yield from _precision(source, made)
    yield from _embeddings(source, vocabulary)


def _same_file(check: str, expected: str | None, folder: Path) -> VerifyFinding:
    found = contract.text_sha256(chat_template_of(folder))
    if found == expected:
        return VerifyFinding(check=check, level="equal", message="is the one that training saved")
    return VerifyFinding(
        check=check,
        level="differs",
        message=f"the one in {folder} was changed after training",
        fix="put the one back that training saved, or look at the prompts above: only those matter",
    )


def _tokenizer(made: Mapping[str, Any], folder: Path) -> VerifyFinding:
    file = folder / "tokenizer.json"
    expected = made["tokens"]["tokenizer_sha256"]
    if expected is None or not file.is_file():
        return VerifyFinding(check="tokenizer", level="unknown", message=f"there is no {file} to compare")
    if contract.tokenizer_sha256(read_json(file)) == expected:
        return VerifyFinding(check="tokenizer", level="equal", message="is the one of the training")
    return VerifyFinding(
        check="tokenizer",
        level="differs",
        message=f"{file} is not the tokenizer of the training",
        fix="copy the tokenizer of the run's output_dir beside the model",
    )


def _rope(source: ModelSource, made: Mapping[str, Any]) -> Iterator[VerifyFinding]:
    folder = source.folder if source.adapter is None else base_folder(source)
    config = text_config(folder)
    if config is None:
        yield VerifyFinding(
            check="rope", level="unknown", message="the model's config.json is not on this machine"
        )
        return
    trained, saved = _scaling(made["rope"]), _scaling(_rope_of(config))
    if trained == saved:
        yield VerifyFinding(
            check="rope", level="equal", message=f"config.json says {json.dumps(saved)}, as trained"
        )
        return
    parameters = made["rope"]["parameters"]
    yield VerifyFinding(
        check="rope",
        level="differs",
        message=f"trained with {json.dumps(trained)}; {folder}/config.json says {json.dumps(saved)}",
        fix=f'write `"rope_parameters": {json.dumps(parameters)}, "max_position_embeddings": '
        f"{made['rope']['max_position_embeddings']}` into that config.json, or hand both to the server "
        "(vLLM: --hf-overrides)",
    )


def _rope_of(config: Mapping[str, Any]) -> dict[str, Any]:
    return {
        # transformers 5 writes the first, and 4 the second with `rope_theta` beside it.
        "parameters": config.get("rope_parameters") or config.get("rope_scaling"),
        "theta": config.get("rope_theta"),
        "max_position_embeddings": config.get("max_position_embeddings"),
    }


def _scaling(rope: Mapping[str, Any]) -> dict[str, Any]:
    """The same rotary embedding written the same way, whichever transformers has written it."""
    parameters = dict(rope["parameters"] or {})
    if "type" in parameters:
        parameters["rope_type"] = parameters.pop("type")
    parameters.setdefault("rope_type", "default")
    theta = parameters.pop("rope_theta", None) or rope["theta"]
    return {**parameters, "theta": theta, "max_position_embeddings": rope["max_position_embeddings"]}


def _base(source: ModelSource, made: Mapping[str, Any]) -> Iterator[VerifyFinding]:
    base = made["base"]
    if source.adapter is not None:
        named = read_json(source.folder / "adapter_config.json").get("base_model_name_or_path")
        # A folder may be named relative to where training was started.
        if named and Path(str(named)).name != Path(base["name_or_path"]).name:
            yield VerifyFinding(
                check="base model",
                level="differs",
                message=f"adapter_config.json names {named!r}, but it was trained on "
                f"{base['name_or_path']!r}",
                fix=f'write `"base_model_name_or_path": "{base["name_or_path"]}"` into adapter_config.json',
            )
    folder = base_folder(source)
    if folder is None:
        yield VerifyFinding(
            check="base model",
            level="note" if source.adapter is None else "unknown",
            message=f"{source.base} is not on this machine",
        )
    elif base["commit"] is not None:
        if folder.name == base["commit"]:
            yield VerifyFinding(
                check="base model", level="equal", message=f"commit {base['commit']}, as trained"
            )
        else:
            yield VerifyFinding(
                check="base model",
                level="differs",
                message=f"trained on commit {base['commit']}, but {folder.name} is here",
                fix=f"load it with revision={base['commit']}",
            )
    elif base["fingerprint"] is not None:
        same = contract.fingerprint(folder) == base["fingerprint"]
        if same:
            yield VerifyFinding(
                check="base model", level="equal", message=f"{folder}: configuration and tensors as trained"
            )
        else:
            yield VerifyFinding(
                check="base model",
                level="differs",
                message=f"configuration or tensors of {folder} are not those that were trained on",
                fix="put the model there that training used, or name it with --adapter",
            )
    else:
        yield VerifyFinding(
            check="base model", level="unknown", message="the contract does not say which revision it was"
        )


def _precision(source: ModelSource, made: Mapping[str, Any]) -> Iterator[VerifyFinding]:
    if made["quantization"]:
        yield VerifyFinding(
            check="precision",
            level="note",
            message="the adapter was trained on a quantised base; on a base in full precision, or merged "
            "into it, answers differ a little",
        )
    folder = source.folder if source.adapter is None else base_folder(source)
    config = text_config(folder)
    asked = None if config is None else config.get("dtype", config.get("torch_dtype"))
    compute = made["dtype"]["compute"]
    if asked is None:
        yield VerifyFinding(
            check="precision", level="unknown", message="no config.json says the model's type"
        )
    elif {asked, compute} == {"float16", "bfloat16"}:
        yield VerifyFinding(
            check="precision",
            level="differs",
            message=f"trained in {compute}, and config.json asks for {asked}, which has another range",
            fix=f"serve with dtype {compute} (vLLM: --dtype {compute})",
        )
    else:
        yield VerifyFinding(
            check="precision",
            level="equal" if asked == compute else "note",
            message=f"trained in {compute}; config.json asks for {asked}",
        )


def _embeddings(source: ModelSource, vocabulary: int) -> Iterator[VerifyFinding]:
    folder = source.folder if source.adapter is None else base_folder(source)
    rows = None
    if folder is not None:
        # The embedding rows that an adapter has trained are beside it.
        found = safetensors.tensors(folder)
        if source.adapter is not None:
            found |= safetensors.tensors(source.folder)
        sizes = [
            tensor["shape"][0]
            for name, tensor in found.items()
            if name.endswith("embed_tokens.weight") and "lora_" not in name
        ]
        rows = sizes[-1] if sizes else None
    if rows is None:
        yield VerifyFinding(
            check="vocabulary", level="unknown", message="no embedding was found in the weights"
        )
    elif vocabulary > rows:
        yield VerifyFinding(
            check="vocabulary",
            level="differs",
            message=f"the tokenizer has ids up to {vocabulary - 1}, but the embedding has {rows} rows",
            fix="train with `resize_vocab: true` (LLaMA-Factory), or save the tokenizer that "
            "belongs to the model",
        )
    else:
        yield VerifyFinding(
            check="vocabulary", level="equal", message=f"{vocabulary} token ids, {rows} rows of embedding"
        )


def served_tokenizer(source: ModelSource) -> Path:
    """Return the folder of the tokenizer beside the weights, or else beside their base.

    Raises:
        TunebookError: There is none on this machine.
    """
    for folder in (source.folder, base_folder(source)):
        if folder is not None and any(
            (folder / name).is_file() for name in ("tokenizer.json", "tokenizer_config.json")
        ):
            return folder
    raise TunebookError(
        f"{source.folder}: there is no tokenizer in it, and its base {source.base!r} is not on this machine",
        fix="save the tokenizer beside the weights, or download the base model",
    )


def base_folder(source: ModelSource) -> Path | None:
    """Return the folder of the base model, where it is on this machine."""
    return None if source.base is None else local_folder(source.base, source.revision)


def chat_template_of(folder: Path) -> str | None:
    """Return the chat template in a folder."""
    file = folder / "chat_template.jinja"
    if file.is_file():
        return file.read_text(encoding="utf-8")
    found = read_json(folder / "tokenizer_config.json").get("chat_template")
    return found if isinstance(found, str) else None


def template_changed(source: ModelSource, folder: Path) -> bool:
    """Whether the saved chat template is another than the one that training saved."""
    if source.contract is None:
        return False
    trained: str | None = source.contract["template"]["chat_template_sha256"]
    return contract.text_sha256(chat_template_of(folder)) != trained


def generation_eos(source: ModelSource) -> tuple[list[int] | None, str]:
    """Return the ids that end a generation, and the file that says so; None where no file does."""
    folder = source.folder if source.adapter is None else base_folder(source)
    for name in ("generation_config.json", "config.json"):
        if folder is None or not (folder / name).is_file():
            continue
        found = read_json(folder / name).get("eos_token_id")
        if found is not None:
            return (list(found) if isinstance(found, list) else [int(found)]), str(folder / name)
    return None, str((folder or source.folder) / "generation_config.json")


def text_config(folder: Path | None) -> dict[str, Any] | None:
    """Return the language model's part of a folder's `config.json`; None where there is none."""
    if folder is None or not (folder / "config.json").is_file():
        return None
    config = read_json(folder / "config.json")
    text = config.get("text_config")
    return {**config, **text} if isinstance(text, dict) else config


def read_json(path: Path) -> dict[str, Any]:
    """Return what a file holds; empty where it is not there, or is not an object.

    Raises:
        TunebookError: It is not JSON.
    """
    if not path.is_file():
        return {}
    try:
        found = files.read_json(path)
    except ValueError as err:
        raise TunebookError(f"{path}: is not JSON: {err}", fix="save it again") from err
    return found if isinstance(found, dict) else {}
