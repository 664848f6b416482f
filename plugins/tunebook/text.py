"""Numbers and texts as a reader is shown them, on pages and in the terminal."""

from __future__ import annotations

import base64
import hashlib
import math
import re
import unicodedata
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import jinja2

PROMPT_CHARACTERS = 300
ANSWER_CHARACTERS = 400
SPECIAL_TOKENS = re.compile(r"<\|[^|>]*\|>|</?s>|<(?:start|end)_of_turn>|<bos>|<eos>")


def normalised(text: str) -> str:
    """Return `text` without differences of blanks, case and Unicode form.

    >>> normalised("  The  CAT\\n")
    'the cat'
    """
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text)
    return " ".join(text.split()).casefold()


# C0 without tab and line feed, DEL and C1: a terminal takes them for commands; a return hides a line.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def without_controls(value: Any) -> Any:
    r"""Return nested mappings, lists and texts with control characters written out, as `\x1b`.

    For what comes from elsewhere (a model's answers, prompts, a server's errors) and is shown to people: in
    a terminal, or in a file that they `cat`.

    >>> without_controls({"said": "Yes\x1b[2J"})
    {'said': 'Yes\\x1b[2J'}
    """
    if isinstance(value, str):
        return _CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", value)
    if isinstance(value, dict):
        return {without_controls(key): without_controls(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [without_controls(entry) for entry in value]
    return value


def number(value: float) -> str:
    """Four significant digits, or three decimals for shares.

    >>> number(0.5), number(1.0), number(12345.6), number(0.00012)
    ('0.500', '1.000', '12,346', '0.00012')
    """
    if not math.isfinite(value):
        return str(value)
    size = abs(value)
    if size >= 10_000:
        return f"{value:,.0f}"
    if 0.01 <= size < 10 or size == 0:
        return f"{value:.3f}"
    return f"{value:.4g}"


def signed(value: float) -> str:
    """A difference with its sign.

    >>> signed(0.25), signed(-0.0), signed(-1.5)
    ('+0.250', '0.000', '-1.500')
    """
    return "0.000" if value == 0 else f"{'+' if value > 0 else '-'}{unsigned(value)}"


def unsigned(value: float) -> str:
    """The size of a difference, to three decimals unless it is very small or large.

    >>> unsigned(-0.0091134), unsigned(0.00012), unsigned(31.25)
    ('0.009', '0.00012', '31.25')
    """
    size = abs(value)
    if 0 < size < 0.001:
        return f"{size:.2g}"
    return f"{size:.3f}" if size < 10 else number(size)


def utc_now() -> str:
    """This moment, as records keep it."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def p_value(value: float) -> str:
    """A p-value in a table.

    >>> p_value(0.0004), p_value(0.04)
    ('< 0.001', '0.040')
    """
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def gib(size: float) -> str:
    """Bytes as GiB, rounded up: what is asked for must not look smaller than it is.

    >>> gib(2**30), gib(2**30 + 1)
    ('1 GiB', '1.1 GiB')
    """
    return f"{math.ceil(size / 2**30 * 10) / 10:g} GiB"


def markdown(text: object) -> str:
    """Text that GitHub shows as it is, in a table cell too."""
    escaped = re.sub(r"([\\`*_{}\[\]<>#|~$])", r"\\\1", str(text))
    return escaped.replace("\n", "<br>")


def cut(prompt: str, prefix: str = "") -> str:
    """At most `PROMPT_CHARACTERS` of a prompt: the end, where the question is, and a bit of the start.

    `prefix` is what all the shown prompts have in common, and is left out.

    >>> cut("the same instruction for all " + "x" * 400, "the same instruction for all ")[:6]
    '... xx'
    """
    shortened = prompt.removeprefix(prefix)
    lead = "... " if shortened is not prompt and len(shortened) < len(prompt) else ""
    if len(lead) + len(shortened) <= PROMPT_CHARACTERS:
        return lead + shortened
    head = 60
    tail = PROMPT_CHARACTERS - head - len(lead) - 5
    return f"{lead}{shortened[:head]} ... {shortened[-tail:]}"


def both_ends(text: str) -> str:
    """What an answer begins and ends with, without special tokens: what is read stands at one of the two."""
    text = SPECIAL_TOKENS.sub("", text).strip()
    half = (ANSWER_CHARACTERS - 5) // 2
    return text if len(text) <= ANSWER_CHARACTERS else f"{text[:half]} ... {text[-half:]}"


def script_hashes(*programs: str) -> str:
    """Return what a page's policy allows to run: these programs, each alone in its `<script>`, and no other.

    A text from outside that came through unescaped would still not run.

    >>> script_hashes("let a = 1;")
    "'sha256-xY6QKfH9PRsQnLz56nj6MBwiK5oHg+im1Jkpdp1x/Ck='"
    """
    digests = (hashlib.sha256(program.encode()).digest() for program in programs if program)
    return " ".join(f"'sha256-{base64.b64encode(digest).decode()}'" for digest in digests)


def templates(package: str, filters: Mapping[str, Callable[..., Any]]) -> jinja2.Environment:
    """Return the templates in the folder `templates` of a package; only those of HTML are escaped.

    Args:
        package: Its dotted name.
        filters: What the templates write numbers and texts with.
    """
    # Here, since most users of this module write no page.
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader(package),
        autoescape=jinja2.select_autoescape(enabled_extensions=("html.j2",), default=False),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= filters
    return environment
