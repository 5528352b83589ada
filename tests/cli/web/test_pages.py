"""What the pages of a real server say, and their JSON; over a real store."""

from __future__ import annotations

import html
import json
import re
import signal
import time
import urllib.parse
from typing import TYPE_CHECKING

import pytest
from hosts.web_server import Answer, WebServer
from polling import poll_until
from servers.private_redis import PrivateRedis
from servers.shown_cluster import fill, job_claim

from canhazgpu.config.schema import StoreConfig
from canhazgpu.ledger.journal_entries import EPILOG, JournalEntry, NumberedEntry
from canhazgpu.ledger.store.connect import Role
from canhazgpu.ledger.store.totals.counters import NodeCounters

if TYPE_CHECKING:
    from conftest import Shown

pytestmark = pytest.mark.slow

PAGES = (
    "/",
    "/?draw=tiles",
    "/?draw=dots",
    "/?draw=rows&state=available",
    "/nodes/n1",
    "/queue",
    "/people",
    "/people/anna",
    "/jobs/41",
    "/jobs/run:00000000000000b0",
    "/report",
    "/report?days=30",
    "/nodes/nix",
    "/nothing",
)


def words(answer: Answer) -> str:
    """The text of a page as people read it."""
    text = re.sub(r"<(script|style|datalist)\b.*?</\1>|<[^>]*>", " ", answer.text, flags=re.DOTALL)
    return " ".join(html.unescape(text).split())


def test_the_cluster_is_shown_by_state_with_what_needs_a_look(shown: Shown) -> None:
    answer = shown.web.ask("/")
    text = words(answer)
    assert answer.status == 200
    assert "10 of 16 GPUs available on 2 nodes" in text
    assert "1 waiting" in text
    counts = "available 10 in use 3 in use without reservation 1 quarantined 1 unknown 1"
    assert counts in text
    assert "reserved, and used by others 1" in text
    assert "n1 1 used without reservation by mallory; 1 reserved, and used by mallory" in text


@pytest.mark.parametrize(
    ("query", "nodes", "gpus"),
    [
        ("", ["n1", "n2"], 16),
        ("state=available", ["n1", "n2"], 10),
        ("free=1", ["n1", "n2"], 10),
        ("state=in-use", ["n1", "n2"], 4),
        ("user=anna", ["n1"], 2),
        ("partition=short", ["n2"], 8),
        ("model=llama", ["n1", "n2"], 4),
        ("model=h100&state=quarantined", ["n1"], 1),
        ("state=quarantined&user=bert", [], 0),
    ],
)
def test_a_filter_chooses_for_the_page_and_for_its_json(
    shown: Shown, query: str, nodes: list[str], gpus: int
) -> None:
    found = shown.web.ask(f"/cluster.json?{query}").json()["nodes"]
    assert [one["node"] for one in found] == nodes
    assert sum(len(one["gpus"]) for one in found) == gpus
    page = shown.web.ask(f"/?{query}")
    assert re.findall(r'class="node" id="n-([^"]*)"', page.text) == nodes
    assert page.text.count('<tr class="is-') == gpus


def test_json_beside_each_page_has_the_form_of_the_command(shown: Shown) -> None:
    """The page's address leads to it."""
    for path in ("/", "/nodes/n1", "/queue", "/people", "/people/anna", "/jobs/41", "/report"):
        page = shown.web.ask(path)
        match = re.search(r'<a href="([^"]*)">this page as JSON', page.text)
        assert match is not None, path
        answer = shown.web.ask(html.unescape(match[1]))
        assert answer.status == 200, path
        assert answer.headers["content-type"] == "application/json"
        assert answer.json()


def test_a_node_a_user_and_a_job_lead_to_each_other(shown: Shown) -> None:
    node = shown.web.ask("/nodes/n1")
    assert 'href="/people/anna"' in node.text
    assert 'href="/jobs/41"' in node.text
    assert "quarantined" in words(node)
    assert "row remap pending" in words(node)
    job = shown.web.ask("/jobs/41")
    assert "job 41 of anna" in words(job)
    assert 'href="/nodes/n1"' in job.text
    assert "held now" in words(job)
    assert "grant of attempt 0" in words(job)
    person = shown.web.ask("/people/anna")
    assert "Holds 2 GPUs" in words(person)
    for name, where in (("n2", "/nodes/n2"), ("bert", "/people/bert"), ("41", "/jobs/41")):
        found = shown.web.ask(f"/find?q={name}")
        assert (found.status, found.headers["location"]) == (303, where)


@pytest.mark.parametrize(
    ("path", "status", "says"),
    [
        ("/nodes/n3", 404, "n1"),
        ("/nodes/../etc/passwd", 404, "n1"),
        ("/nodes/%00%ff%1b[2J", 404, "n2"),
        ("/jobs/999", 404, "41"),
        ("/jobs/no-job", 404, "41"),
        (f"/jobs/{'9' * 5000}", 404, "41"),
        ("/people/nobody-of-us", 404, "anna"),
        ("/nowhere", 404, "the cluster"),
        ("/?user=anne", 404, "anna"),
        ("/?partition=gpuu", 404, "gpu"),
        ("/?state=broken", 400, "available"),
        ("/?page=9", 400, "the last one is 1"),
        ("/?page=-1", 400, "no number of a page"),
        (f"/?user={'x' * 900}", 400, "too long"),
        ("/report?days=0", 400, "no number of days"),
        ("/report?days=1e9", 400, "no number of days"),
        ("/static/../live.py", 404, "the cluster"),
        ("/static/%2e%2e/site.py", 404, "the cluster"),
    ],
)
def test_what_does_not_exist_says_what_does(
    shown: Shown, path: str, status: int, says: str
) -> None:
    answer = shown.web.ask(path)
    assert answer.status == status
    assert says in words(answer)
    if not path.startswith(("/?", "/report", "/static")):
        document = shown.web.ask(f"{path}.json")
        assert document.status == 404
        assert document.json()["error"]


@pytest.mark.parametrize("path", PAGES)
def test_every_answer_allows_nothing_from_elsewhere(shown: Shown, path: str) -> None:
    answer = shown.web.ask(path)
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert answer.headers["x-content-type-options"] == "nosniff"
    # What the policy would forbid is not there either: no script, style or handler in a page.
    assert not re.search(r"<style|\sstyle=|\son\w+=|<script(?![^>]*\ssrc=\"/static/)", answer.text)
    assert not re.search(r"(?:src|href|action)=\"(?:https?:)?//", answer.text)


def test_nothing_can_be_changed(shown: Shown) -> None:
    for method in ("POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"):
        answer = shown.web.ask("/nodes/n1", method)
        assert (answer.status, answer.headers["allow"]) == (405, "GET, HEAD"), method
    head = shown.web.ask("/nodes/n1", "HEAD")
    assert (head.status, head.text) == (200, "")


def test_a_page_under_a_foreign_name_is_refused(shown: Shown) -> None:
    port = shown.web.port
    for host in ("localhost", f"localhost:{port}", f"127.0.0.1:{port}", "[::1]:8090"):
        assert shown.web.ask("/", Host=host).status == 200, host
    for host in ("evil.example", f"evil.example:{port}", "localhost.evil.example", "", "a b"):
        assert shown.web.ask("/cluster.json", Host=host).status in (400, 421), host


def test_a_browser_that_has_the_page_gets_none(shown: Shown) -> None:
    first = shown.web.ask("/queue")
    again = shown.web.ask("/queue", If_None_Match=first.headers["etag"])
    assert (again.status, again.text) == (304, "")
    other = shown.web.ask("/people", If_None_Match=first.headers["etag"])
    assert other.status == 200


def test_a_name_is_taken_from_the_header_that_is_configured(shown: Shown) -> None:
    assert 'href="/people/anna">anna</a>' in shown.web.ask("/queue", X_Remote_User="anna").text
    assert "anna" not in shown.web.ask("/queue", Remote_User="anna").text
    evil = shown.web.ask("/queue", X_Remote_User='"><script>alert(1)</script>')
    assert "<script>alert" not in evil.text


def test_no_name_is_taken_from_elsewhere_or_without_being_told_to() -> None:
    with PrivateRedis() as server:
        fill(server)
        untrusted = {"web.user_header": "X-Remote-User", "web.trusted_proxies": '["10.9.8.7"]'}
        for settings in ({}, untrusted):
            with WebServer(server.url, settings) as web:
                answer = web.ask("/queue", X_Remote_User="anna", Remote_User="anna")
                assert answer.status == 200
                assert "anna" not in answer.text


def test_below_a_path_of_a_proxy_every_address_has_it() -> None:
    with PrivateRedis() as server:
        fill(server)
        with WebServer(server.url, {"web.root_path": "/gpus/here"}) as web:
            for path in ("/", "/nodes/n1", "/people", "/jobs/41", "/report", "/nodes/nix"):
                addresses = re.findall(r'(?:href|src|action)="([^"#]+)"', web.ask(path).text)
                assert len(addresses) > 5
                assert [one for one in addresses if not one.startswith("/gpus/here/")] == []
            assert web.ask("/find?q=n1").headers["location"] == "/gpus/here/nodes/n1"


def test_a_store_that_is_away_leaves_the_last_known_state_and_a_banner() -> None:
    with PrivateRedis() as server:
        fill(server)
        with WebServer(server.url, {"store.timeout_s": "0.5"}) as web:
            assert "10 of 16 GPUs available" in words(web.ask("/"))
            assert web.ask("/jobs/41").status == web.ask("/report").status == 200
            server.pause()
            away = poll_until(lambda: banner(web, "/"), "the banner")
            assert "10 of 16 GPUs available on 2 nodes" in away
            for path in ("/nodes/n1", "/queue", "/people", "/people/anna"):
                answer = web.ask(path)
                assert answer.status == 200, path
                assert 'role="alert"' in answer.text
            document = web.ask("/cluster.json")
            assert document.json()["error"]
            assert len(document.json()["nodes"]) == 2
            assert int(document.headers["age"]) >= 0
            assert "canhazgpu_store_up 0.0" in web.ask("/metrics").text
            for path in ("/jobs/41", "/report"):
                shown = poll_until(lambda path=path: banner(web, path), path)
                assert "Shown is the last known one, of 20" in shown
                assert int(web.ask(f"{path}.json").headers["age"]) >= 0
            poll_until(lambda: web.ask("/jobs/41.json").json()["error"], "the job is asked anew")
            # Of what was never read nothing is made up.
            assert web.ask("/jobs/run:00000000000000b0").status == 503
            assert web.ask("/report?days=30").status == 503
            server.resume()
            assert poll_until(lambda: not banner(web, "/"), "the store is seen again")


def banner(web: WebServer, path: str) -> str:
    answer = web.ask(path)
    text = words(answer)
    assert answer.status == 200
    return text if "This is not the present state" in text else ""


def test_without_anything_known_nothing_is_made_up() -> None:
    with WebServer("redis://127.0.0.1:1/0") as web:
        for path in ("/", "/nodes/n1", "/people", "/cluster.json", "/summary.json", "/metrics"):
            answer = web.ask(path)
            assert answer.status == 503, path
            assert "GPUs available" not in answer.text


def test_a_store_without_nodes_is_no_empty_cluster() -> None:
    with PrivateRedis() as server, WebServer(server.url) as web:
        answer = web.ask("/")
        assert answer.status == 503
        assert "the ledger knows no node" in words(answer)
        fill(server)
        assert poll_until(lambda: web.ask("/").status == 200)


def test_metrics_of_the_cluster(shown: Shown) -> None:
    answer = shown.web.ask("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=")
    assert "canhazgpu_store_up 1.0" in answer.text
    assert 'node="n1"' in answer.text


def test_metrics_have_what_nodes_published_also_while_the_store_is_away() -> None:
    counted = 'canhazgpu_refusals_total{cause="reserved",node="n1"} 3.0'
    numbers = [["refusals", "reserved", 3], ["refusals", "<b>\x1b[2J", 1]]
    text = {"through": "", "numbers": numbers, "seconds": {}, "outage": False}
    with PrivateRedis() as server:
        fill(server)
        with WebServer(server.url, {"web.poll_s": "1", "store.timeout_s": "1"}) as web:
            assert "_refusals_total" not in web.ask("/metrics").text
            NodeCounters(StoreConfig(url=server.url), Role.WRITE).publish("n1", json.dumps(text))
            poll_until(lambda: counted in web.ask("/metrics").text)
            assert "<b>" not in web.ask("/metrics").text
            server.stop()
            poll_until(lambda: "canhazgpu_store_up 0.0" in web.ask("/metrics").text)
            assert counted in web.ask("/metrics").text


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_ends_when_asked_to_though_somebody_looks(number: int) -> None:
    import http.client

    with PrivateRedis() as server:
        fill(server)
        with WebServer(server.url) as web:
            connection = http.client.HTTPConnection("127.0.0.1", web.port, timeout=60)
            connection.request("GET", "/live")
            stream = connection.getresponse()
            lines = [stream.readline() for _ in range(4)]
            assert b"event: state\n" in lines
            status = web.end(number)
            connection.close()
    assert status == 0
    assert "Traceback" not in web.log
    assert "did not end" not in web.log


def test_it_reads_as_an_ordinary_user_and_scans_nothing(shown: Shown) -> None:
    """A page that is read again and again looks at no GPU."""
    node = shown.web.ask("/cluster.json").json()["nodes"][0]
    assert node["live"] is False


def test_names_are_parts_of_addresses_whatever_they_have(shown: Shown) -> None:
    odd = urllib.parse.quote("a/b?c=d&e#f <script>", safe="")
    answer = shown.web.ask(f"/people/{odd}")
    assert answer.status == 404
    assert "<script>" not in answer.text.replace('<script type="module"', "")
    assert json.dumps("a/b?c=d")[1:-1] in html.unescape(answer.text)


def test_while_the_cluster_is_read_for_the_first_time_everything_else_is_served() -> None:
    with PrivateRedis() as server:
        fill(server)
        with WebServer(server.url, {"store.timeout_s": "600"}) as web:
            server.pause()
            first = web.ask_once("/")
            assert first.status == 503
            assert "read for the first time" in words(first)
            assert first.headers["refresh"] == first.headers["retry-after"]
            assert web.ask_once("/openapi.json").status == 200
            server.resume()
            assert web.ask("/").status == 200


def test_what_jobs_made_of_their_gpus_is_told_to_people() -> None:
    with PrivateRedis() as server:
        ledger = fill(server)
        ledger.release("n1", "job:c1:41:0", "job ended")
        rows = [["0", 40_000, 80_000, 80], ["1", None, 80_000, None]]
        facts = {"use": {"driver": rows, "held_ms": 5000, "idle_ms": 0}}
        claim = job_claim(41, "anna")
        note = JournalEntry(EPILOG, time.time(), claim.owner, claim=claim, facts=facts)
        ledger.record_entries("n1", "token", [NumberedEntry(1, note)])
        with WebServer(server.url) as web:
            web.ask("/")
            for path in ("/people", "/report"):
                text = words(web.ask(path))
                assert "Mean use Peak memory" in text
                assert re.search(r"anna [^%]*% (?:[0-9]+ % )?40 % 25 %", text), text
            (anna,) = [
                one for one in web.ask("/people.json").json()["users"] if one["user"] == "anna"
            ]
            assert (anna["mean_utilization"], anna["peak_memory_share"]) == (0.4, 0.25)
