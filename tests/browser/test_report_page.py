"""The page in a real browser: it draws, filters, zooms and stays readable, and asks the network for nothing."""

# ruff: noqa: F811 - a fixture is imported by name
from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from chromium_pages import browser, opening  # noqa: F401
from contrast import worst_contrast

from tunebook.report.data import gather
from tunebook.report.render import render, write_report

pytestmark = pytest.mark.browser

RUNS = Path(__file__).parent.parent / "fixtures" / "runs"


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    write_report(render(gather([RUNS / "movies", RUNS / "plain"])), folder / "two")
    write_report(render(gather([RUNS / "movies"])), folder / "one")
    for name in ("a", "b", "c"):
        shutil.copytree(RUNS / "movies", folder / "runs" / name)
    write_report(render(gather([folder / "runs" / name for name in ("a", "b", "c")])), folder / "three")
    return folder


@pytest.fixture
def open_page(browser, report):
    with opening(browser, "data-drawn") as opened:
        yield lambda name, **options: opened(report / name / "report.html", **options)


def curves(page, chart):
    """The drawn lines of a chart, each with as many points as its path has."""
    return page.eval_on_selector_all(
        f"#chart-{chart} .mark-line path",
        "paths => paths.map(p => (p.getAttribute('d') || '').split('L').length)",
    )


def test_every_chart_is_drawn(open_page):
    page = open_page("one")
    assert curves(page, "loss") == [40, 4]
    assert curves(page, "metric_macro_f1") == [4]
    drawn = page.eval_on_selector_all(
        ".charts >> nth=0 >> .chart",
        "charts => charts.map(c => c.querySelectorAll('.mark-line path').length)",
    )
    assert drawn
    assert all(drawn)


def test_a_chart_that_is_drawn_later_knows_what_was_taken_out_before(open_page):
    page = open_page("two")
    assert len(curves(page, "grad_norm")) == 2
    page.reload()
    page.wait_for_selector("html[data-ready]", state="attached")
    page.eval_on_selector(".key >> nth=0", "key => key.click()")
    page.wait_for_selector("html[data-drawn]", state="attached")
    assert len(curves(page, "grad_norm")) == 1


def test_charts_on_demand_are_drawn_when_they_are_opened(open_page):
    page = open_page("one")
    assert not page.is_visible("#chart-metric_recall svg")
    page.click("details.more > summary")
    page.wait_for_selector("#chart-metric_recall svg .mark-line path", state="attached")


def test_the_legend_takes_a_run_out_and_puts_it_back(open_page):
    page = open_page("two")
    assert curves(page, "learning_rate") == [40, 52]
    page.click(".key[data-key=plain]")
    page.wait_for_function("document.querySelectorAll('#chart-learning_rate .mark-line path').length === 1")
    assert page.get_attribute(".key[data-key=plain]", "aria-pressed") == "false"
    page.focus(".key[data-key=plain]")
    page.keyboard.press("Enter")
    page.wait_for_function("document.querySelectorAll('#chart-learning_rate .mark-line path').length === 2")


def test_dragging_zooms_all_charts_and_escape_shows_all_again(open_page):
    page = open_page("one")
    plot = page.locator("#chart-loss .plot")
    plot.scroll_into_view_if_needed()
    box = plot.bounding_box()
    page.mouse.move(box["x"] + box["width"] * 0.5, box["y"] + 80)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.7, box["y"] + 80, steps=4)
    page.mouse.up()
    assert page.is_visible("#zoom-out")
    assert curves(page, "loss")[0] < 15
    assert curves(page, "learning_rate")[0] < 15
    page.keyboard.press("Escape")
    assert curves(page, "loss")[0] == 40
    assert not page.is_visible("#zoom-out")


def test_the_keyboard_zooms_the_chart_in_focus(open_page):
    page = open_page("one")
    page.focus("#chart-loss .plot")
    page.keyboard.press("+")
    assert curves(page, "loss")[0] < 30
    page.keyboard.press("-")
    assert curves(page, "loss")[0] == 40


def test_hovering_tells_step_value_and_interval(open_page):
    page = open_page("one")
    plot = page.locator("#chart-metric_macro_f1 .plot")
    plot.scroll_into_view_if_needed()
    box = plot.bounding_box()
    page.mouse.move(box["x"] + box["width"] * 0.75, box["y"] + 60)
    page.wait_for_selector("#tip", state="visible")
    assert "step 300" in page.inner_text("#tip")
    assert "0.8124 (0.69" in page.inner_text("#tip")


def test_the_comparison_can_be_filtered_and_sorted(open_page):
    page = open_page("two")
    page.fill("input[data-table]", "movies_train")
    assert page.locator("#comparison-table tbody tr:visible").count() == 1
    page.fill("input[data-table]", "")
    page.click("#comparison-table th:has-text('step') button")
    heads = page.locator("#comparison-table thead th").all_inner_texts()
    column = next(place for place, head in enumerate(heads) if head.startswith("step"))
    steps = page.eval_on_selector_all(
        "#comparison-table tbody tr", "(rows, at) => rows.map(r => r.cells[at].textContent.trim())", column
    )
    assert steps == ["300", "264"]
    page.click("#comparison-table th:has-text('step') button")
    assert page.get_attribute("#comparison-table th:has-text('step')", "aria-sort") == "ascending"


def test_a_link_to_a_run_opens_it(open_page):
    page = open_page("two")
    page.click("#comparison-table a:has-text('movies')")
    page.wait_for_selector("#run-r1[open]")
    assert page.is_visible("#r1-examples")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_follows_the_system_and_the_button(open_page, scheme):
    page = open_page("one", color_scheme=scheme)
    dark = "rgb(16, 19, 23)"
    background = "getComputedStyle(document.body).backgroundColor"
    assert (page.evaluate(background) == dark) == (scheme == "dark")
    ink = "document.querySelector('#chart-loss text').getAttribute('fill')"
    before = page.evaluate(ink)
    page.click("#theme")
    if scheme == "light":
        page.click("#theme")
    page.wait_for_function(f"({ink}) !== '{before}'")
    assert (page.evaluate(background) == dark) == (scheme == "light")


@pytest.mark.parametrize("name", ["one", "two"])
def test_a_phone_shows_it_without_scrolling_sideways(open_page, name):
    page = open_page(name, viewport={"width": 360, "height": 740})
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    widths = page.eval_on_selector_all(
        ".charts .plot svg", "all => all.map(one => one.getBoundingClientRect().width)"
    )
    assert widths
    assert all(200 < width <= 340 for width in widths if width)


def test_text_has_enough_contrast_in_both_themes(open_page):
    for scheme in ("light", "dark"):
        page = open_page("one", color_scheme=scheme)
        worst = page.evaluate(worst_contrast("svg, script, .skip"))
        assert worst["ratio"] >= 4.5, worst


def test_every_picture_has_words_and_every_control_a_name(open_page):
    page = open_page("two")
    assert page.eval_on_selector_all(
        "[role=img]", "all => all.every(one => one.getAttribute('aria-label').length > 20)"
    )
    assert page.eval_on_selector_all(
        "button", "all => all.every(one => (one.getAttribute('aria-label') || one.textContent).trim())"
    )
    assert page.eval_on_selector_all("h1", "all => all.length") == 1


def test_three_runs_have_panels_whose_curves_the_legend_takes_out(open_page):
    page = open_page("three")
    titles = page.locator("#chart-each_loss svg text", has_text="a").or_(
        page.locator("#chart-each_loss svg text", has_text="c")
    )
    assert titles.count() >= 2
    before = page.locator("#chart-each_loss svg .mark-line path").count()
    page.click('.key[data-key="b"]')
    page.wait_for_function(
        "before => document.querySelectorAll('#chart-each_loss svg .mark-line path').length < before",
        arg=before,
    )
    page.hover("#chart-each_loss .plot")


def test_the_ranking_says_who_is_told_apart_and_its_remarks_are_on_the_page(open_page):
    page = open_page("three")
    groups = page.locator("#comparison-table tbody tr td:has-text('a')")
    assert groups.count() >= 3
    assert page.locator(".remark", has_text="is not distinguishable from").count() == 1


def test_time_and_memory_stand_on_the_page_of_one_run(open_page):
    page = open_page("one")
    assert page.locator("#time .phases span").count() >= 2
    assert page.locator("#time td", has_text="not measured").count() >= 1
