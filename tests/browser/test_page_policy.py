"""A script that came into a page from outside does not run, and the page's own still do."""

# ruff: noqa: F811 - a fixture is imported by name
from __future__ import annotations

import json
from pathlib import Path

import pytest
from chromium_pages import browser  # noqa: F401
from click.testing import CliRunner

from tunebook.cli.compare import compare
from tunebook.cli.report import report

pytestmark = pytest.mark.browser

RUNS = Path(__file__).parent.parent / "fixtures" / "runs"
STRANGERS = "<script>window.ran = 1</script><img src=x onerror='window.ran = 1'>"


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """The finished pages by name, and what says that one is drawn."""
    folder = tmp_path_factory.mktemp("pages")
    rows = [{"prediction": "Yes", "reference": "Yes", "prompt": f"q{number}"} for number in range(12)]
    for name in ("a", "b"):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    runs = [
        (report, [str(RUNS / "movies"), "-o", str(folder / "report")]),
        (report, ["--all", str(RUNS), "-o", str(folder / "all")]),
        (
            compare,
            [
                str(folder / "a.jsonl"),
                str(folder / "b.jsonl"),
                "--metric",
                "yes_no",
                "-o",
                str(folder / "compare"),
            ],
        ),
    ]
    for command, arguments in runs:
        done = CliRunner().invoke(command, arguments)
        assert done.exit_code == 0, done.output
    return {
        "report": folder / "report" / "report.html",
        "all": folder / "all" / "index.html",
        "compare": folder / "compare" / "compare.html",
    }


@pytest.mark.parametrize(("name", "drawn"), [("report", True), ("all", True), ("compare", False)])
def test_only_the_pages_own_scripts_run(browser, pages, name, drawn):
    text = pages[name].read_text("utf-8")
    assert "'unsafe-inline'; script-src" in text  # of styles
    assert "script-src 'sha256-" in text
    broken = pages[name].with_name("broken.html")
    broken.write_text(text.replace("<main", STRANGERS + "<main", 1), "utf-8")
    page = browser.new_page()
    page.goto(broken.as_uri())
    if drawn:
        page.wait_for_selector("html[data-drawn]", state="attached", timeout=60_000)
    page.wait_for_load_state("load")
    assert page.evaluate("window.ran ?? null") is None
    page.close()
