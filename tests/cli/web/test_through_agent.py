"""The page of a user who may not read the store's login: through the node's agent, a real one."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hosts.agent_node import AgentNode, make_agent_node
from hosts.browser import Window, open_browser
from hosts.running_agent import RunningAgent
from hosts.web_server import Answer, WebServer
from many_nodes import fill as fill_many
from polling import poll_until
from servers.private_redis import PrivateRedis
from servers.shown_cluster import fill, gpu_uuid, job_claim, seen

from canhazgpu.config.schema import StoreConfig
from canhazgpu.ledger.store.connect import Role
from canhazgpu.ledger.store.ledger import RedisLedger
from canhazgpu.ledger.store.totals.counters import NodeCounters

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root may run an agent"),
]

SOMEBODY = 61_234
"""As of systemd's DynamicUser=: no name, no file."""
JSON = (
    "/cluster.json",
    "/cluster.json?user=anna",
    "/cluster.json?state=available&partition=long",
    "/cluster.json?partition=nix",
    "/cluster.json?user=nobody-of-us",
    "/summary.json",
    "/nodes/n1.json",
    "/nodes/n2.json",
    "/nodes/nix.json",
    "/people.json",
    "/people/anna.json",
    "/people/nobody-of-us.json",
    "/queue.json",
    "/jobs/41.json",
    "/jobs/run:00000000000000b0.json",
    "/jobs/9.json",
    "/jobs/nonsense.json",
    "/report.json?days=30",
)
PAGES = ("/", "/nodes/n2", "/people", "/people/anna", "/queue", "/jobs/41", "/report", "/nodes/nix")
TIME = re.compile(r"\d{4}-\d\d-\d\dT[0-9:.+Z-]+|\b\d+[smhd]\b")


@dataclass(frozen=True, slots=True)
class Seen:
    node: AgentNode
    ledger: RedisLedger
    web: WebServer


@contextlib.contextmanager
def page_of_somebody(node: AgentNode, user: int = SOMEBODY, **settings: str) -> Iterator[WebServer]:
    named = {name.replace("__", "."): value for name, value in settings.items()}
    socket = {"CANHAZGPU_AGENT_SOCKET": str(node.agent.people_socket)}
    with WebServer("", named, variables=socket, user=user) as web:
        yield web


@pytest.fixture(scope="module")
def seen_through_agent() -> Iterator[Seen]:
    with make_agent_node() as node:
        ledger = fill(node.here.redis)
        with page_of_somebody(node) as web:
            yield Seen(node, ledger, web)


def assert_same(own: Any, other: Any, where: str) -> None:
    """Compare two documents, and say where they differ."""
    if isinstance(own, dict) and isinstance(other, dict):
        assert own.keys() == other.keys(), where
        for name, one in own.items():
            assert_same(one, other[name], f"{where} {name}")
    elif isinstance(own, list) and isinstance(other, list):
        assert len(own) == len(other), where
        for place, (one, another) in enumerate(zip(own, other, strict=True)):
            assert_same(one, another, f"{where} {place}")
    else:
        assert own == other, where


def without_times(value: Any) -> Any:
    """Leave out what differs between two reads, and whose records a job's node has."""
    if isinstance(value, dict):
        left_out = ("here", "slurm_fault", "next")
        return {name: without_times(one) for name, one in value.items() if name not in left_out}
    if isinstance(value, list):
        return [without_times(one) for one in value]
    if isinstance(value, str):
        return TIME.sub("TIME", value)
    return round(value, 1) if isinstance(value, float) else value


def test_the_user_has_no_other_way(seen_through_agent: Seen) -> None:
    here = seen_through_agent
    log = here.web.log
    assert f"the page asks the agent at {here.node.agent.people_socket}" in log
    status = Path(f"/proc/{here.web.pid}/status").read_text()
    assert f"Uid:\t{SOMEBODY}\t{SOMEBODY}" in status
    here.web.ask("/cluster.json")
    assert b"STORE" not in Path(f"/proc/{here.web.pid}/environ").read_bytes()


def test_every_json_is_that_of_a_reader_of_the_store(seen_through_agent: Seen) -> None:
    here = seen_through_agent
    with WebServer(here.node.here.redis.url) as direct:
        for path in JSON:
            own, through = direct.ask(path), here.web.ask(path)
            assert own.status == through.status, path
            assert_same(without_times(own.json()), without_times(through.json()), path)
            assert own.headers.get("x-total-nodes") == through.headers.get("x-total-nodes")


def test_every_page_is_there_and_says_what_there_is(seen_through_agent: Seen) -> None:
    for path in PAGES:
        answer = seen_through_agent.web.ask(path)
        assert answer.status == (404 if "nix" in path else 200), path
        assert 'class="banner"' not in answer.text
    assert "anna" in seen_through_agent.web.ask("/jobs/41").text
    text = seen_through_agent.web.ask("/metrics").text
    assert 'canhazgpu_gpus{node="n2",state="reserved"} 1.0' in text
    assert "canhazgpu_store_up 1.0" in text


def test_metrics_have_what_nodes_count(seen_through_agent: Seen) -> None:
    here = seen_through_agent
    text = {"through": "", "numbers": [["requeues", 7]], "seconds": {}, "outage": False}
    store = StoreConfig(url=here.node.here.redis.url)
    NodeCounters(store, Role.WRITE).publish("n2", json.dumps(text))
    poll_until(lambda: 'canhazgpu_requeues_total{node="n2"} 7.0' in here.web.ask("/metrics").text)


def test_unknown_filters_say_what_there_is(seen_through_agent: Seen) -> None:
    answer = seen_through_agent.web.ask("/?partition=nix")
    assert answer.status == 404
    assert 'href="/?partition=long"' in answer.text
    assert seen_through_agent.web.ask("/?page=9").status == 400


def test_nothing_is_scanned_and_no_notice_is_taken_from_its_user(seen_through_agent: Seen) -> None:
    here = seen_through_agent
    before = here.node.agent.served("Command")
    for path in ("/cluster.json", "/nodes/n1.json", "/jobs/41.json", "/report.json?days=3"):
        document = here.web.ask(path).json()
        assert all(not one["live"] for one in document.get("nodes", ()) if "live" in one)
    assert here.node.agent.served("Command") > before
    assert here.node.agent.status()["faults"] == []


def test_an_open_page_follows_the_cluster(seen_through_agent: Seen) -> None:
    here = seen_through_agent
    with open_browser() as browser, Window(browser, here.web.address) as window:
        window.open("/?draw=tiles")
        window.wait_for_text(".big", "10 of 16 GPUs available")
        here.ledger.reserve_given(
            job_claim(42, "dora"), [gpu_uuid("n2", 5)], seen("n2", {0: "bert"})
        )
        window.wait_for_text(".big", "9 of 16 GPUs available")
        here.ledger.release("n2", job_claim(42, "dora").owner, "ended")
        window.wait_for_text(".big", "10 of 16 GPUs available")
        window.picture("through-the-agent")
        assert window.faults == []


def cluster(web: WebServer) -> Answer:
    answer = web.ask("/cluster.json")
    assert [one["node"] for one in answer.json()["nodes"]] == ["n1", "n2"]
    return answer


def test_an_agent_that_ends_leaves_the_last_known_state_until_it_is_back() -> None:
    with make_agent_node() as node:
        fill(node.here.redis)
        with page_of_somebody(node) as web, open_browser() as browser:
            assert cluster(web).json()["error"] is None
            with Window(browser, web.address) as window:
                page = window.open("/")
                node.agent.process.kill()
                node.agent.process.wait()
                page.locator(".banner").wait_for()
                assert "gives no answer" in window.text(".banner")
                assert "10 of 16 GPUs available" in window.text(".big")
                assert "gives no answer" in cluster(web).json()["error"]
                for path in ("/nodes/n1", "/people", "/queue"):
                    assert web.ask(path).status == 200
                # Nothing was ever read of them: they are not made up.
                assert web.ask("/jobs/41").status == 503
                assert node.agent.start_again()
                page.locator(".banner").wait_for(state="detached")
                # An error is kept for a second, too.
                poll_until(lambda: web.ask("/jobs/41").status == 200)
                assert [one for one in window.faults if "net::ERR" not in one] == []


def test_an_agent_that_is_stopped_keeps_no_request_waiting_for_ever() -> None:
    with make_agent_node() as node:
        fill(node.here.redis)
        with page_of_somebody(node) as web:
            cluster(web)
            node.agent.process.send_signal(signal.SIGSTOP)
            statuses: dict[str, int] = {}

            def ask(path: str) -> None:
                statuses[path] = web.ask_once(path).status

            paths = [*PAGES, *JSON, "/metrics", "/openapi.json", "/static/live.js"]
            threads = [threading.Thread(target=ask, args=(one,), daemon=True) for one in paths]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(120)
            # Each has an answer, and none of them is that of an empty cluster.
            assert statuses.keys() == set(paths)
            assert statuses["/"] == statuses["/cluster.json"] == statuses["/nodes/n2"] == 200
            poll_until(lambda: "in time" in (cluster(web).json()["error"] or ""))
            node.agent.process.send_signal(signal.SIGCONT)
            poll_until(lambda: cluster(web).json()["error"] is None)
            poll_until(lambda: web.ask("/jobs/41.json").status == 200)


def test_an_agent_that_becomes_another_release_is_asked_on() -> None:
    with make_agent_node() as node:
        fill(node.here.redis)
        with page_of_somebody(node) as web:
            cluster(web)
            executions = node.agent.status()["executions"]
            node.agent.process.send_signal(signal.SIGHUP)
            poll_until(lambda: node.agent.status()["executions"] > executions)
            poll_until(lambda: cluster(web).json()["error"] is None)
            assert web.ask("/jobs/41.json").status == 200


def test_a_store_that_is_away_is_told_by_the_agent() -> None:
    with make_agent_node(store={"timeout_s": 0.5}) as node:
        fill(node.here.redis)
        with page_of_somebody(node) as web:
            cluster(web)
            node.here.redis.pause()
            poll_until(lambda: "store" in (cluster(web).json()["error"] or ""))
            assert 'class="banner"' in web.ask("/").text
            node.here.redis.resume()
            poll_until(lambda: cluster(web).json()["error"] is None)


def test_the_agent_of_a_login_host_tells_the_same() -> None:
    with PrivateRedis() as server, tempfile.TemporaryDirectory(prefix="chg-login-") as name:
        fill(server)
        directory = Path(name)
        directory.chmod(0o755)
        role = {"role": "reader", "orders": "await"}
        with RunningAgent(directory, "login1", agent=role, store={"url": server.url}) as agent:
            agent.hide_config()
            socket = {"CANHAZGPU_AGENT_SOCKET": str(agent.people_socket)}
            with WebServer("", variables=socket, user=SOMEBODY) as web:
                assert cluster(web).json()["error"] is None
                for path in PAGES:
                    assert web.ask(path).status == (404 if "nix" in path else 200), path
            assert agent.status()["faults"] == []


def test_a_large_cluster_comes_in_parts_and_is_whole() -> None:
    names = [f"gpu{number:03d}" for number in range(600)]
    with make_agent_node() as node:
        fill_many(node.here.redis, names)
        settings = {"web.poll_s": "30"}
        with (
            page_of_somebody(node, web__poll_s="30") as web,
            WebServer(node.here.redis.url, settings) as direct,
        ):
            for page in (1, 2):
                own = direct.ask(f"/cluster.json?draw=tiles&page={page}").json()
                through = web.ask(f"/cluster.json?draw=tiles&page={page}").json()
                assert len(own["nodes"]) > 100
                assert_same(without_times(own), without_times(through), str(page))
            found = web.ask("/summary.json").json()["nodes"]
            assert [one["node"] for one in found] == names


def test_a_page_takes_few_of_its_users_places() -> None:
    with make_agent_node(agent={"max_requests_per_user": 4}) as node:
        fill(node.here.redis)
        with page_of_somebody(node) as web:
            cluster(web)
            answers = []

            def ask(number: int) -> None:
                answers.append(web.ask_once(f"/jobs/{number}.json"))

            threads = [threading.Thread(target=ask, args=(one,)) for one in range(1000, 1024)]
            for thread in threads:
                thread.start()
            done = node.run("status", "--json", user=SOMEBODY)
            for thread in threads:
                thread.join(120)
            assert done.returncode == 0, done.stderr
            # Unknown jobs, each asked for in its turn, unless the machine was too slow for that.
            others = {one.json()["error"] for one in answers if one.status != 404}
            assert all("too many questions" in one or "in time" in one for one in others), others
            assert len(answers) == 24
