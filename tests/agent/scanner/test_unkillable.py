"""A reader that no signal ends, as one that hangs in the driver: a frozen group holds it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from polling import poll_until
from scanner_host import ScannerHost, is_running

import fake_nvml
from canhazgpu.agent.scanner.client import release_driver
from canhazgpu.probe.node_probe import PendingNodeScan

Ask = Callable[..., PendingNodeScan]
FREEZER = Path("/sys/fs/cgroup/freezer")

pytestmark = [
    pytest.mark.may_skip,
    pytest.mark.skipif(
        not os.access(FREEZER / "cgroup.procs", os.W_OK) or os.geteuid() != 0,
        reason="only cgroup v1, as root, freezes a process so that it cannot be killed",
    ),
]


@pytest.fixture
def freeze(scanner: ScannerHost) -> Iterator[Callable[[int], None]]:
    """Freezes a process; it goes on after the test, when the scanner is gone."""
    group = FREEZER / f"chg-{os.getpid()}"
    group.mkdir()

    def put(pid: int) -> None:
        (group / "cgroup.procs").write_text(str(pid))
        (group / "freezer.state").write_text("FROZEN")
        poll_until(lambda: "FROZEN" in (group / "freezer.state").read_text(), "the freezing")

    yield put
    (group / "freezer.state").write_text("THAWED")
    poll_until(lambda: not (group / "cgroup.procs").read_text(), "the end of what was frozen")
    group.rmdir()


@pytest.mark.slow
def test_the_next_request_is_served(
    ask: Ask, scanner: ScannerHost, node: fake_nvml.FakeNode, freeze: Callable[[int], None]
) -> None:
    ask(scan_timeout_s=2.0).observe()
    (reader,) = scanner.readers()
    freeze(reader)
    assert "no answer within" in (ask(scan_timeout_s=2.0).observe().scan.fault or "")
    assert is_running(reader), "it was killed, and does not end"
    for _ in range(3):
        assert ask().observe().scan.fault is None
    assert len(scanner.readers()) == 2
    assert release_driver(scanner.socket_path, 0.5) == (reader,), "it holds the driver still"


def test_the_listener_may_end(
    ask: Ask, scanner: ScannerHost, node: fake_nvml.FakeNode, freeze: Callable[[int], None]
) -> None:
    """I expect the scanner to end with its listener, whatever its reader does."""
    ask().observe()
    (reader,) = scanner.readers()
    freeze(reader)
    server = scanner.scanner()
    os.kill(scanner.pid, 9)
    poll_until(lambda: not is_running(server), "the end of the scanner")
    assert is_running(reader)
