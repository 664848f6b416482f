"""The page can be read and worked by everybody: by keyboard, by ear, in both themes, with twenty runs."""

# ruff: noqa: F811 - a fixture is imported by name
from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from chromium_pages import browser, opening  # noqa: F401
from contrast import worst_contrast

from tunebook.report.data import gather
from tunebook.report.render import render_page

pytestmark = pytest.mark.browser

RUNS = Path(__file__).parent.parent / "fixtures" / "runs"
MANY, STEPS = 20, 5_000
CONTROLS = "a[href], button, input, summary, [tabindex='0']"
NAMES = """all => all.map((one) => {
    const labels = one.labels ? [...one.labels].map((label) => label.textContent).join(' ') : '';
    const by = (one.getAttribute('aria-labelledby') || '').split(' ')
        .map((id) => id && document.getElementById(id)).map((found) => found ? found.textContent : '').join(' ');
    const name = (one.getAttribute('aria-label') || by.trim() || labels || one.textContent || '').trim();
    return name ? null : one.outerHTML.slice(0, 120);
}).filter(Boolean)"""


def long_run(folder, number):
    """A run of so many steps, its curves told apart by `number`."""
    folder.mkdir()
    history = [
        {
            "step": step,
            "loss": 2 * math.exp(-step / 2000) + 0.02 * number + 0.1 * math.sin(step * (number + 1)),
            "grad_norm": 1.0,
            "learning_rate": 1e-4,
        }
        for step in range(1, STEPS + 1)
    ]
    history[STEPS // 2]["loss"] = 9.0 + number
    history += [{"step": step, "eval_loss": 1 / number} for step in range(500, STEPS + 1, 500)]
    state = {
        "global_step": STEPS,
        "max_steps": STEPS,
        "log_history": sorted(history, key=lambda entry: entry["step"]),
    }
    (folder / "trainer_state.json").write_text(json.dumps(state))


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pages")
    for number in range(1, MANY + 1):
        long_run(folder / f"run{number:02}", number)
    pages = {
        "three": [RUNS / "movies", RUNS / "plain", RUNS / "axolotl"],
        "one": [RUNS / "movies"],
        "many": sorted(folder.glob("run*")),
    }
    for name, runs in pages.items():
        (folder / f"{name}.html").write_bytes(render_page(gather(runs)))
    return folder


@pytest.fixture
def open_page(browser, report):
    pages = []

    def one(name, **options):
        pages.append(opened(report / f"{name}.html", **options))
        return pages[-1]

    with opening(browser, "data-drawn") as opened:
        yield one
        for page in pages:
            assert [url for url in page.requests if not url.startswith("data:")] == [page.url]


@pytest.mark.parametrize("name", ["one", "three"])
def test_the_tab_key_reaches_every_control_in_the_order_of_the_page(open_page, name):
    page = open_page(name)
    visible = f"""[...document.querySelectorAll("{CONTROLS}")].filter((one) => one.checkVisibility())"""
    wanted = page.evaluate(f"{visible}.length")
    page.evaluate(f"{visible}.forEach((one, place) => {{ one.dataset.place = place; }})")
    reached = []
    for _ in range(wanted + 5):
        page.keyboard.press("Tab")
        place = page.evaluate("document.activeElement.dataset.place")
        if place is None or (reached and int(place) <= reached[-1]):
            break
        reached.append(int(place))
    assert reached == list(range(wanted))
    assert wanted > 20


@pytest.mark.parametrize("name", ["one", "three"])
def test_every_control_and_picture_has_a_name(open_page, name):
    page = open_page(name)
    page.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
    selector = f"{CONTROLS}, [role=img], [role=region], [role=group], nav, table"
    assert page.eval_on_selector_all(selector, NAMES) == []


def test_every_chart_tells_its_curves_in_words_and_its_sources(open_page):
    page = open_page("three")
    charts = page.eval_on_selector_all(
        ".chart",
        """charts => charts.map((chart) => ({
            words: chart.querySelector('.plot').getAttribute('aria-label'),
            shown: chart.querySelector('.origin p').textContent,
            sources: chart.querySelectorAll('.origin li').length,
        }))""",
    )
    assert len(charts) >= 5
    for chart in charts:
        assert "step" in chart["words"]
        assert chart["shown"] == chart["words"]
        assert chart["sources"] >= 1


def test_text_has_enough_contrast_with_everything_unfolded(open_page):
    for scheme in ("light", "dark"):
        page = open_page("three", color_scheme=scheme)
        page.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
        worst = page.evaluate(worst_contrast("svg, script, .skip"))
        assert worst["ratio"] >= 4.5, worst


def test_words_in_the_charts_have_enough_contrast_too(open_page):
    for scheme, background in (("light", (255, 255, 255)), ("dark", (23, 27, 33))):
        page = open_page("three", color_scheme=scheme)
        fills = page.eval_on_selector_all(
            ".chart svg text", "all => [...new Set(all.map((one) => getComputedStyle(one).fill))]"
        )
        assert fills
        for fill in fills:
            ink = tuple(int(part) for part in fill.removeprefix("rgb(").removesuffix(")").split(","))
            lighter, darker = sorted((luminance(ink), luminance(background)), reverse=True)
            assert (lighter + 0.05) / (darker + 0.05) >= 4.5, (scheme, fill)


def luminance(colour):
    linear = [
        part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4
        for part in (c / 255 for c in colour)
    ]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_a_chart_whose_curves_are_all_taken_out_says_so(open_page):
    page = open_page("three")
    page.click(".key[data-key=movies]")
    page.wait_for_selector("#chart-metric_macro_f1.empty")
    words = "getComputedStyle(document.querySelector('#chart-metric_macro_f1 .plot'), '::after').content"
    assert "taken out" in page.evaluate(words)
    page.click("#theme")
    page.click(".key[data-key=movies]")
    page.wait_for_function("!document.querySelector('.chart.empty')")


def test_twenty_long_runs_stay_small_and_keep_every_spike(open_page, report):
    assert (report / "many.html").stat().st_size < 3e6
    page = open_page("many")
    lines = page.eval_on_selector_all(
        "#chart-loss .mark-line path",
        "all => all.map((one) => (one.getAttribute('d') || '').split('L').length)",
    )
    # Loss in training and evaluation of each.
    assert len(lines) == 2 * MANY
    assert sum(lines) <= 15_000
    assert page.locator(".key").count() == MANY
    highest = page.evaluate(
        "JSON.parse(document.getElementById('data').textContent).charts.find((c) => c.id === 'loss').lines"
        ".map((line) => Math.max(...line.y)).sort((a, b) => b - a).slice(0, 20)"
    )
    assert highest == [9.0 + number for number in range(MANY, 0, -1)]
    # Few elements, whatever the number of points: what a browser has to lay out at each change.
    assert page.evaluate("document.querySelectorAll('svg *').length") < 20_000


@pytest.mark.parametrize("name", ["three", "many"])
def test_a_phone_shows_many_runs_without_scrolling_sideways(open_page, name):
    page = open_page(name, viewport={"width": 360, "height": 740})
    page.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
    wide = "[...document.querySelectorAll('body *')].filter((one) => !one.closest('.scroll, pre, svg, .plot')"
    wide += (
        " && one.getBoundingClientRect().right > 361).slice(0, 3).map((one) => one.outerHTML.slice(0, 80))"
    )
    assert page.evaluate("document.documentElement.scrollWidth") <= 360, page.evaluate(wide)
