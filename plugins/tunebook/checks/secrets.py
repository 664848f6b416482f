"""Secrets in a recipe: it is kept in the run folder and shared."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

from tunebook.checks.number_like import as_number
from tunebook.redact import redact

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tunebook.checks.findings import Finding
    from tunebook.checks.subject import Subject

_VARIABLES = {
    "hf_hub_token": "HF_TOKEN",
    "hub_token": "HF_TOKEN",
    "swanlab_api_key": "SWANLAB_API_KEY",
    "comet_api_key": "COMET_API_KEY",
}
_SECRET_KEY = re.compile(r"(?:token|key|secret|password|passwd|credentials?)$", re.IGNORECASE)
_LIST_POSITION = re.compile(r"\[\d+\]$")


def check_secrets(subject: Subject) -> Iterator[Finding]:
    """`secret`; the value itself is never shown."""
    for path, place in subject.places.items():
        raw = place.raw
        key = _LIST_POSITION.sub("", path).rpartition(".")[2]
        # A placeholder such as <your key> is no secret.
        if not raw or "<" in raw or raw.lower() in ("null", "~", "none", "true", "false"):
            continue
        # Nor is a number one.
        named = _SECRET_KEY.search(key) and as_number(raw) is None and redact(raw, key) != raw
        if named or redact(raw) != raw:
            finding = subject.finding(
                path,
                rule="secret",
                severity="error",
                message="a secret: the run folder would keep a copy of it",
                fix=f"remove it and set {_VARIABLES.get(key, 'an environment variable')} instead",
            )
            yield replace(finding, text=f"{key}: ...")
