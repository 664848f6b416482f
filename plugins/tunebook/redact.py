"""Takes secrets out of everything that a report shows."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

MARK = "[redacted]"

# A word of its own in the key, so that tokenizer and max_new_tokens pass. `token` counts only at its end:
# token_accuracy and moe_token_dispatcher_type are about tokens of text.
_SECRET_KEY = re.compile(
    r"(?:^|[^a-z])"
    r"(?:token(?:[^a-z]*(?:value|string|secret|key|id|\d+))?$"
    r"|(?:secret|password|passwd|pwd|api_?key|access_?key|private_?key|credentials?|auth)(?:$|[^a-z]))"
)
_HARMLESS_KEY = re.compile(
    r"^(?:(?:bos|eos|pad|unk|cls|sep|mask|image|video|audio|stop|special|add|skip|split|new|resize)_.*|.*_token_ids?)$"
)
_ASSIGNED = re.compile(
    r"(?i)((?:^|[^a-z])[\w-]*(?:token|secret|password|passwd|api[_-]?key|access[_-]?key|private[_-]?key)"
    r"[\"']?\s*(?:=|:\s|:(?=[\"'])|\s(?=[^\s=:]{16,}))\s*[\"']?)([^\s\"',;&}\]]{4,})"
)
_PATTERNS = [
    re.compile(pattern)
    for pattern in (
        # Bounded only by letters and digits: a key may be part of a name, as in set_ghp_....
        r"(?<![A-Za-z0-9])hf_[A-Za-z0-9]{16,}(?![A-Za-z0-9])",
        r"(?<![A-Za-z0-9])sk-[A-Za-z0-9_-]{16,}(?![A-Za-z0-9])",
        r"(?<![A-Za-z0-9])gh[pousr]_[A-Za-z0-9]{20,}(?![A-Za-z0-9])",
        r"(?<![A-Za-z0-9])github_pat_[A-Za-z0-9_]{20,}(?![A-Za-z0-9])",
        r"(?<![A-Za-z0-9])glpat-[A-Za-z0-9_-]{16,}(?![A-Za-z0-9])",
        r"(?<![A-Za-z0-9])AKIA[0-9A-Z]{16}(?![A-Za-z0-9])",
        r"(?<![A-Za-z0-9])AIza[0-9A-Za-z_-]{35}(?![A-Za-z0-9])",
        r"(?<![A-Za-z0-9])xox[abprs]-[A-Za-z0-9-]{10,}(?![A-Za-z0-9])",
        r"(?<![A-Za-z0-9])wandb_v\d+_[A-Za-z0-9_-]{16,}(?![A-Za-z0-9])",
        r"(?<![A-Za-z0-9])ms-[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}(?![A-Za-z0-9])",
        r"(?<![A-Za-z0-9])eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}",
        r"-----BEGIN [A-Z ]*PRIVATE KEY-----[\s\S]*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)",
        r"(?<=://)[^/\s:@]*:[^/\s@]+(?=@)",
        r"(?i)(?<=bearer )[A-Za-z0-9._~+/-]{12,}=*",
    )
]
# W&B keys are 40 hexadecimal digits, and so are git commits: only those that a line calls a commit stay.
_FORTY_HEX = re.compile(r"(?<![0-9A-Za-z])[0-9a-f]{40}(?![0-9A-Za-z])")
_IS_HASH = re.compile(r"(?i)commit|revision|sha|hash|git|snapshots/|digest")


def redact(value: Any, key: str = "") -> Any:
    """A copy of nested mappings, lists and texts with every secret replaced by `[redacted]`.

    A text goes whole where its key says that it is a secret; elsewhere only what looks like one does.

    >>> redact({"hub_token": "hf_abc", "max_new_tokens": 16, "url": "http://me:pw@host/x"})
    {'hub_token': '[redacted]', 'max_new_tokens': 16, 'url': 'http://[redacted]@host/x'}
    """
    if isinstance(value, Mapping):
        return {name: redact(entry, str(name)) for name, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [redact(entry, key) for entry in value]
    if not isinstance(value, str) or not value:
        return value
    return MARK if _is_secret_key(key) else redact_text(value, key)


def redact_text(text: str, key: str = "") -> str:
    """`text` without what looks like a secret; `key` names what the text is, for git hashes.

    >>> redact_text("WANDB_API_KEY=0123456789abcdef0123456789abcdef01234567 llamafactory-cli train")
    'WANDB_API_KEY=[redacted] llamafactory-cli train'
    """
    text = _ASSIGNED.sub(_assigned, text)
    for pattern in _PATTERNS:
        text = pattern.sub(MARK, text)
    if not _IS_HASH.search(key):
        text = _FORTY_HEX.sub(_unless_hash, text)
    return text


def _is_secret_key(key: str) -> bool:
    lower = key.lower()
    return bool(_SECRET_KEY.search(lower)) and not _HARMLESS_KEY.match(lower)


def _assigned(match: re.Match[str]) -> str:
    name = re.split(r"[\s\"'=:,{(]+", match[1].strip(" \"'=:"))[-1].lower().lstrip("-")
    if _HARMLESS_KEY.match(name.replace("-", "_")) or match[2].lower() in {"null", "none", "true", "false"}:
        return match[0]
    return match[1] + MARK


def _unless_hash(match: re.Match[str]) -> str:
    before = match.string[: match.start()].rsplit("\n", 1)[-1][-40:]
    return match[0] if _IS_HASH.search(before) else MARK
