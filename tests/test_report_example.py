"""The committed example is whole, small, of the format of today, and names nobody's machine."""

import json
import re
from pathlib import Path

import pytest

from tunebook.report.records import FORMAT
from tunebook.report.render import outline

EXAMPLE = Path(__file__).parents[1] / "reports" / "example"
TEXTS = ["report.html", "report.json", "report.md", "study.md", "slides.md"]


@pytest.mark.parametrize("name", TEXTS)
def test_no_path_of_a_machine_stands_in_it(name):
    text = (EXAMPLE / name).read_text("utf-8")
    assert not re.findall(r"(?<![\w.])/(?:home|root|tmp|work|Users|mnt|data)/[^\s\"']*", text)


def test_the_host_is_left_out_and_both_engines_are_there():
    report = json.loads((EXAMPLE / "report.json").read_text("utf-8"))
    assert report["format"] == FORMAT
    assert {run["engine"] for run in report["runs"]} == {"llamafactory", "axolotl"}
    assert {run["provenance"]["host"] for run in report["runs"]} == {None}
    assert not any(run["path"].startswith("/") for run in report["runs"])


@pytest.mark.parametrize("name", ["report.md", "study.md", "slides.md"])
def test_every_picture_that_is_shown_lies_beside_it(name):
    shown = re.findall(r"!\[[^\]]*\]\(([^)]+)\)", (EXAMPLE / name).read_text("utf-8"))
    assert shown
    for picture in shown:
        assert (EXAMPLE / picture).read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("name", ["study", "slides"])
def test_its_outlines_are_those_that_are_written_today(name):
    report = json.loads((EXAMPLE / "report.json").read_text("utf-8"))
    assert (EXAMPLE / f"{name}.md").read_bytes() == outline(report, name)


def test_it_is_small():
    assert (EXAMPLE / "report.html").stat().st_size < 1.5e6
    assert sum(path.stat().st_size for path in EXAMPLE.iterdir()) < 5e6
