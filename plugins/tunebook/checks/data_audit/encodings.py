"""The bytes of a text file: those that are no UTF-8, byte order marks, NULs, and text decoded twice."""

from __future__ import annotations

import codecs
import re
from typing import TYPE_CHECKING, NamedTuple

from tunebook.checks.data_audit.findings import Ledger, Place

if TYPE_CHECKING:
    from pathlib import Path

_BLOCK = 1 << 20
_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)

# UTF-8 that was read as Windows-1252 or Latin-1 and saved again, and what decoders put for bad bytes.
_MOJIBAKE = re.compile(r"Ã[\x80-\xbf€-™ƒŠŒŽœžŸ]|â€[\x80-\xbfœ™˜“”¢¦ž\x9d]|Â[\x80-\xbf]|ï¿½|ðŸ|\ufffd")


def check_bytes(path: Path, ledger: Ledger) -> None:
    """Read a text file once, in constant memory, and note what its bytes have wrong.

    Raises:
        OSError: It cannot be read.
    """
    decoder = codecs.getincrementaldecoder("utf-8")("strict")
    line, done, bad = 1, 0, _Bad(0, b"")
    with path.open("rb") as stream:
        while block := stream.read(_BLOCK):
            if done == 0 and block.startswith((codecs.BOM_UTF8, *_UTF16)):
                wide = block.startswith(_UTF16)
                rule, detail = ("bad-encoding", "it is UTF-16") if wide else ("byte-order-mark", None)
                ledger.add(rule, Place(path.name, None, 1), detail=detail)
                if wide:
                    return
            if b"\0" in block:
                _note_lines(block, re.compile(rb"\0"), line, path, ledger, "nul-character")
            try:
                decoder.decode(block)
            except UnicodeDecodeError:
                pending = decoder.getstate()[0]
                bad = _note_bad(pending + block, line, done - len(pending), path, ledger, bad.line)
                decoder.reset()
                decoder.decode(bad.cut)
            line += block.count(b"\n")
            done += len(block)
    try:
        decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        ledger.add("bad-encoding", Place(path.name, None, line), detail=f"the file is cut at byte {done}")


def mojibake(text: str) -> str | None:
    """Return what looks wrongly decoded, with what is around it; None where nothing does.

    >>> mojibake("it is cafÃ© time")
    'it is cafÃ© time'
    >>> mojibake("it is café time")
    """
    if text.isascii():
        return None
    found = _MOJIBAKE.search(text)
    return None if found is None else text[max(0, found.start() - 15) : found.end() + 15]


class _Bad(NamedTuple):
    line: int
    """The last one that was noted."""
    cut: bytes
    """Of the character that the block's end cuts."""


def _note_bad(block: bytes, line: int, offset: int, path: Path, ledger: Ledger, noted: int) -> _Bad:
    """Note each line behind `noted` in which a block holds bad bytes."""
    start, cut = 0, b""
    for text in block.split(b"\n"):
        try:
            text.decode()
        except UnicodeDecodeError as error:
            if start + len(text) == len(block) and error.reason == "unexpected end of data":
                cut = text[error.start :]
            elif line > noted:
                noted, at = line, offset + start + error.start
                detail = f"{text[error.start : error.end].hex(' ')} at byte {at} of the file"
                ledger.add("bad-encoding", Place(path.name, None, line), detail=detail)
        start += len(text) + 1
        line += 1
    return _Bad(noted, cut)


def _note_lines(
    block: bytes, wanted: re.Pattern[bytes], line: int, path: Path, ledger: Ledger, rule: str
) -> None:
    for number, text in enumerate(block.split(b"\n"), line):
        if wanted.search(text):
            ledger.add(rule, Place(path.name, None, number))
