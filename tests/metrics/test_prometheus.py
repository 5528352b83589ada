"""A real Prometheus reads both a node's file, by node_exporter, and the cluster's metrics.

It evaluates each query of the dashboards, and the alerts are tested by promtool.
"""

from __future__ import annotations

import json
import socket
import subprocess
import threading
import urllib.parse
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from hosts.hook_node import NODE, HookNode
from metrics_programs import need_program
from polling import poll_until

from canhazgpu.config.schema import StoreConfig
from canhazgpu.gpu.usage import UsagePolicy
from canhazgpu.ledger.store.connect import Role
from canhazgpu.ledger.store.totals.counters import NodeCounters
from canhazgpu.metrics.counts import HistoryCounts, published_counts
from canhazgpu.metrics.exposition import CONTENT_TYPE, cluster_metrics
from canhazgpu.probe.bounded_child import die_with_parent
from canhazgpu.status.node_status import node_status

CONTRIB = Path(__file__).parents[2] / "contrib"
RULES = CONTRIB / "prometheus" / "canhazgpu.rules.yml"
DASHBOARDS = sorted((CONTRIB / "grafana").glob("*.json"))


def queries(dashboard: Path) -> list[tuple[str, str]]:
    """The title and the query of each panel, with the variables replaced as Grafana does."""
    content = json.loads(dashboard.read_text())
    return [
        (panel["title"],
         target["expr"].replace("$node", NODE).replace("$__rate_interval", "5m"))
        for panel in content["panels"]
        for target in panel["targets"]
    ]  # fmt: skip


ALL_QUERIES = [(one.stem, *query) for one in DASHBOARDS for query in queries(one)]
MAY_BE_EMPTY = {"Use without a reservation", "In quarantine", "Agent's processes"}
"""Of what this node has none of."""


def test_there_are_two_dashboards() -> None:
    assert [one.stem for one in DASHBOARDS] == ["canhazgpu-cluster", "canhazgpu-node"]
    assert all(json.loads(one.read_text())["uid"] == one.stem for one in DASHBOARDS)


def test_the_alerts_fire_when_they_should() -> None:
    promtool = need_program("promtool")
    for arguments in (
        ("check", "rules", "--lint-fatal", str(RULES)),
        ("test", "rules", str(RULES.with_suffix(".test.yml"))),
    ):
        done = subprocess.run(
            [promtool, *arguments], cwd=RULES.parent, capture_output=True, text=True,
            timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr


def test_each_alert_has_a_test() -> None:
    named = [
        line.partition("alert: ")[2] for line in RULES.read_text().splitlines() if "alert: " in line
    ]
    tested = RULES.with_suffix(".test.yml").read_text()
    assert named
    assert not [one for one in named if f"alertname: {one}" not in tested]


def test_the_example_of_a_configuration_is_valid(tmp_path: Path) -> None:
    example = (CONTRIB / "prometheus" / "scrape.example.yml").read_text()
    (tmp_path / "prometheus.yml").write_text(example)
    (tmp_path / RULES.name).write_text(RULES.read_text())
    subprocess.run(
        [need_program("promtool"), "check", "config", str(tmp_path / "prometheus.yml")],
        check=True, capture_output=True, timeout=60,
    )  # fmt: skip


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def published(node: HookNode) -> dict[str, HistoryCounts]:
    """What the nodes have published that they count."""
    pages = NodeCounters(StoreConfig(url=node.server.url), Role.READ).read()
    found = {name: published_counts(text) for page in pages for name, text in page.items()}
    return {name: counts for name, counts in found.items() if counts is not None}


class Page:
    """Serves the cluster's metrics, as the page does."""

    def __init__(self, node: HookNode) -> None:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                views = node.ledger.read_nodes()
                statuses = [node_status(one, UsagePolicy(1024)) for one in views]
                text = cluster_metrics(statuses, published(node))
                self.send_response(200)
                self.send_header("Content-Type", CONTENT_TYPE)
                self.end_headers()
                self.wfile.write(text)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


class Prometheus:
    """A Prometheus of its own, which scrapes every second."""

    def __init__(self, directory: Path, targets: dict[str, str]) -> None:
        self._address = f"127.0.0.1:{free_port()}"
        scrapes = [
            {"job_name": name, "static_configs": [{"targets": [address]}]}
            for name, address in targets.items()
        ]
        config = {
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "rule_files": [str(RULES)],
            "scrape_configs": scrapes,
        }
        (directory / "prometheus.yml").write_text(json.dumps(config))
        self.process = subprocess.Popen(
            [need_program("prometheus"), f"--config.file={directory}/prometheus.yml",
             f"--storage.tsdb.path={directory}/data", f"--web.listen-address={self._address}",
             "--log.level=error"],
            preexec_fn=die_with_parent(),  # noqa: PLW1509 - it only calls prctl
        )  # fmt: skip

    def get(self, path: str, **arguments: str) -> Any:
        query = urllib.parse.urlencode(arguments)
        with urllib.request.urlopen(f"http://{self._address}/api/v1/{path}?{query}") as answer:
            return json.load(answer)["data"]

    def query(self, expression: str) -> list[dict[str, Any]]:
        """The result of a query now; fails where it is not valid."""
        return list(self.get("query", query=expression)["result"])

    def is_up(self) -> bool:
        try:
            return bool(self.query("canhazgpu_hook_duration_seconds_count"))
        except OSError:
            return False


@pytest.fixture
def prometheus(node: HookNode, textfile: Path, tmp_path: Path) -> Iterator[Prometheus]:
    exporter = f"127.0.0.1:{free_port()}"
    exporting = subprocess.Popen(
        [need_program("prometheus-node-exporter"), "--collector.disable-defaults",
         "--collector.textfile", f"--collector.textfile.directory={textfile.parent}",
         f"--web.listen-address={exporter}", "--log.level=error"],
        preexec_fn=die_with_parent(),  # noqa: PLW1509 - as above
    )  # fmt: skip
    page = Page(node)
    (tmp_path / "prometheus").mkdir()
    host, port = page.server.server_address[:2]
    started = None
    try:
        started = Prometheus(
            tmp_path / "prometheus", {"nodes": exporter, "cluster": f"{host!s}:{port}"}
        )
        yield started
    finally:
        page.server.shutdown()
        page.server.server_close()
        for process in [exporting, *([started.process] if started else [])]:
            process.kill()
            process.wait()


def titles_of_nothing(prometheus: Prometheus) -> set[str]:
    """The panels that show nothing now."""
    return {title for _, title, query in ALL_QUERIES if not prometheus.query(query)}


@pytest.mark.slow
def test_prometheus_reads_both_and_every_panel_has_its_query(
    node: HookNode, prometheus: Prometheus, textfile: Path
) -> None:
    check = ("-m", "canhazgpu.epilog.health_check", "--exit-code")
    metrics = {"textfile": str(textfile), "publish": "counters"}
    node.configure(metrics=metrics)
    assert node.python(*check).returncode == 0
    node.reserve(0)
    node.slurm(requeue="", squeue="echo 12 RUNNING")
    node.configure(slurm={"on_conflict": "requeue"}, metrics=metrics)
    node.run("prolog")
    node.run("prolog", SLURM_JOB_ID="13", SLURM_JOB_GPUS="2")
    node.slurm(squeue="echo 13 RUNNING")
    assert node.python(*check).returncode == 0
    poll_until(prometheus.is_up)
    poll_until(
        lambda: len(prometheus.query('count by (job) (canhazgpu_gpu_info{user="ann"})')) == 2
    )
    # What grows has to be seen more than once.
    poll_until(lambda: titles_of_nothing(prometheus) <= MAY_BE_EMPTY)
    # Told by both, and counted once.
    (reserved,) = prometheus.query('sum(max by (node, state) (canhazgpu_gpus{state="reserved"}))')
    assert reserved["value"][1] == "2"
    poll_until(lambda: len(prometheus.query('canhazgpu_requeues_total{node="n1"} == 1')) == 2)
    (refused,) = prometheus.query("sum(max by (node, cause) (canhazgpu_refusals_total))")
    assert refused["value"][1] == "1"
    groups = prometheus.get("rules")["groups"]
    assert [rule["health"] for group in groups for rule in group["rules"]].count("err") == 0
    targets = prometheus.get("targets")["activeTargets"]
    assert {(one["labels"]["job"], one["health"]) for one in targets} == {
        ("nodes", "up"), ("cluster", "up"),
    }  # fmt: skip
