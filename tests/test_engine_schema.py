"""The snapshot of an engine's keys is chosen by the version that is installed."""

import json
from pathlib import Path

import pytest

from tunebook.engines import schema


@pytest.mark.parametrize(
    ("installed", "chosen"),
    [
        ("0.10.0", "0.10.0"),
        ("0.9.5", "0.9.5"),
        ("0.9.5+cu128", "0.9.5"),
        ("0.10", "0.10.0"),
        ("0.9.6.dev0", "0.9.5"),
        ("0.11.0rc1", "0.10.0"),
        ("0.9.4", "0.9.5"),  # older than all: the oldest is the nearest
        (None, "0.10.0"),
    ],
)
def test_the_same_version_or_the_next_one_below_is_chosen(installed, chosen):
    # In alphabetical order 0.9.5 comes last.
    assert schema.nearest_version(["0.9.5", "0.10.0"], installed) == chosen


def environment(folder: Path, version: str) -> Path:
    info = folder / "lib" / "python3.11" / "site-packages" / f"llamafactory-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: llamafactory\nVersion: {version}\n")
    return folder


@pytest.mark.parametrize(("installed", "chosen"), [("0.9.5", "0.9.5"), ("0.10.1", "0.10.0")])
def test_the_environment_that_would_train_decides(tmp_path, monkeypatch, installed, chosen):
    for version in ("0.9.5", "0.10.0"):
        (tmp_path / f"llamafactory-{version}.json").write_text(json.dumps({"version": version}))
    monkeypatch.setattr(schema, "_FOLDER", tmp_path)
    monkeypatch.setenv("TUNEBOOK_LLAMAFACTORY_ENV", str(environment(tmp_path / "env", installed)))
    schema.load_schema.cache_clear()
    try:
        assert schema.load_schema("llamafactory")["version"] == chosen
    finally:
        schema.load_schema.cache_clear()
