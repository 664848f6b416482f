"""What is wrong with a row; a bad row stops the reading, or is left out and listed."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import orjson

from tunebook.data.rows import parse_json
from tunebook.errors import TunebookError
from tunebook.splits.sources import SourceFile, line_at

BLANKS = b" \t\r\n"

_MAX_LISTED = 1000


class BadRow(NamedTuple):
    """A row that is left out."""

    file: str
    line: int
    """From 1, where the row begins."""
    problem: str


@dataclass(slots=True, kw_only=True)
class Checks:
    """How rows are checked, and what was found."""

    parse_json: bool
    """Read each JSON row, rather than look at its first and last brace."""
    skip_bad: bool
    """Leave bad rows out and list them; else the first one ends the reading."""
    bad: list[BadRow] = field(default_factory=list)
    """The first thousand."""
    n_bad: int = 0
    slow: list[str] = field(default_factory=list)
    """Files that had to be read by the csv module, each with the reason."""

    def report(self, source: SourceFile, offset: int, problem: str) -> None:
        """Note a bad row, or raise.

        Raises:
            TunebookError: Bad rows are not to be skipped.
        """
        line = line_at(source.path, offset) if len(self.bad) < _MAX_LISTED else 0
        if not self.skip_bad:
            raise TunebookError(
                f"{source.path}, line {line}: {problem}",
                fix="correct or delete the row, or leave such rows out with --skip-bad",
            )
        self.n_bad += 1
        if len(self.bad) < _MAX_LISTED:
            self.bad.append(BadRow(str(source.path), line, problem))


def json_problem(text: bytes, *, parse: bool) -> str | None:
    """Return what is wrong with a JSON row; None where nothing is, "" where there is nothing at all.

    Args:
        text: The row, with or without its line ending.
        parse: Read it, rather than look at its first and last brace.
    """
    text = text.strip(BLANKS)
    if not text:
        return ""
    if text[:1] != b"{":
        return f"is no JSON object: it begins with {text[:20].decode('utf-8', 'replace')!r}"
    if not parse:
        return None if text[-1:] == b"}" else "is no JSON object: it does not end with }"
    try:
        orjson.loads(text)
    except orjson.JSONDecodeError:
        # Python's reader takes more: NaN, lone surrogates. It also words the fault by column.
        try:
            parse_json(text)
        except ValueError as err:
            return f"is no JSON: {err}"
    return None
