"""Secrets in a recipe: it is kept in the run folder and shared."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tunebook.checks.findings import Finding
    from tunebook.checks.subject import Subject

_SECRET_KEYS = re.compile(
    r"(?:^|_)(?:hub_token|api_key|access_key|secret|password)$|^hf_token$|^ms_hub_token$|^om_hub_token$"
)
_SECRET_VALUES = re.compile(
    r"\bhf_[A-Za-z0-9]{16,}\b|\bsk-[A-Za-z0-9_-]{16,}\b|\bgh[pousr]_[A-Za-z0-9]{20,}\b|\bAKIA[0-9A-Z]{16}\b"
    r"|\bwandb_v\d+_[A-Za-z0-9_-]{16,}\b|(?<=://)[^/\s:@]+:[^/\s@]+(?=@)"
)
_VARIABLES = {
    "hf_hub_token": "HF_TOKEN",
    "hub_token": "HF_TOKEN",
    "hf_token": "HF_TOKEN",
    "swanlab_api_key": "SWANLAB_API_KEY",
    "comet_api_key": "COMET_API_KEY",
}


def check_secrets(subject: Subject) -> Iterator[Finding]:
    """`secret`: the value itself is never shown."""
    for path, place in subject.places.items():
        raw = place.raw
        key = re.sub(r"\[\d+\]$", "", path).rpartition(".")[2]
        if not raw or "<" in raw or raw.lower() in ("null", "none", "true", "false"):
            continue
        if _SECRET_KEYS.search(key) or _SECRET_VALUES.search(raw):
            found = subject.finding(
                path,
                rule="secret",
                severity="error",
                message="a secret: the run folder would keep a copy of it",
                fix=f"remove it and set {_VARIABLES.get(key, 'an environment variable')} instead",
            )
            yield replace(found, text=f"{key}: ...")
