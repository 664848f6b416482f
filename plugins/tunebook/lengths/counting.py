"""Counts tokens fast and exactly: by fastokens where it agrees with `tokenizers`, by `tokenizers` elsewhere.

fastokens (https://github.com/crusoecloud/fastokens) is about thirty times as fast. Whether it makes the same
tokens is not taken on trust: the texts to be counted themselves are tokenised by both until enough have been,
and at the first difference fastokens is out, for good.
"""

from __future__ import annotations

import importlib.metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunebook.errors import TunebookError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

TOKENIZER_FILE = "tokenizer.json"

CHECKED_TEXTS = 500
"""Texts that both tokenizers must agree on, token for token."""

_LATER_CHECKS = 100
_CHECKED_CHARACTERS = 600
"""A longer text is compared by its beginning, but for the first few."""
_WHOLE_TEXTS = 2
_SLOW_BATCH_CHARACTERS = 1 << 20
"""Text given to `tokenizers` at a time: its result takes many times the memory of the text."""

_PROBES = (
    *("", " ", "  ", "\n", "\n\n\n", " \n \n", "\t\t", "\r\n", "\u00a0\u3000\u200b\ufeff", "a  b   c    d"),
    *("don't we'LL I'M they're", "3.14159 1,000,000 0x1F 12345678901234567890", "\u00bd \u2167 \u0663\u0664"),
    *("e\u0301 \u00e9 A\u030a \u00c5 \u1e9b\u0323 \ufb01", "\u0130stanbul \u00df \u017f n\u0303o n\u0303"),
    *("\u65e5\u672c\u8a9e\u306e\u6587\u7ae0\u3002", "\u4f60\u597d\uff0c\u4e16\u754c"),
    *("\ud55c\uad6d\uc5b4 \uac00\u1100\u1161", "\u0e44\u0e17\u0e22 \u10e5\u10d0\u10e0 \u1230\u120b\u121d"),
    *("\u0627\u0644\u0639\u0631\u0628\u064a\u0629", "\u05e9\u05b8\u05dc\u05d5\u05b9\u05dd"),
    *("\u0939\u093f\u0928\u094d\u0926\u0940", "\u13e3\u13b3\u13a9", "\u2764\ufe0f \U0001f1e9\U0001f1ea"),
    *("\U0001f468\u200d\U0001f469\u200d\U0001f467", "\U0010ffff\U000e0041", "\ufffd\ufffe", "\x00\x01\x7f"),
    *(
        "def f(x):\n    return {'a': [1, 2]}\n",
        "```python\nprint('x')\n```",
        "<b>&amp;</b> https://x.y/z?a=b#c",
    ),
    *("_" * 70, "=" * 33 + "\n" + "-" * 33, "a" * 300, "#### 42", "<<48/2=24>>24", "| a | b |\n|---|---|\n"),
    *("\\frac{1}{2} \\alpha_{i}^{2}", "\u2014 \u201cx\u201d \u2026"),
)
"""Scripts, digits, marks, blanks, line ends, emoji and code: what tokenizers have been seen to differ on."""


class FastDiffers(BaseException):
    """fastokens made other tokens of a text than the tokenizer: nothing it has made counts.

    Not an Exception: an engine that catches those of bad rows must not swallow it.
    """


class CheckedEncoder:
    """Gives the token ids of one text after another by fastokens, compared with the tokenizer's own.

    The first `CHECKED_TEXTS` texts and every hundredth after them are encoded by both.

    Args:
        tokenizer: A `tokenizers.Tokenizer` with every token that is added to it.
        exact: Gives the ids of a text as the tokenizer itself does, without special tokens around it.

    Raises:
        FastDiffers: Already on the texts that are always tried. A call raises it too.
        ValueError: fastokens is not installed, or cannot read the tokenizer.
    """

    def __init__(self, tokenizer: Any, exact: Callable[[str], list[int]]) -> None:
        fast = _fastokens(tokenizer)
        if fast is None:
            raise ValueError("fastokens is not installed, or does not know this kind of tokenizer")
        self._fast, self._exact = fast, exact
        self._texts = self.compared = 0
        for text in _PROBES:
            self._compare(text)

    def __call__(self, text: str) -> list[int]:
        """Return the ids of a text."""
        self._texts += 1
        if self.compared < CHECKED_TEXTS or self._texts % _LATER_CHECKS == 0:
            self._compare(text if self._texts <= _WHOLE_TEXTS else text[:_CHECKED_CHARACTERS])
        ids: list[int] = self._fast.encode(text).ids
        return ids

    def _compare(self, text: str) -> None:
        if self._exact(text) != self._fast.encode(text).ids:
            raise FastDiffers(text[:200])
        self.compared += 1


class Counter:
    """Counts the tokens of texts, each by itself and without what a post-processor adds.

    Args:
        tokenizer: A `tokenizers.Tokenizer`. It is not to be changed afterwards.

    A counter is a function of a list of texts; `by` says which library has counted so far.
    """

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self._encode: CheckedEncoder | None
        try:
            self._encode = CheckedEncoder(tokenizer, self.ids)
        except (ValueError, FastDiffers):
            self._encode = None

    @property
    def by(self) -> str:
        """Who counts, with version, and for fastokens how many texts were compared."""
        return counted_by(None if self._encode is None else self._encode.compared)

    @property
    def fast(self) -> bool:
        """Whether fastokens is in use: installed, and no difference found so far."""
        return self._encode is not None

    def __call__(self, texts: Sequence[str]) -> list[int]:
        """Return the number of tokens of each text."""
        if self._encode is not None:
            try:
                return [len(self._encode(text)) for text in texts]
            except FastDiffers:
                self._encode = None
        return self._count_exactly(texts)

    def ids(self, text: str) -> list[int]:
        """Return the token ids of one text, by `tokenizers`."""
        found: list[int] = self.tokenizer.encode(text, add_special_tokens=False).ids
        return found

    def _count_exactly(self, texts: Sequence[str]) -> list[int]:
        counts: list[int] = []
        batch: list[str] = []
        characters = 0
        for text in texts:
            batch.append(text)
            characters += len(text)
            if characters > _SLOW_BATCH_CHARACTERS:
                counts += self._count_batch(batch)
                batch, characters = [], 0
        return counts + self._count_batch(batch)

    def _count_batch(self, texts: list[str]) -> list[int]:
        return [len(one.ids) for one in self.tokenizer.encode_batch_fast(texts, add_special_tokens=False)]


def counted_by(compared: int | None) -> str:
    """Return which libraries have counted, with their versions.

    Args:
        compared: Texts on which fastokens was compared with `tokenizers`; None where it has not counted.
    """
    exact = f"tokenizers {importlib.metadata.version('tokenizers')}"
    if compared is None:
        return exact
    return f"fastokens {importlib.metadata.version('fastokens')}, {compared} texts compared with {exact}"


def counter(tokenizer_path: str | Path) -> Counter:
    """Return a function that counts the tokens of texts with the tokenizer at that place.

    Args:
        tokenizer_path: A `tokenizer.json`, or a folder that holds one.

    Raises:
        TunebookError: There is none, it cannot be read, or the `tokenizers` library is not installed.
    """
    return Counter(read_tokenizer(Path(tokenizer_path)))


def read_tokenizer(path: Path) -> Any:
    """Return the `tokenizers.Tokenizer` of a file or folder, with truncation and padding off.

    Raises:
        TunebookError: As `counter`.
    """
    try:
        from tokenizers import Tokenizer
    except ImportError as err:
        raise TunebookError(
            "counting tokens needs the tokenizers library, which both engines bring along",
            fix="run this in an engine's environment, `pip install tokenizers`, or count with --chars",
        ) from err
    file = path / TOKENIZER_FILE if path.is_dir() else path
    if not file.is_file():
        raise TunebookError(
            f"there is no {file}",
            fix="name a folder with a tokenizer.json; AutoTokenizer.save_pretrained writes one",
        )
    try:
        tokenizer = Tokenizer.from_file(str(file))
    except Exception as err:  # the library raises plain Exception
        raise TunebookError(
            f"{file}: this tokenizers library cannot read it as a tokenizer: {err}",
            fix="download the file again, or update the tokenizers library",
        ) from err
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _fastokens(tokenizer: Any) -> Any:
    """The same tokenizer in fastokens; None where that is not installed or cannot read it."""
    try:
        from fastokens import Tokenizer
    except ImportError:
        return None
    try:
        return Tokenizer.from_json_str(tokenizer.to_str())
    except ValueError:
        # Parts of a tokenizer that it does not know, such as most of SentencePiece's.
        return None
