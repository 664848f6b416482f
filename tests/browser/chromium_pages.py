"""Chromium, and pages in it whose every complaint and request to a network is an error."""

from __future__ import annotations

import shutil
from contextlib import contextmanager

import pytest


@pytest.fixture(scope="module")
def browser():
    """The system's Chromium, through Playwright."""
    playwright = pytest.importorskip("playwright.sync_api")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no Chromium on the PATH")
    with playwright.sync_playwright() as driver:
        # As root, as in a container, Chromium has no sandbox.
        launched = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield launched
        launched.close()


@contextmanager
def opening(browser, ready):
    """A function that opens a file once `html[ready]` is there. At the end no page may have complained.

    `page.complaints` are messages of the console, errors, and requests that leave the machine; `page.requests`
    all that was asked for.
    """
    pages = []

    def opened(file, **options):
        page = browser.new_page(**{"viewport": {"width": 1200, "height": 900}} | options)
        page.complaints, page.requests = [], []
        page.on("console", lambda message: page.complaints.append(message.text))
        page.on("pageerror", lambda error: page.complaints.append(str(error)))

        def asked(request):
            page.requests.append(request.url)
            if not request.url.startswith(("file:", "data:")):
                page.complaints.append(request.url)

        page.on("request", asked)
        page.goto(file.as_uri())
        page.wait_for_selector(f"html[{ready}]", state="attached", timeout=60_000)
        pages.append(page)
        return page

    yield opened
    for page in pages:
        assert page.complaints == []
        page.close()
