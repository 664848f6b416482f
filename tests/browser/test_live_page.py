"""The page of a live run loads itself again, puts its reader back where he was, and stops when the run has ended."""

# ruff: noqa: F811 - a fixture is imported by name
from __future__ import annotations

import json
import shutil
import time
from pathlib import Path

import pytest
from chromium_pages import browser, opening  # noqa: F401

from tunebook.report.watch import Watch

pytestmark = pytest.mark.browser

RUNS = Path(__file__).parent.parent / "fixtures" / "runs"
LOG = (RUNS / "plain" / "trainer_log.jsonl").read_text("utf-8").splitlines(keepends=True)
SETTLED = "document.documentElement.dataset.drawn"
DRAWN = "document.querySelector('#chart-loss .mark-line path').getAttribute('d').split('L').length"


@pytest.fixture
def watched(tmp_path):
    """Two runs of which one goes on, for as long as `going` holds it."""
    shutil.copytree(RUNS / "movies", tmp_path / "movies")
    run = tmp_path / "live"
    run.mkdir()
    log(run, 20)
    going = {run}
    made = Watch(
        [run, tmp_path / "movies"], tmp_path / "report", every=1, templates=[], is_going=going.__contains__
    )
    made.going, made.run = going, run
    made.look()
    return made


def log(run, lines):
    (run / "trainer_log.jsonl").write_text("".join(LOG[:lines]), encoding="utf-8")


@pytest.fixture
def page(browser, watched):
    with opening(browser, "data-drawn") as opened:
        yield opened(watched.output / "report.html", viewport={"width": 1200, "height": 700})


def told(page, script):
    """What an expression gives. The page may load itself again at any time: then it is asked once more."""
    return json.loads(page.wait_for_function(f"JSON.stringify({script}) ?? 'null'").json_value())


def held(page, script, name):
    """Run a script that stops the page from loading itself again, in a page that is not just being left."""
    for _ in range(10):
        told(page, f"(window.old = {name!r}, {script})")
        time.sleep(0.5)
        if told(page, "window.old") == name:
            return
    raise AssertionError(f"it loads itself again after {script}")


def loads(page, *, of):
    """Wait until the page has loaded itself again and is drawn."""
    page.wait_for_function(f"window.old !== {of!r} && {SETTLED}", timeout=20_000)


def test_it_shows_new_numbers_by_itself_and_stops_at_the_end(page, watched):
    page.wait_for_selector(".live .dot")
    page.wait_for_function("document.title.startsWith('(live)')")  # it may be loading itself again just now
    page.wait_for_function(SETTLED)
    told(page, "window.old = 'first'")
    before = page.wait_for_function(f"{SETTLED} && {DRAWN}").json_value()
    log(watched.run, 40)
    watched.look()
    loads(page, of="first")
    page.wait_for_function(f"({DRAWN}) > {before}")
    log(watched.run, len(LOG))
    watched.going.clear()
    watched.look()
    told(page, "window.old = 'second'")
    watched.finish()
    loads(page, of="second")
    page.wait_for_function("!document.querySelector('.live')")
    assert not page.title().startswith("(live)")
    page.evaluate("window.old = 'third'")
    time.sleep(2.5)
    assert page.evaluate("window.old") == "third"


def test_the_reader_finds_everything_as_he_left_it(page, watched):
    page.click(".key[data-key=movies]")
    page.focus("#chart-loss .plot")
    page.keyboard.press("+")
    page.click("#comparison-table th:has-text('step') button")
    page.fill("input[data-table]", "live")
    page.click("#chart-loss details.origin > summary")
    told(page, "document.querySelector('#run-r2').open = true")
    page.focus("#chart-learning_rate .plot")
    told(page, "scrollTo({top: 640, behavior: 'instant'})")
    state = """() => ({
        y: Math.round(scrollY), zoom: document.documentElement.dataset.zoom,
        pressed: [...document.querySelectorAll('.key')].map((key) => key.getAttribute('aria-pressed')),
        open: [...document.querySelectorAll('details[open]')].map((one) => one.id || one.className),
        rows: [...document.querySelectorAll('#comparison-table tbody tr')].filter((row) => !row.hidden).length,
        sort: document.querySelector('#comparison-table th[aria-sort]').textContent,
        focus: document.activeElement.closest('figure').id,
        drawn: document.querySelectorAll('#chart-learning_rate .mark-line path').length,
    })"""
    # It may load itself again at any time.
    page.wait_for_function(f"{SETTLED} && ({state})().drawn === 1")
    before = told(page, f"({state})()")
    assert before["zoom"]
    assert before["rows"] == 1
    assert before["drawn"] == 1
    told(page, "window.old = 'first'")
    watched.look()
    loads(page, of="first")
    # The same line is at the top: what lies above may have become some pixels higher.
    page.wait_for_function(f"Math.abs(scrollY - {before['y']}) < 12")
    page.wait_for_function(f"{SETTLED} && ({state})().drawn === 1")
    after = told(page, f"({state})()")
    assert after | {"y": before["y"]} == before
    # Once: a later visit begins anew.
    assert told(page, "history.state.reader") is None


def test_it_waits_while_somebody_reads_and_can_be_paused(page):
    held(page, "getSelection().selectAllChildren(document.querySelector('.headline'))", "first")
    time.sleep(2.5)
    assert told(page, "window.old") == "first"
    told(page, "getSelection().removeAllRanges()")
    loads(page, of="first")
    pressed = "document.querySelector('#pause').getAttribute('aria-pressed') === 'true'"
    held(page, f"{pressed} || document.querySelector('#pause').click()", "second")
    assert told(page, pressed)
    time.sleep(2.5)
    assert told(page, "window.old") == "second"
    page.click("#pause")
    loads(page, of="second")


def test_a_page_that_nobody_makes_any_more_says_so(browser, watched):
    path = watched.output / "report.html"
    text = path.read_text("utf-8")
    assert watched.read.report is not None
    old = text.replace('data-checked="20', 'data-checked="19')
    assert old != text
    path.write_text(old, "utf-8")
    page = browser.new_page()
    page.goto(path.as_uri())
    page.wait_for_selector(".live.stale")
    assert "nobody seems to make this page any more" in page.inner_text(".live")
    page.close()


def test_without_scripts_it_still_loads_itself_again(browser, watched):
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    loads = []
    page.on("load", lambda: loads.append(time.monotonic()))
    page.goto((watched.output / "report.html").as_uri())
    page.wait_for_timeout(3500)
    assert len(loads) >= 2
    context.close()
