"""A cluster of thousands of nodes: what a page of it has, and that viewers cost no reads."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from hosts.browser import Window, open_browser
from hosts.web_server import WebServer
from many_nodes import fill
from servers.private_redis import PrivateRedis

pytestmark = pytest.mark.slow
COUNT = 2000
MAX_BYTES = 1_000_000
"""Of a page with a thousand nodes."""


@pytest.fixture(scope="module")
def web() -> Iterator[WebServer]:
    with PrivateRedis() as server:
        fill(server, [f"gpu{number:04d}" for number in range(COUNT)])
        with WebServer(server.url, {"web.poll_s": "30"}) as web:
            yield web


def test_a_page_has_a_thousand_nodes_and_leads_to_the_others(web: WebServer) -> None:
    first, second = web.ask("/"), web.ask("/?page=2")
    assert "6000" in first.text
    for page in (first, second):
        assert len(re.findall(r'<a class="tile', page.text)) == COUNT // 2
        assert len(page.text) < MAX_BYTES
        # A path for each state, and not one for each GPU.
        assert page.text.count("<path") < 3 * COUNT
    assert 'href="/?page=2"' in first.text
    assert 'id="n-gpu1999"' in second.text


def test_json_comes_in_portions(web: WebServer) -> None:
    names, path = [], "/cluster.json"
    while path:
        answer = web.ask(path)
        assert answer.headers["x-total-nodes"] == str(COUNT)
        names += [one["node"] for one in answer.json()["nodes"]]
        path = answer.headers.get("link", "").partition(">")[0].lstrip("<")
    assert names == [f"gpu{number:04d}" for number in range(COUNT)]
    assert len(web.ask("/summary.json").json()["nodes"]) == COUNT


def test_a_browser_shows_it(web: WebServer) -> None:
    with open_browser() as browser, Window(browser, web.address) as window:
        page = window.open("/")
        # The first page of a server says that the cluster is being read, and loads itself again.
        page.locator("a.tile").first.wait_for()
        window.picture("2000-nodes")
        assert page.locator("a.tile").count() == COUNT // 2
        page.locator("a.tile").first.focus()
        page.keyboard.press("ArrowDown")
        assert page.evaluate("document.activeElement.matches('a.tile')")
        assert window.faults == []
