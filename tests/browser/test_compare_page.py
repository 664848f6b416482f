"""The page of a comparison in a real browser: it filters, sorts, stays readable, and needs no network."""

# ruff: noqa: F811 - a fixture is imported by name
from __future__ import annotations

import json

import pytest
from chromium_pages import browser, opening  # noqa: F401
from contrast import worst_contrast

from tunebook.comparison.compare import compare
from tunebook.comparison.pairing import ComparisonRequest
from tunebook.comparison.render import as_data, render, write_files

pytestmark = pytest.mark.browser

FILMS = (
    "Silent Harbor | Horror",
    "Frozen Mirror | Drama",
    "Electric Mountain | Action",
    "Paper Summer | Comedy",
)


def _write(path, flipped):
    rows = []
    for i in range(120):
        wanted = "Yes" if i % 3 else "No"
        other = {"Yes": "No", "No": "It depends on the mood of the evening."}[wanted]
        watched = "\n".join(FILMS[(i + k) % 4] for k in range(2 + i % 3))
        rows.append(
            {
                "instruction": "Will the user like the candidate movie? Answer Yes or No.",
                "input": f"Movies watched:\n{watched}\nCandidate movie:\n{FILMS[i % 4]}",
                "output": wanted,
                "predict": other if flipped(i) else wanted,
            }
        )
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@pytest.fixture(scope="module")
def page_file(tmp_path_factory):
    folder = tmp_path_factory.mktemp("compare")
    first = _write(folder / "base-model-with-a-rather-long-name.jsonl", lambda i: i % 4 == 0 or i % 10 == 1)
    second = _write(folder / "tuned.jsonl", lambda i: i % 10 == 3)
    data = as_data(compare(ComparisonRequest(first=first, second=second, metric="yes_no")))
    write_files(render(data, show=10), folder / "out")
    return folder / "out/compare.html"


@pytest.fixture
def open_page(browser, page_file):
    with opening(browser, "data-ready") as opened:
        yield lambda **options: opened(page_file, **options)


def shown(page):
    return page.locator("#table-1 tbody tr:visible").count()


def test_disagreements_are_filtered_by_direction_reference_and_text(open_page):
    page = open_page()
    everything = shown(page)
    assert page.inner_text(".filters output") == f"{everything} of {everything} shown"
    page.select_option("select[name=kind]", "worse")
    worse = shown(page)
    page.select_option("select[name=kind]", "better")
    assert 0 < worse < everything
    assert shown(page) + worse == everything
    page.select_option("select[name=reference]", "No")
    texts = page.eval_on_selector_all(
        "#table-1 tbody tr:not([hidden])",
        "rows => rows.map(r => r.cells[1].textContent + r.cells[2].textContent)",
    )
    assert set(texts) == {"betterNo"}
    page.fill("input[name=text]", "mood evening")
    assert 0 < shown(page) <= len(texts)
    page.fill("input[name=text]", "no such text")
    assert page.inner_text(".filters output") == f"0 of {everything} shown"


def test_the_keyboard_filters_and_sorts(open_page):
    page = open_page()
    everything = shown(page)
    page.focus("select[name=kind]")
    page.keyboard.press("ArrowDown")
    assert 0 < shown(page) < everything
    page.focus("#table-1 th button >> nth=0")
    page.keyboard.press("Enter")
    rows = page.eval_on_selector_all(
        "#table-1 tbody tr", "rows => rows.map(r => Number(r.cells[0].textContent))"
    )
    assert rows == sorted(rows)
    assert page.get_attribute("#table-1 th >> nth=0", "aria-sort") == "ascending"
    page.keyboard.press("Enter")
    assert page.get_attribute("#table-1 th >> nth=0", "aria-sort") == "descending"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_follows_the_system_and_the_button(open_page, scheme):
    page = open_page(color_scheme=scheme)
    background = "getComputedStyle(document.body).backgroundColor"
    dark = "rgb(16, 19, 23)"
    assert (page.evaluate(background) == dark) == (scheme == "dark")
    page.click("#theme")
    if scheme == "light":
        page.click("#theme")
    assert (page.evaluate(background) == dark) == (scheme == "light")


def test_a_phone_shows_it_without_scrolling_sideways(open_page):
    page = open_page(viewport={"width": 360, "height": 740})
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    wide = page.eval_on_selector_all(
        "#table-1 tbody tr > *", "cells => cells.filter(c => c.getBoundingClientRect().right > 360).length"
    )
    assert wide == 0
    page.select_option("select[name=kind]", "worse")
    assert shown(page) > 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_enough_contrast(open_page, scheme):
    worst = open_page(color_scheme=scheme).evaluate(worst_contrast("script, .skip"))
    assert worst["ratio"] >= 4.5, worst


def test_every_control_has_a_name_and_there_is_one_title(open_page):
    page = open_page()
    assert page.eval_on_selector_all(
        "button, input, select",
        "all => all.every(one => (one.getAttribute('aria-label') || one.labels?.[0]?.textContent || one.textContent).trim())",
    )
    assert page.eval_on_selector_all("h1", "all => all.length") == 1
