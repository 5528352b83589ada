from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from demo_cluster.host.processes import (
    Process,
    find_process,
    process_environment,
    self_and_ancestors,
    terminate_all,
    uses_directory,
    wait_until,
)


@pytest.fixture
def sleeper(directory: Path) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["/bin/sleep", "600"], cwd=directory, env={"MARK": "a=b"}) as process:
        yield process
        process.kill()


def test_a_process_is_known_by_pid_and_start_time(sleeper: subprocess.Popen[bytes]) -> None:
    found = find_process(sleeper.pid)

    assert found is not None
    assert found.alive()
    assert not Process(found.pid, found.started - 1).alive()


def test_a_process_with_a_reused_pid_is_not_ended(sleeper: subprocess.Popen[bytes]) -> None:
    found = find_process(sleeper.pid)
    assert found is not None

    terminate_all([Process(found.pid, found.started - 1)], grace_s=0.1)

    assert sleeper.poll() is None


def test_ending_waits_until_the_process_is_gone(sleeper: subprocess.Popen[bytes]) -> None:
    found = find_process(sleeper.pid)
    assert found is not None

    terminate_all([found], grace_s=5)

    assert find_process(sleeper.pid) is None


def test_environment_and_working_directory_are_read(
    sleeper: subprocess.Popen[bytes], directory: Path
) -> None:
    # Popen returns while exec is still under way, when the environment is not there yet.
    assert wait_until(lambda: process_environment(sleeper.pid) == {"MARK": "a=b"}, timeout_s=5)
    assert uses_directory(sleeper.pid, directory)
    assert not uses_directory(sleeper.pid, directory / "deeper")


def test_this_process_and_its_parent_are_in_its_own_line() -> None:
    assert {os.getpid(), os.getppid()} <= self_and_ancestors()
