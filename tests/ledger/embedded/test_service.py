"""The embedded store's program for a service manager: what Type=forking with a pid file needs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from canhazgpu.ledger.embedded import server

pytestmark = pytest.mark.slow


def service(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-I", "-m", "canhazgpu.ledger.embedded.service", *map(str, arguments)],
        env={},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def recorded(directory: Path) -> int:
    return int((directory / "server.pid").read_text())


def test_the_pid_file_names_the_server_when_start_returns(tmp_path: Path) -> None:
    directory = tmp_path / "a store"
    try:
        assert service("start", directory).returncode == 0
        pid = recorded(directory)
        os.kill(pid, 0)
        again = service("start", directory)

        assert (again.returncode, recorded(directory)) == (0, pid)
        assert server.status(str(directory)).running
    finally:
        stopped = service("stop", directory)

    assert (stopped.returncode, server.status(str(directory)).running) == (0, False)
    assert service("stop", directory).returncode == 0


def test_a_directory_that_cannot_be_used_is_an_error_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    done = service("start", tmp_path / "file")

    assert done.returncode == 4
    assert "it is no directory" in done.stderr


@pytest.mark.parametrize("arguments", [(), ("start",), ("restart", "/x"), ("start", "/x", "/y")])
def test_what_it_does_not_know_is_wrong_usage(arguments: tuple[str, ...]) -> None:
    done = service(*arguments)

    assert (done.returncode, done.stdout) == (2, "")
    assert "start|stop DIRECTORY" in done.stderr
