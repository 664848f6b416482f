"""Files written so that a crash leaves the old one or the new one, never half of one."""

from __future__ import annotations

import glob
import hashlib
import json
import os
import shutil
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


def write_atomic(path: Path, content: str | bytes) -> None:
    """Replace `path` by `content` in one step, making its folder where there is none.

    Readers see the old file or the new one. Text is written as UTF-8. After return the bytes are on disk.
    """
    with open_atomic(path, "wb") as stream:
        stream.write(content.encode("utf-8") if isinstance(content, str) else content)


@contextmanager
def open_atomic(path: Path, mode: Literal["w", "wb"] = "w") -> Iterator[IO[Any]]:
    """Open a file that appears whole when the block has ended well, or not at all; as `write_atomic`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_beside(path)
    try:
        with temporary.open(mode, encoding="utf-8" if mode == "w" else None) as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
    except BaseException as error:
        with suppress(OSError):
            temporary.unlink()
        if isinstance(error, OSError) and error.filename in (None, str(temporary)):
            error.filename = str(path)
        raise
    sync_folder(path.parent)


def temporary_beside(path: Path) -> Path:
    """Return a hidden name for what is to become `path`; delete what killed processes left under such names.

    In the same folder, since a rename is only atomic within one file system; by process, since two may write
    the same file, and by machine and process namespace, since they may share a disk.
    """
    try:
        space = Path("/proc/self/ns/pid").stat().st_ino
    except OSError:
        space = 0
    # A name may have 255 bytes; these are for what is added.
    name = path.name.encode()[:120].decode(errors="ignore")
    ours = f".{name}.{os.uname().nodename[:60]}-{space}-"
    for left in path.parent.glob(f"{glob.escape(ours)}*.tmp"):
        pid = left.name.removeprefix(ours).removesuffix(".tmp")
        if pid.isdecimal() and not _is_alive(int(pid)):
            left.unlink(missing_ok=True)
    return path.with_name(f"{ours}{os.getpid()}.tmp")


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except OSError as error:
        return not isinstance(error, ProcessLookupError)
    return True


def parse_json(text: str | bytes) -> Any:
    """Return the value of a JSON text; ValueError where it is none, also where it is nested too deeply."""
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def read_json(path: Path) -> Any:
    """Return the value of a JSON file; OSError where it cannot be read, ValueError where it is no JSON."""
    return parse_json(path.read_bytes())


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON, keys in the order given, by `write_atomic`."""
    write_atomic(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def append_jsonl(path: Path, record: Mapping[str, Any]) -> None:
    """Append `record` as one line of JSON, making the file's folder where there is none.

    The line goes out in one write, so lines of several processes do not mix.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    line = json.dumps(record, ensure_ascii=False) + "\n"
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    try:
        os.write(descriptor, line.encode("utf-8"))
    finally:
        os.close(descriptor)


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal, read in constant memory."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def free_bytes(path: Path) -> int:
    """Return the bytes free to this user on the file system that `path` is on, or would be made on."""
    folder = path.absolute()
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free


def sync_folder(folder: Path) -> None:
    """Put the names in a folder on disk. Some network file systems refuse; the files are synced anyway."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
