"""What a person sees, in a real Chromium over a private store."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
from axe_playwright_python.sync_playwright import Axe
from hosts.browser import PHONE, WIDE, Window, open_browser
from hosts.web_server import WebServer
from ledger_samples import waiter
from playwright.sync_api import Browser
from servers.private_redis import PrivateRedis
from servers.shown_cluster import fill, gpu_uuid, job_claim, seen

if TYPE_CHECKING:
    from conftest import Shown

# One browser for all: its start takes longer than most of them.
pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("browser")]

PAGES = {
    "cluster": "/",
    "tiles": "/?draw=tiles",
    "dots": "/?draw=dots",
    "nothing-matches": "/?state=quarantined&user=bert",
    "node": "/nodes/n1",
    "job": "/jobs/41",
    "people": "/people",
    "person": "/people/anna",
    "queue": "/queue",
    "report": "/report",
    "unknown": "/nodes/nix",
}


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with open_browser() as found:
        yield found


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_page_is_accessible_and_complains_of_nothing(
    shown: Shown, browser: Browser, scheme: str
) -> None:
    wrong = []
    for size, viewport in (("wide", WIDE), ("phone", PHONE)):
        with Window(browser, shown.web.address, color_scheme=scheme, viewport=viewport) as window:
            for name, path in PAGES.items():
                page = window.open(path)
                found = Axe().run(page)
                wrong += [
                    f"{name} {size}: {one['id']}: {one['nodes'][0]['html'][:200]}"
                    for one in found.response["violations"]
                ]
                width = page.evaluate("document.documentElement.scrollWidth")
                if width > viewport["width"]:
                    wrong.append(f"{name} {size}: {width} wide")
                window.picture(f"{name}-{size}-{scheme}")
            wrong += window.faults
    assert wrong == []


def test_axe_finds_what_is_wrong(shown: Shown, browser: Browser) -> None:
    """Otherwise the test above would prove nothing."""
    with Window(browser, shown.web.address) as window:
        page = window.open("/")
        page.evaluate(
            "const field = document.querySelector('.filter label');"
            "field.replaceWith(field.querySelector('input'))"
        )
        page.evaluate("document.querySelector('main a').replaceChildren()")
        found = {one["id"] for one in Axe().run(page).response["violations"]}
    assert found & {"label", "link-name"}


def test_an_open_page_follows_the_cluster_and_keeps_the_focus(browser: Browser) -> None:
    with PrivateRedis() as server:
        ledger = fill(server)
        with WebServer(server.url) as web, Window(browser, web.address) as window:
            page = window.open("/?draw=tiles")
            window.wait_for_text(".big", "10 of 16 GPUs available")
            page.locator("a.tile").first.focus()
            page.evaluate("window.here = 'the same page'")
            ledger.reserve_given(
                job_claim(42, "dora"), [gpu_uuid("n2", 5)], seen("n2", {0: "bert"})
            )
            window.wait_for_text(".big", "9 of 16 GPUs available")
            cleo = job_claim(43, "erik")
            ledger.join_queue("n2", waiter(cleo, 1, lease_s=86400.0))
            window.wait_for_text(".big", "2 waiting")
            assert page.evaluate("window.here") == "the same page"
            assert page.evaluate("document.activeElement.getAttribute('href')") == "/nodes/n1"
            page = window.open("/nodes/n2")
            window.wait_for_text("#gpus", "dora")
            ledger.release("n2", job_claim(42, "dora").owner, "ended")
            page.locator("#gpus").filter(has_not_text="dora").wait_for()
            assert window.faults == []


def test_an_open_page_tells_that_the_store_is_away_and_that_it_is_back(browser: Browser) -> None:
    with PrivateRedis() as server:
        fill(server)
        settings = {"store.timeout_s": "0.5"}
        with WebServer(server.url, settings) as web, Window(browser, web.address) as window:
            page = window.open("/")
            window.wait_for_text(".big", "10 of 16 GPUs available")
            server.pause()
            page.locator(".banner").wait_for()
            window.picture("store-away")
            assert Axe().run(page).response["violations"] == []
            assert "10 of 16 GPUs available" in window.text(".big")
            server.resume()
            page.locator(".banner").wait_for(state="detached")


def test_an_open_page_lives_through_a_restart_of_its_server(browser: Browser) -> None:
    with PrivateRedis() as server:
        ledger = fill(server)
        with WebServer(server.url) as first, Window(browser, first.address) as window:
            page = window.open("/")
            window.wait_for_text(".big", "10 of 16 GPUs available")
            port = first.port
            first.end(9)
            window.wait_for_text("#live", "trying again")
            ledger.reserve_given(
                job_claim(42, "dora"), [gpu_uuid("n2", 5)], seen("n2", {0: "bert"})
            )
            with WebServer(server.url, port=port):
                window.wait_for_text(".big", "9 of 16 GPUs available")
                page.locator("#live").filter(has_not_text="trying again").wait_for(state="attached")


def test_the_keyboard_reaches_every_node(shown: Shown, browser: Browser) -> None:
    with Window(browser, shown.web.address) as window:
        page = window.open("/?draw=tiles")
        focused = "document.activeElement.getAttribute('href')"
        page.keyboard.press("Tab")
        assert page.evaluate(focused) == "#main"
        page.locator("a.tile").first.focus()
        page.keyboard.press("ArrowRight")
        assert page.evaluate(focused) == "/nodes/n2"
        page.keyboard.press("Home")
        assert page.evaluate(focused) == "/nodes/n1"
        page.keyboard.press("End")
        page.keyboard.press("Shift+Tab")
        page.keyboard.press("Tab")
        assert page.evaluate(focused) == "/nodes/n2"
        page.keyboard.press("Enter")
        page.wait_for_url("**/nodes/n2")


def test_a_person_filters_and_finds(shown: Shown, browser: Browser) -> None:
    with Window(browser, shown.web.address) as window:
        page = window.open("/")
        page.get_by_label("User", exact=True).fill("anna")
        page.get_by_role("button", name="Show").click()
        page.wait_for_url("**user=anna**")
        assert "0 of 2 GPUs available on 1 node" in window.text(".big")
        page.get_by_role("link", name="all GPUs").click()
        page.get_by_role("link", name="quarantined").click()
        page.wait_for_url("**state=quarantined**")
        assert page.locator("tr.is-quarantined").count() == 1
        page.get_by_label("Find a node, user or job").fill("41")
        page.keyboard.press("Enter")
        page.wait_for_url("**/jobs/41")
        assert "job 41 of anna" in window.text("h1")
        assert window.faults == []


def test_without_scripts_everything_is_there(shown: Shown, browser: Browser) -> None:
    with Window(browser, shown.web.address, java_script_enabled=False) as window:
        window.open("/?draw=tiles")
        assert "10 of 16 GPUs available" in window.text(".big")
        assert window.page.locator("noscript meta[http-equiv=refresh]").count() == 1


def test_states_differ_in_shape_and_not_in_colour_alone(shown: Shown, browser: Browser) -> None:
    with Window(browser, shown.web.address) as window:
        page = window.open("/")
        shapes = page.locator(".legend svg").evaluate_all(
            "all => all.map(one => [...one.querySelectorAll('path')]"
            ".map(path => path.getAttribute('d')).join())"
        )
    assert len(shapes) == len(set(shapes)) == 6
