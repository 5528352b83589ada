"""Whatever names people choose: no page runs them, commands a terminal, or grows without bound."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from html.parser import HTMLParser

import pytest
from hosts.browser import Window, open_browser
from hosts.cli_node import CliNode
from hosts.hostile_node import EVIL, LONG, hostile_node, unsafe_parts
from hosts.running_agent import RunningAgent
from hosts.web_server import WebServer

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.geteuid() != 0, reason="the node's commands are root's"),
]

MARKUP = (
    "evil</title></script><script>alert(1)</script><img src=x onerror=alert(2)>"
    '" onmouseover=alert(3) x="\'><svg onload=alert(4)><a href=javascript:alert(5)>{{7*7}}{%raw%}'
)
PAGES = (
    "/",
    "/?draw=tiles",
    "/?draw=dots",
    "/nodes/n1",
    "/queue",
    "/people",
    "/jobs/12?cluster=c1",
    "/jobs/14",
    "/jobs/manual:1",
    "/report",
)
SOMEBODY = 61_234
LONGEST_PAGE = 400_000
HANDLERS = ("on", "style", "srcdoc", "formaction")


class Elements(HTMLParser):
    """The elements and addresses of a page, as a browser finds them."""

    def __init__(self) -> None:
        super().__init__()
        self.wrong: list[str] = []
        self.scripts = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.scripts += tag == "script"
        if tag in ("img", "iframe", "object", "embed", "style", "base"):
            self.wrong.append(f"<{tag}>")
        for name, value in attrs:
            if name.startswith(HANDLERS):
                self.wrong.append(f"{tag} {name}={value}")
            if name in ("href", "src", "action") and not (value or "").startswith(("/", "#")):
                self.wrong.append(f"{tag} {name}={value}")


def reading_the_store(here: CliNode) -> WebServer:
    return WebServer(here.redis.url)


@contextmanager
def asking_an_agent(here: CliNode) -> Iterator[WebServer]:
    """The page of a user who has no login of the store, which the node's agent has."""
    store = {"url": here.redis.url}
    with RunningAgent(here.directory / "agent", store=store) as agent:
        agent.hide_config()
        socket = {"CANHAZGPU_AGENT_SOCKET": str(agent.people_socket)}
        with WebServer("", variables=socket, user=SOMEBODY) as web:
            assert "asks the agent" in web.log
            yield web


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("text", "open_page"),
    [
        (EVIL, reading_the_store),
        (LONG, reading_the_store),
        (MARKUP, reading_the_store),
        (f"{MARKUP}{EVIL}", asking_an_agent),
        (LONG, asking_an_agent),
    ],
    ids=["evil", "long", "markup", "agent-evil-markup", "agent-long"],
)
def test_what_people_choose_stays_text_on_every_page(
    text: str,
    open_page: Callable[[CliNode], AbstractContextManager[WebServer]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("FAKE_NVML_NODE", "n1")
    wrong, shown = [], 0
    with hostile_node(text) as here:
        here.publish()
        with (
            open_page(here) as web,
            open_browser() as browser,
            Window(browser, web.address) as window,
        ):
            for path in PAGES:
                answer = web.ask(path)
                assert answer.status in (200, 404), (path, answer.text[-500:])
                found = Elements()
                found.feed(answer.text)
                assert found.scripts == 1
                faults = [*found.wrong, *unsafe_parts(answer.text)]
                faults += ["too long"] if len(answer.text) > LONGEST_PAGE else []
                wrong += [f"{path}: {one}" for one in faults]
                shown += "evil" in answer.text or "xxxx" in answer.text
                window.open(path)
                document = web.ask(path.partition("?")[0].rstrip("/") + ".json")
                if document.status == 200:
                    json.loads(document.text)
                    assert document.text.isascii()
            wrong += window.faults
    assert wrong == []
    # Otherwise nothing was tried.
    assert shown > 6
