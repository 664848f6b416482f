"""A model's tokenizer as the engines load it: the files on this machine, special tokens and chat template.

Nothing is downloaded. What transformers does to a tokenizer.json while it loads it is done here too, as far
as it changes counts (TokenizersBackend.__init__ of transformers 5.5 and 5.16).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunebook.errors import TunebookError
from tunebook.lengths.counting import TOKENIZER_FILE, read_tokenizer
from tunebook.models import source

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_NAMED = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
_EXTRA = ("additional_special_tokens", "extra_special_tokens")
_FLAGS = ("single_word", "lstrip", "rstrip", "normalized", "special")

# Classes whose tokenizer is that of tokenizer.json. transformers 5 builds others anew by their own code;
# of these two come out alike, and what it has saved itself (with the key `backend`) does not change any more.
_FROM_FILE = frozenset({"TokenizersBackend", "PreTrainedTokenizerFast"})
_REBUILT_ALIKE = frozenset({"Qwen2Tokenizer", "Qwen2TokenizerFast", "GemmaTokenizer", "GemmaTokenizerFast"})


@dataclass(slots=True, kw_only=True)
class ModelTokenizer:
    """A tokenizer with what stands beside it in the model's folder."""

    folder: Path
    tokenizer: Any
    """A `tokenizers.Tokenizer` that has every added token."""
    special: dict[str, str]
    """Named special tokens, e.g. `{"eos_token": "<|im_end|>"}`; one that the model lacks is left out."""
    chat_template: str | None
    """Jinja text; None where the model has none."""
    adds_bos: bool
    adds_eos: bool
    """Whether tokenising with special tokens puts BOS before a text and EOS behind it."""

    def add_special(self, tokens: Iterable[str]) -> None:
        """Make texts special tokens, as `add_special_tokens` does; known ones keep their ids."""
        from tokenizers import AddedToken

        self.tokenizer.add_special_tokens([AddedToken(token, normalized=False) for token in tokens])


def find_folder(model: str, *, revision: str, cache_dir: str | None, key: str) -> Path:
    """Return the folder on this machine that holds a model's tokenizer.

    Args:
        model: A local folder, or a name on the Hugging Face hub whose files are in the cache.
        revision: Branch, tag or commit on the hub.
        cache_dir: The recipe's own cache folder; None for the hub client's.
        key: The recipe's key that names the model, for messages.

    Raises:
        TunebookError: There is no tokenizer.json here.
    """
    local = Path(model).expanduser()
    if (local / TOKENIZER_FILE).is_file():
        return local
    if local.is_dir():
        raise TunebookError(
            f"{key}: {local} holds no {TOKENIZER_FILE}",
            fix=f'write one: python -c "from transformers import AutoTokenizer as t; '
            f"t.from_pretrained('{model}').save_pretrained('{model}')\"",
        )
    found = source.snapshot(model, revision) if cache_dir is None else _own_cache(model, revision, cache_dir)
    if found is not None and (found / TOKENIZER_FILE).is_file():
        return found
    raise TunebookError(
        f"{key}: the tokenizer of {model} is not on this machine",
        fix=f"download it: `hf download {model} --include '*.json' '*.jinja'`, or name a local folder: "
        f"{key}=PATH, or count characters with --chars",
    )


def load(folder: Path) -> ModelTokenizer:
    """Read the tokenizer of a model's folder as transformers 5 would load it.

    Raises:
        TunebookError: A file cannot be read, or is not what transformers makes of it.
    """
    config = _read_json(folder / "tokenizer_config.json")
    named = {**_read_json(folder / "special_tokens_map.json"), **config}
    special = {name: _content(named[name]) for name in _NAMED if _content(named.get(name))}
    tokenizer = read_tokenizer(folder)
    _add_tokens(tokenizer, config, [*special.values(), *_extra_tokens(named)])
    adds_bos, adds_eos = _wraps(tokenizer, config, special)
    kind = str(config.get("tokenizer_class") or "TokenizersBackend")
    if kind not in _FROM_FILE | _REBUILT_ALIKE and "backend" not in config:
        raise TunebookError(
            f"{folder}: the tokenizer is of class {kind}, which transformers 5 builds anew by its own code: "
            f"{TOKENIZER_FILE} may not be what the engine uses",
            fix='save it as the engine loads it, and name that folder: python -c "from transformers import '
            f"AutoTokenizer; AutoTokenizer.from_pretrained('{folder}').save_pretrained('FOLDER')\"",
        )
    return ModelTokenizer(
        folder=folder, tokenizer=tokenizer, special=special, chat_template=_chat_template(folder, config),
        adds_bos=adds_bos, adds_eos=adds_eos,
    )  # fmt: skip


def _own_cache(model: str, revision: str, cache_dir: str) -> Path | None:
    repository = Path(cache_dir).expanduser() / f"models--{model.replace('/', '--')}"
    reference = repository / "refs" / revision
    commit = reference.read_text(encoding="ascii").strip() if reference.is_file() else revision
    folder = repository / "snapshots" / commit
    return folder if folder.is_dir() else None


def _read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as err:
        raise TunebookError(f"{path}: is no JSON: {err}", fix="download the file again") from err
    return values if isinstance(values, dict) else {}


def _content(token: Any) -> str:
    """A token's text: files give it bare, or as an object with flags."""
    return str(token.get("content") or "") if isinstance(token, dict) else str(token or "")


def _extra_tokens(config: Mapping[str, Any]) -> list[str]:
    found: list[str] = []
    for key in _EXTRA:
        extra = config.get(key) or []
        found += [_content(token) for token in (extra.values() if isinstance(extra, dict) else extra)]
    return found


def _add_tokens(tokenizer: Any, config: Mapping[str, Any], special: Iterable[str]) -> None:
    """Add what tokenizer_config.json adds to tokenizer.json: tokens with other flags, or new ones."""
    from tokenizers import AddedToken

    def key(token: Any) -> tuple[Any, ...]:
        return (token.content, *(getattr(token, flag) for flag in _FLAGS))

    known = {key(token) for token in tokenizer.get_added_tokens_decoder().values()}
    declared = config.get("added_tokens_decoder") or {}
    for _, values in sorted(declared.items(), key=lambda item: int(item[0])):
        token = AddedToken(
            values["content"], **{flag: bool(values.get(flag, False)) for flag in _FLAGS if flag in values}
        )
        if key(token) not in known:
            tokenizer.add_tokens([token])
    names = {token.content for token in tokenizer.get_added_tokens_decoder().values()}
    tokenizer.add_special_tokens([AddedToken(token) for token in special if token not in names])


def _wraps(tokenizer: Any, config: Mapping[str, Any], special: Mapping[str, str]) -> tuple[bool, bool]:
    """Whether tokenising with special tokens adds BOS and EOS."""
    if "add_bos_token" in config or "add_eos_token" in config or tokenizer.post_processor is None:
        return (
            bool(config.get("add_bos_token")) and "bos_token" in special,
            bool(config.get("add_eos_token")) and "eos_token" in special,
        )
    bare, wrapped = (tokenizer.encode("a", add_special_tokens=add).tokens for add in (False, True))
    start = next((at for at in range(len(wrapped)) if wrapped[at : at + len(bare)] == bare), 0)
    return (
        start > 0 and wrapped[0] == special.get("bos_token"),
        len(wrapped) > start + len(bare) and wrapped[-1] == special.get("eos_token"),
    )


def _chat_template(folder: Path, config: Mapping[str, Any]) -> str | None:
    file = folder / "chat_template.jinja"
    if file.is_file():
        return file.read_text(encoding="utf-8")
    found = config.get("chat_template")
    if isinstance(found, list):
        by_name = {entry.get("name"): entry.get("template") for entry in found if isinstance(entry, dict)}
        found = by_name.get("default")
    return found if isinstance(found, str) else None
