"""The page of all runs: ticked runs are drawn, rows are sorted and filtered, in both themes and on a phone."""

# ruff: noqa: F811 - a fixture is imported by name
from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from chromium_pages import browser, opening  # noqa: F401
from contrast import worst_contrast

from tunebook.report.index import Index

pytestmark = pytest.mark.browser

RUNS = Path(__file__).parent.parent / "fixtures" / "runs"


@pytest.fixture(scope="module")
def reports(tmp_path_factory):
    """Eight runs, of which the five newest are ticked, one short beside long ones, and one that is broken."""
    folder = tmp_path_factory.mktemp("all")
    for name in ("axolotl", "plain", "restarted", "resumed", "movies"):
        shutil.copytree(RUNS / name, folder / "output" / name)
    shutil.copytree(RUNS / "movies", folder / "output" / "movies_with_a_long_name_of_rank_64_and_rate_2e-4")
    for name, text in (("broken", "{{{"), ("short", json.dumps(SHORT))):
        (folder / "output" / name).mkdir()
        (folder / "output" / name / "trainer_state.json").write_text(text)
    Index(folder / "output", folder / "reports").look()
    return folder / "reports" / "index.html"


SHORT = {
    "global_step": 4,
    "max_steps": 4,
    "log_history": [{"step": step, "loss": 3 / step, "reward": step / 4} for step in range(1, 5)],
}


@pytest.fixture
def open_page(browser, reports):
    with opening(browser, "data-drawn") as opened:
        yield lambda **options: opened(reports, **options)


def lines(page, expected):
    """Wait until the charts that are shown have so many lines together."""
    shown = "[...document.querySelectorAll('.chart')].filter((one) => one.offsetParent)"
    page.wait_for_function(
        f"{shown}.reduce((sum, one) => sum + one.querySelectorAll('.mark-line path').length, 0) === {expected}"
    )


def test_ticked_runs_are_drawn_over_each_other_and_named(open_page):
    page = open_page(viewport={"width": 1280, "height": 900})
    assert page.evaluate("document.documentElement.scrollWidth") <= 1280
    assert page.evaluate("(one => one.scrollWidth - one.clientWidth)(document.querySelector('.scroll'))") == 0
    assert page.locator("#ticked .entry").count() == 5
    page.click("#untick")
    lines(page, 0)
    assert not page.is_visible("p.command")
    page.click(".tick[data-key=short]")
    # Its reward had no chart before; its axis is its own, beside runs of hundreds of steps.
    lines(page, 2)
    page.wait_for_selector("html[data-drawn]", state="attached")
    last = page.locator(".chart:visible .mark-text.role-axis-label text").all_text_contents()
    assert last
    assert max(float(text) for text in last if text) <= 5
    page.click(".tick[data-key=movies]")
    page.wait_for_function("document.querySelectorAll('#ticked .entry').length === 2")
    assert page.inner_text("#command").startswith("tunebook report ")
    assert page.inner_text("#command").count("/output/") == 2
    page.wait_for_function(
        "[...document.querySelectorAll('.chart')].filter((one) => one.offsetParent).length > 2"
    )


def test_rows_are_filtered_and_sorted_and_lead_to_the_runs(open_page):
    page = open_page()
    page.fill("input[data-table]", "movies finished")
    assert page.locator("#runs-table tbody tr:visible").count() == 2
    page.fill("input[data-table]", "")
    page.click("#runs-table th:has-text('value') button")
    first = page.locator("#runs-table tbody tr").first
    assert "restarted" in first.inner_text()
    assert "is not a run" in page.locator("#runs-table tr", has_text="broken").inner_text()
    page.click("#compared a")
    page.wait_for_selector("#comparison-table")
    page.click("a:has-text('All runs')")
    page.click("#runs-table a >> text=axolotl")
    page.wait_for_selector("#evaluations", state="attached")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_a_phone_with_enough_contrast(open_page, scheme):
    page = open_page(viewport={"width": 360, "height": 740}, color_scheme=scheme)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    assert page.evaluate("(one => one.scrollWidth - one.clientWidth)(document.querySelector('.scroll'))") == 0
    assert (
        page.evaluate("getComputedStyle(document.body).backgroundColor")
        == {
            "light": "rgb(251, 251, 250)",
            "dark": "rgb(16, 19, 23)",
        }[scheme]
    )
    worst = page.evaluate(worst_contrast("svg, script, .skip"))
    assert worst["ratio"] >= 4.5, worst
