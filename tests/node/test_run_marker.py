"""Which processes are a run's: by its marker, and only its user's."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from polling import poll_until

from canhazgpu.node import run_marker
from canhazgpu.node.processes import identify_process
from canhazgpu.node.run_marker import MARKER_VARIABLE, new_run_marker, processes_of_runs

NOBODY = 65534
SLEEP = ["/bin/sleep", "3600"]


@pytest.fixture
def markers() -> list[str]:
    return [new_run_marker("run:1"), new_run_marker("run:2")]


@pytest.fixture
def sleepers(markers: list[str]) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Two of the first run, one of the second, and of the first one by another user."""
    if os.geteuid() != 0:
        pytest.skip("only root starts other users' processes")
    users = [(markers[0], 0), (markers[0], 0), (markers[1], 0), (markers[0], NOBODY)]
    started = [
        subprocess.Popen(SLEEP, env={MARKER_VARIABLE: marker}, user=uid) for marker, uid in users
    ]
    yield started
    for one in started:
        one.kill()
        one.wait()


def pids(found: dict[str, tuple[object, ...]]) -> list[set[int]]:
    return [{one.pid for one in some} for some in found.values()]  # type: ignore[attr-defined]


@pytest.mark.slow
def test_all_runs_are_found_at_once(
    markers: list[str], sleepers: list[subprocess.Popen[bytes]]
) -> None:
    a, b, c, others = (one.pid for one in sleepers)
    poll_until(lambda: pids(processes_of_runs(markers)) == [{a, b, others}, {c}])
    assert pids(processes_of_runs(markers, uid=0)) == [{a, b}, {c}]
    assert pids(processes_of_runs(markers, uid=NOBODY)) == [{others}, set()]
    sleepers[0].kill()
    poll_until(lambda: identify_process(a) is None)
    assert pids(processes_of_runs(markers, uid=0)) == [{b}, {c}]


@pytest.mark.slow
def test_a_part_of_a_marker_is_none(
    markers: list[str], sleepers: list[subprocess.Popen[bytes]]
) -> None:
    part = markers[0][:-1]
    assert processes_of_runs([part, ""]) == {part: (), "": ()}


def test_a_process_with_other_rights_is_its_users(tmp_path: Path) -> None:
    """A set-user-ID program shows as root's; who started it is the real user."""
    if os.geteuid() != 0:
        pytest.skip("only root makes set-user-ID programs")
    program = tmp_path / "sleep"
    program.write_bytes(Path(SLEEP[0]).read_bytes())
    program.chmod(0o4755)
    for one in (tmp_path, *tmp_path.parents[:3]):
        one.chmod(one.stat().st_mode | 0o111)
    marker = new_run_marker("run:3")
    with subprocess.Popen([program, "3600"], env={MARKER_VARIABLE: marker}, user=NOBODY) as own:
        poll_until(lambda: (Path("/proc") / str(own.pid)).stat().st_uid == 0)
        poll_until(lambda: pids(processes_of_runs([marker], uid=NOBODY)) == [{own.pid}])
        assert pids(processes_of_runs([marker], uid=1)) == [set()]
        own.kill()


def test_who_is_nobody_of_the_run_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process can make the reading of its environment take for ever, as this FIFO does."""
    if os.geteuid() != 0:
        pytest.skip("only root gives files to others")
    process = tmp_path / "4711"
    process.mkdir()
    os.mkfifo(process / "environ")
    os.chown(process, NOBODY, NOBODY)
    monkeypatch.setattr(run_marker, "PROC", tmp_path)
    assert processes_of_runs(["m"], uid=1000) == {"m": ()}
