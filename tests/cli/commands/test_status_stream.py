"""`canhazgpu status --json --stream` with a ledger and a probe in memory: one node a line."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest
from click.testing import CliRunner, Result
from fakes.read_only_ledger import NOW, FakeLedger, FakeProbe, app

from canhazgpu.cli.main import cli
from canhazgpu.errors import StoreError
from canhazgpu.gpu.scan import GpuReading, Scan
from canhazgpu.in_process.status import reader
from canhazgpu.ledger.values import Claim, NodeView, Reservation


def gpu(node: str, index: int = 0, used_mb: int = 45) -> GpuReading:
    return GpuReading(index, f"GPU-{node}-{index}", index, "H100", used_mb, 80000)


def published(node: str, partition: str = "gpu", user: str = "alice") -> NodeView:
    held = Reservation(f"GPU-{node}-1", Claim("manual:1", "manual", user), NOW - 60)
    scan = Scan(node, 0.0, 0.1, (gpu(node), gpu(node, 1)))
    return NodeView(node, NOW, scan, NOW - 60, {held.gpu: held}, {}, {}, partitions=(partition,))


NODES = [published(f"n{number}") for number in range(1, 8)]
OWN_GPUS = (gpu("n1"), gpu("n1", 1))


@pytest.fixture(autouse=True)
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader, "NODES_PER_ANSWER", 3)


def run(ledger: FakeLedger, probe: FakeProbe, *words: str) -> Result:
    return CliRunner().invoke(cli, ["status", "--json", *words], obj=app(ledger, probe))


def streamed(result: Result) -> list[dict[str, Any]]:
    return [json.loads(line) for line in result.stdout.splitlines()]


@pytest.mark.parametrize("own", ["n1", "between", "absent"])
@pytest.mark.parametrize(
    "words", [(), ("--state", "available"), ("--user", "alice"), ("--node", "n3", "--node", "n2")]
)
def test_the_nodes_are_those_of_the_document(own: str, words: tuple[str, ...]) -> None:
    views = {
        "n1": NODES,
        "between": [published("a1"), *NODES[1:]],
        "absent": NODES[1:],
    }
    probe = FakeProbe(OWN_GPUS)
    whole = run(FakeLedger(*views[own]), probe, *words)
    lines = run(FakeLedger(*views[own]), FakeProbe(OWN_GPUS), "--stream", *words)

    assert (whole.exit_code, lines.exit_code, lines.stderr) == (0, 0, "")
    document = json.loads(whole.stdout)
    read_at = document["generated_at"]
    assert streamed(lines) == [{"generated_at": read_at, **one} for one in document["nodes"]]
    assert len(streamed(lines)) == (2 if "--node" in words else len(document["nodes"])) > 1


def test_a_login_node_without_gpus_is_left_out() -> None:
    lines = run(FakeLedger(*NODES[1:]), FakeProbe(fault="no driver"), "--stream")

    assert (lines.exit_code, lines.stderr) == (0, "")
    assert [one["node"] for one in streamed(lines)] == [one.node for one in NODES[1:]]


def test_few_nodes_are_read_at_once_and_shown_before_the_next() -> None:
    asked: list[int] = []

    class Paged(FakeLedger):
        def read_nodes(self, nodes: Sequence[str] | None = None) -> list[NodeView]:
            assert nodes is not None
            asked.append(len(nodes))
            if len(asked) == 3:
                raise StoreError("the store went away")
            return super().read_nodes(nodes)

    lines = run(Paged(*NODES), FakeProbe(OWN_GPUS), "--stream")

    # I expect what could be read, and no success
    assert max(asked) == 3
    assert [one["node"] for one in streamed(lines)] == [one.node for one in NODES[:6]]
    assert lines.exit_code == 4
    assert "the store went away" in lines.stderr


def test_without_the_store_this_node_alone_is_shown() -> None:
    class Away(FakeLedger):
        def node_names(self) -> list[str]:
            raise StoreError("away")

    lines = run(Away(error=StoreError("away")), FakeProbe(OWN_GPUS), "--stream")

    (own,) = streamed(lines)
    assert (own["node"], own["reservations_known"]) == ("n1", False)
    assert lines.exit_code == 4
    assert "shown is n1 alone" in lines.stderr


def test_no_node_at_all_is_an_error() -> None:
    lines = run(FakeLedger(), FakeProbe(), "--stream")

    assert (lines.exit_code, lines.stdout) == (3, "")


@pytest.mark.parametrize("words", [("--partition", "x"), ("--user", "no-such-user")])
def test_what_no_node_knows_is_refused_as_ever(words: tuple[str, ...]) -> None:
    whole = run(FakeLedger(*NODES), FakeProbe(OWN_GPUS), *words)
    lines = run(FakeLedger(*NODES), FakeProbe(OWN_GPUS), "--stream", *words)

    assert (lines.exit_code, lines.stdout, lines.stderr) == (2, "", whole.stderr)


def test_what_the_last_page_knows_is_known() -> None:
    views = [*NODES[:6], published("n7", partition="rare", user="rare-user")]
    for words in (("--partition", "rare"), ("--user", "rare-user")):
        lines = run(FakeLedger(*views), FakeProbe(OWN_GPUS), "--stream", *words)
        assert [one["node"] for one in streamed(lines)] == ["n7"]
        assert lines.exit_code == 0


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--stream",), "--stream needs --json"),
        (("--json", "--stream", "--watch"), "--stream and --watch exclude each other"),
        (("--json", "--stream", "--me"), "--stream and --me exclude each other"),
        (("--json", "--stream", "--summary"), "--stream and --summary exclude each other"),
    ],
)
def test_options_that_do_not_go_together(words: tuple[str, ...], told: str) -> None:
    result = CliRunner().invoke(
        cli, ["status", *words], obj=app(FakeLedger(*NODES), FakeProbe(OWN_GPUS))
    )

    assert result.exit_code == 2
    assert told in result.stderr
