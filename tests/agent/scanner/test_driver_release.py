"""`agent release-driver` on a running scanner, without an agent, and where a call hangs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from polling import poll_until
from scanner_host import ScannerHost

import fake_nvml
from canhazgpu.agent.socket_files import agent_directory
from canhazgpu.probe.node_probe import PendingNodeScan

Ask = Callable[..., PendingNodeScan]
Release = Callable[..., subprocess.CompletedProcess[str]]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root may release the driver"),
]


@pytest.fixture
def scanner(scanner: ScannerHost, place: Path) -> ScannerHost:
    """The scanner where an agent of the state directory has it."""
    agent_directory(place).mkdir()
    scanner.socket_path = agent_directory(place) / scanner.socket_path.name
    return scanner


@pytest.fixture
def release(place: Path) -> Release:
    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        program = Path(sys.executable).with_name("canhazgpu")
        return subprocess.run(
            [program, "agent", "release-driver", *arguments],
            env={"CANHAZGPU_NODE_NAME": "n1", "CANHAZGPU_NODE_STATE_DIR": str(place)},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    return run


def test_the_agent_lets_go(ask: Ask, scanner: ScannerHost, release: Release) -> None:
    ask().observe()
    done = release()
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("the agent has no device open\n")
    assert scanner.readers() == []


def test_json(ask: Ask, scanner: ScannerHost, release: Release) -> None:
    ask().observe()
    told = json.loads(release("--json").stdout)
    assert told["agent_runs"] is True
    assert isinstance(told["others"], list)


def test_without_an_agent_there_is_nothing_to_release(release: Release) -> None:
    done = release()
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("no agent runs on this node\n")


def test_what_does_not_let_go_is_named(
    ask: Ask, scanner: ScannerHost, release: Release, node: fake_nvml.FakeNode
) -> None:
    node.inject("nvmlInit", hang=True)
    pending = ask(scan_timeout_s=60.0)
    (reader,) = poll_until(scanner.readers, "a reader")
    done = release("--timeout", "0.3")
    assert done.returncode == 8
    assert f"the agent's processes {reader} still have the driver open after 0.3 s" in done.stderr
    assert "dmesg" in done.stderr
    os.kill(reader, signal.SIGKILL)
    pending.observe()


def test_a_stopped_scanner(ask: Ask, scanner: ScannerHost, release: Release) -> None:
    ask().observe()
    server = scanner.scanner()
    os.kill(server, signal.SIGSTOP)
    done = release("--timeout", "0.3")
    os.kill(server, signal.SIGCONT)
    assert done.returncode == 8
    assert "does not answer within 0.6 s" in done.stderr
