"""What cutting needs of a model's own tokenizer. No model and no torch is loaded."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from tunebook.errors import TunebookError
from tunebook.lengths.counting import TOKENIZER_FILE, Counter, counter
from tunebook.models import source

if TYPE_CHECKING:
    from collections.abc import Sequence


class Tokens(Protocol):
    """Counts tokens. No special tokens are added or counted."""

    def count(self, texts: Sequence[str]) -> list[int]:
        """Return the number of tokens of each piece, encoded by itself."""
        ...

    def count_words(self, texts: Sequence[str]) -> list[int]:
        """Return the number of tokens of each of many short texts."""
        ...

    def starts(self, text: str) -> list[int]:
        """Return for each token of `text` the position of its first character, ascending."""
        ...


def tokenizer_file(model: str) -> Path:
    """Return the `tokenizer.json` of a model.

    Args:
        model: The file, the folder that holds it, or a model's name on the hub, which then must have been
            downloaded.

    Raises:
        TunebookError: There is none.
    """
    path = Path(model).expanduser()
    folder = path if path.exists() else source.snapshot(model)
    if folder is None:
        raise TunebookError(
            f"there is no tokenizer {model}: no such file or folder, and no such model in the hub's cache",
            fix=f"give the folder that holds {TOKENIZER_FILE}, or download the model first",
        )
    file = folder / TOKENIZER_FILE if folder.is_dir() else folder
    if not file.is_file():
        raise TunebookError(
            f"{folder} holds no {TOKENIZER_FILE}",
            fix="save the fast tokenizer there: AutoTokenizer.from_pretrained(MODEL).save_pretrained(FOLDER)",
        )
    return file


def load(file: Path) -> Tokens:
    """Read a tokenizer.

    Raises:
        TunebookError: The file is no tokenizer, or the package `tokenizers` is not installed.
    """
    return _FileTokens(counter(file))


class _FileTokens:
    """Two counters: each compares its libraries on what it is given, and words prove nothing for pieces."""

    def __init__(self, pieces: Counter) -> None:
        self._pieces = pieces
        self._words = Counter(pieces.tokenizer)

    def count(self, texts: Sequence[str]) -> list[int]:
        return self._pieces(texts) if texts else []

    def count_words(self, texts: Sequence[str]) -> list[int]:
        return self._words(texts) if texts else []

    def starts(self, text: str) -> list[int]:
        offsets = self._pieces.tokenizer.encode(text, add_special_tokens=False).offsets
        return [start for start, _ in offsets]
