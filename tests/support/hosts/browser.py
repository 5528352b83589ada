"""A real Chromium, Debian's, driven by Playwright; what it shows is kept as pictures in build/."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

PICTURES = Path(__file__).parents[3] / "build" / "screenshots"
LIMIT_MS = 60_000.0
WIDE = {"width": 1280, "height": 800}
PHONE = {"width": 360, "height": 720}


def chromium() -> str:
    """Return the program; without it, skip here and fail in CI."""
    found = shutil.which("chromium")
    if found is None:
        if os.environ.get("CI"):
            pytest.fail("no chromium on this machine")
        pytest.skip("no chromium on this machine")
    return found


@contextmanager
def open_browser() -> Iterator[Browser]:
    """Start one, without a sandbox where root runs the tests."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=chromium(), args=["--no-sandbox", "--disable-gpu"]
        )
        try:
            yield browser
        finally:
            browser.close()


class Window:
    """A page that a person looks at, and whatever it complained about.

    `faults` are errors of scripts, refusals by the policy of the page, dialogs, and requests to
    anywhere else than `address`.
    """

    def __init__(self, browser: Browser, address: str, **options: Any) -> None:
        self.address = address
        self.faults: list[str] = []
        self._context = browser.new_context(viewport=options.pop("viewport", WIDE), **options)
        self._context.set_default_timeout(LIMIT_MS)
        self.page: Page = self._context.new_page()
        self.page.on("pageerror", lambda error: self.faults.append(str(error)))
        self.page.on("dialog", self._refuse)
        self.page.on("console", lambda one: self._note(one.type, one.text))
        self.page.on("request", lambda one: self._look_at(one.url))

    def __enter__(self) -> Window:
        return self

    def __exit__(self, *_: object) -> None:
        self._context.close()

    def open(self, path: str) -> Page:
        answer = self.page.goto(self.address + path, wait_until="load")
        while answer and "refresh" in answer.headers:
            # The cluster is read for the first time.
            answer = self.page.goto(self.address + path, wait_until="load")
        return self.page

    def picture(self, name: str) -> None:
        PICTURES.mkdir(parents=True, exist_ok=True)
        self.page.screenshot(path=PICTURES / f"{name}.png")

    def text(self, selector: str) -> str:
        return self.page.locator(selector).inner_text()

    def wait_for_text(self, selector: str, text: str) -> None:
        self.page.locator(selector).filter(has_text=text).first.wait_for()

    def _refuse(self, dialog: Any) -> None:
        self.faults.append(f"a dialog: {dialog.message}")
        dialog.dismiss()

    def _note(self, kind: str, text: str) -> None:
        # That a page answers 404 or 503 is told as an error, too.
        if kind == "error" and "the server responded with a status" not in text:
            self.faults.append(text)

    def _look_at(self, url: str) -> None:
        if urlsplit(url).netloc != urlsplit(self.address).netloc:
            self.faults.append(f"a request to {url}")
